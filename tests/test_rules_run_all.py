"""Run all: nothing waits, ends the run, stays behind, or fails unseen."""

import json
from pathlib import Path

import pytest

from tools.notebook import Notebook
from tools.rules import RULES, Subject, handlers, processes, run_all, widgets  # noqa: F401
from tools.settings import Settings

COLAB = "from google.colab import drive, files, output, userdata\nimport os\n"
WIDGETS = "import ipywidgets as widgets\nfrom ipywidgets import Tab, Layout\n"
OURS = "from engine import Trainer\ntrainer = Trainer()\n"


def subject_of(*sources: str, root: Path = Path(".")) -> Subject:
    cells = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {}, "source": text, "outputs": []}
        for i, text in enumerate(sources)
    ]
    content = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    notebook = Notebook(Path("a.ipynb"), json.dumps(content).encode(), content)
    return Subject(notebook, Settings(root=root, legacy=("engine",)), root)


def places(code: str, *sources: str) -> list[tuple[int | None, int | None]]:
    return [(problem.cell, problem.line) for problem in RULES[code].check(subject_of(*sources))]


def severities(code: str, source: str) -> list[str]:
    """The severity of each problem, the rule's own where it has none."""
    rule = RULES[code]
    return [problem.severity or rule.severity for problem in rule.check(subject_of(source))]


FOUND = {
    "EX401": {
        "server": ("x = 1\n!python serve.py &", 2),
        "nohup": ("!nohup tensorboard --logdir runs > log 2>&1 &", 1),
        "in a block": ("if True:\n    !sleep 9 &", 2),
        "after another": ("!cd a && serve &", 1),
        "value": ("out = !serve &", 1),
    },
    "EX403": {
        "input": ("name = input('name?')", 1),
        "getpass": ("from getpass import getpass\nkey = getpass()", 2),
        "getpass module": ("import getpass\nkey = getpass.getpass('key')", 2),
        "upload": (COLAB + "files.upload()", 3),
        "upload, renamed": ("from google.colab import files as f\nf.upload()", 2),
        "eval_js": (COLAB + "output.eval_js('1 + 1')", 3),
        "mount": (COLAB + "drive.mount('/content/drive')", 3),
        "mount, tried": (COLAB + "try:\n    drive.mount('/a')\nexcept ValueError:\n    raise", 4),
        "ui_events": ("from jupyter_ui_poll import ui_events\nwith ui_events() as p:\n    p(1)", 2),
        "notebook_login": ("from huggingface_hub import notebook_login\nnotebook_login()", 2),
        "wandb without a key": ("import wandb\nwandb.login()", 2),
        "function that is called": ("def ask():\n    return input()\nask()", 2),
        "through two functions": ("def a():\n    return input()\ndef b():\n    a()\nb()", 2),
        "method": ("class A:\n    def ask(self):\n        input()\nA().ask()", 3),
        "constructor": ("class A:\n    def __init__(self):\n        input()\na = A()", 3),
        "asked by default": ("ask = True\nif ask:\n    input()", 3),
        "unless a file is there": (COLAB + "if not os.path.exists('a'):\n    files.upload()", 4),
        "loop on a widget": (
            WIDGETS + "import time\nb = widgets.Text()\nwhile not b.value:\n    time.sleep(1)", 5
        ),
        "endless loop on a widget": (
            WIDGETS + "b = widgets.Text()\nwhile True:\n    if b.value:\n        break", 4
        ),
        "%debug": ("%debug", 1),
        "breakpoint": ("breakpoint()", 1),
    },
    "EX404": {
        "at once": (COLAB + "key = userdata.get('KEY')", 3),
        "in Colab": (COLAB + "if 'COLAB_RELEASE_TAG' in os.environ:\n    userdata.get('KEY')", 4),
        "environment after": (COLAB + "key = userdata.get('K') or os.environ.get('K')", 3),
        "as a default": (COLAB + "key = os.environ.get('K', userdata.get('K'))", 3),
        "called function": (COLAB + "def key():\n    return userdata.get('K')\nkey()", 4),
    },
    "EX405": {
        "connect": ("import sqlite3\nsqlite3.connect('/content/drive/MyDrive/a.db')", 2),
        "URL": ("create_engine('sqlite:////content/drive/MyDrive/a.db')", 1),
        "by a name": (
            "import sqlite3\nDB = '/content/drive/a'\nc = sqlite3.connect(f'{DRIVE}/a.db')\n"
            "DRIVE = '/content/drive/x'", 3,
        ),
        "joined": (
            "import os, sqlite3\nsqlite3.connect(os.path.join('/content/drive', 'a.db'))", 2
        ),
        "own mount point": (
            COLAB + "import sqlite3\ndrive.mount('/gd')\nsqlite3.connect('/gd/a.db')", 5
        ),
        "keyword": ("study = create(storage='sqlite:////content/drive/a.db')", 1),
    },
    "EX406": {
        "sys.exit": ("import sys\nsys.exit(0)", 2),
        "in a branch": ("import sys\nif not ok:\n    sys.exit('no data')", 3),
        "exit": ("exit()", 1),
        "bare quit": ("quit", 1),
        "os._exit": ("import os\nos._exit(0)", 2),
        "SystemExit": ("raise SystemExit", 1),
        "SystemExit with a call": ("raise SystemExit(main())", 1),
        "restart": ("import os\nos.kill(os.getpid(), 9)", 2),
        "shutdown": ("get_ipython().kernel.do_shutdown(True)", 1),
        "function that is called": ("import sys\ndef stop():\n    sys.exit()\nstop()", 3),
    },
    "EX407": {
        "titles of a Tab": (WIDGETS + "Tab(children=[], titles=['a'])", 3),
        "titles set": (WIDGETS + "t = Tab()\nt.titles = ('a',)", 4),
        "tooltip": (WIDGETS + "widgets.IntSlider(tooltip='n')", 3),
        "new class": (WIDGETS + "widgets.TagsInput(value=[])", 3),
        "Stack": ("from ipywidgets import Stack\nStack([])", 2),
        "border_left": (WIDGETS + "Layout(border_left='1px')", 3),
        "border_left, set": (WIDGETS + "b = widgets.Box()\nb.layout.border_left = '1px'", 4),
        "layout by a dict": (WIDGETS + "widgets.Box(layout={'border_top': '1px'})", 3),
        "overflow_x": (WIDGETS + "Layout(overflow_x='auto')", 3),
        "data of an upload": (WIDGETS + "u = widgets.FileUpload()\nu.data", 4),
        "value of an upload": (WIDGETS + "u = widgets.FileUpload()\nu.value[0]", 4),
        "text colour": (WIDGETS + "b = widgets.Button()\nb.style.text_color = 'red'", 4),
    },
    "EX408": {
        "thread": ("import threading\nt = threading.Thread(target=f)\nt.start()", 2),
        "thread at once": ("from threading import Thread\nThread(target=f).start()", 2),
        "timer": ("import threading\nt = threading.Timer(5, f)\nt.start()", 2),
        "threads": ("import threading\nts = [threading.Thread(target=f) for _ in r]\n"
                    "for t in ts:\n    t.start()", 2),
        "process dropped": ("import subprocess\nsubprocess.Popen(['serve'])", 2),
        "process forgotten": ("import subprocess\np = subprocess.Popen(['serve'])", 2),
        "fork": ("import os\nif os.fork() == 0:\n    work()", 2),
        "pool": ("from multiprocessing import Pool\ndef f(x): ...\nwith Pool() as p:\n"
                 "    p.map(f, [1])", 3),
        "worker": ("import multiprocessing as mp\ndef f(): ...\nmp.Process(target=f).start()", 3),
    },
    "EX409": {
        "pass": ("try:\n    train()\nexcept Exception:\n    pass", 3),
        "print": ("try:\n    train()\nexcept Exception as e:\n    print(e)", 3),
        "bare": ("try:\n    train()\nexcept:\n    pass", 3),
        "traceback": ("try:\n    train()\nexcept Exception:\n    traceback.print_exc()", 3),
        "None for a result": ("try:\n    r = train()\nexcept Exception as e:\n    print(e)\n"
                              "    r = None", 3),
        "broad among others": ("try:\n    train()\nexcept (ValueError, Exception):\n    pass", 3),
        "loop goes on": ("for t in s:\n    try:\n        train(t)\n    except Exception as e:\n"
                         "        print(e)\n        continue", 4),
        "suppress": ("import contextlib\nwith contextlib.suppress(Exception):\n    train()", 2),
        "own import does not excuse": (
            OURS + "try:\n    import tqdm\n    trainer.train()\nexcept Exception:\n    pass", 6
        ),
    },
}  # fmt: skip

LEFT_ALONE = {
    "EX401": {
        "and": "!cd a && ls",
        "redirect": "!ls > log 2>&1",
        "in the middle": "!serve & sleep 1",
        "quoted": "!echo 'a &'",
        "comment": "!ls # this & that",
        "Popen": "import subprocess\np = subprocess.Popen(['serve'])",
        "operator": "x = a &\\\n b",
    },
    "EX403": {
        "own input": "def input(): return 1\ninput()",
        "parameter called input": "def f(input):\n    return input()\nf(g)",
        "function that is not called": "def ask():\n    return input()",
        "callback": "def ask(b):\n    return input()\nbutton.on_click(ask)",
        "interactive": "if interactive():\n    input()",
        "terminal": "import sys\nif sys.stdin.isatty():\n    input()",
        "in Colab": COLAB + "if IN_COLAB:\n    files.upload()",
        "by the environment": COLAB + "if os.environ.get('ASK'):\n    input()",
        "environment first": "import os, getpass\nk = os.environ.get('K') or getpass.getpass()",
        "environment above": (
            "import os\ndef key():\n    k = os.environ.get('K')\n    if k:\n        return k\n"
            "    return input()\nkey()"
        ),
        "not the default": COLAB + "source = 'web'\nif source == 'upload':\n    files.upload()",
        "not the default, by its beginning": (
            COLAB + "source = 'http://a'\nif source.startswith('drive'):\n    drive.mount('/a')"
        ),
        "not among the defaults": "kind = 'a'\nif kind in ('b', 'c'):\n    input()",
        "switched off": "ask = False\nif ask:\n    input()",
        "eval_js in time": COLAB + "output.eval_js('1', timeout_sec=1)",
        "mount if not there": (
            COLAB + "if not os.path.isdir('/content/drive'):\n    drive.mount('/content/drive')"
        ),
        "mount in a guarded function": (
            COLAB + "def m():\n    drive.mount('/a')\nif 'COLAB_GPU' in os.environ:\n    m()"
        ),
        "import": COLAB,
        "wandb with a key": "import wandb\nwandb.login(key=key)",
        "wandb offline": "import os, wandb\nos.environ['WANDB_MODE'] = 'offline'\nwandb.login()",
        "wandb switched off": "import wandb\nuse_wandb = False\nif use_wandb:\n    wandb.login()",
        "loop on a thread": "import time\nwhile t.is_alive():\n    time.sleep(1)",
        "working loop": WIDGETS + "b = widgets.Text()\nwhile b.value:\n    step()",
        "tensorboard": "%load_ext tensorboard\n%tensorboard --logdir runs",
        "string": "print('input()')\n# input()",
    },
    "EX404": {
        "environment first": COLAB + "key = os.environ.get('K') or userdata.get('K')",
        "if not in the environment": (
            COLAB + "if 'K' not in os.environ:\n    os.environ['K'] = userdata.get('K')"
        ),
        "way out above": (
            COLAB + "def key(n):\n    if n in os.environ:\n        return os.environ[n]\n"
            "    return userdata.get(n)\nkey('K')"
        ),
        "another userdata": "userdata = {}\nuserdata.get('K')",
        "not called": COLAB + "def key():\n    return userdata.get('K')",
    },
    "EX405": {
        "local": "import sqlite3\nsqlite3.connect('/content/a.db')",
        "copied to Drive": "import shutil\nshutil.copy('a.db', '/content/drive/MyDrive/a.db')",
        "in memory": "import sqlite3\nsqlite3.connect(':memory:')",
        "another database": "create_engine('postgresql://host/content/drive')",
        "told": "print('never sqlite:////content/drive/a.db')",
        "relative": "create_engine('sqlite:///content/drive.db')",
    },
    "EX406": {
        "function that is not called": "import sys\ndef main():\n    sys.exit(1)",
        "caught": "try:\n    main()\n    raise SystemExit\nexcept SystemExit:\n    pass",
        "own exit": "def exit(): ...\nexit()",
        "another exit": "stack.exit()\nsys_exit()",
        "dead": "import sys\nif False:\n    sys.exit()",
        "error": "raise RuntimeError('no data')",
        "killed child": "import os\nos.kill(pid, 9)",
    },
    "EX407": {
        "set_title": WIDGETS + "t = Tab()\nt.set_title(0, 'a')",
        "tooltip of a button": WIDGETS + "widgets.Button(tooltip='a')",
        "description_tooltip": WIDGETS + "widgets.IntSlider(description_tooltip='a')",
        "another library": "import plot\nplot.Tab(titles=['a'])\nplot.Stack()",
        "border": WIDGETS + "Layout(border='1px solid')",
        "titles of something else": WIDGETS + "chart.titles = ['a']",
        "min of a slider": WIDGETS + "widgets.IntSlider(min=1, max=2, step=1)",
        "unknown word": WIDGETS + "widgets.HTML(description_allow_html=True)",
        "own class": WIDGETS + "class TagsInput: ...\nTagsInput()",
    },
    "EX408": {
        "joined": "import threading\nt = threading.Thread(target=f)\nt.start()\nt.join()",
        "daemon": "import threading\nthreading.Thread(target=f, daemon=True).start()",
        "daemon, set": "from threading import Thread\nt = Thread(target=f)\nt.daemon = True\n"
                       "t.start()",
        "never started": "import threading\nt = threading.Thread(target=f)",
        "threads joined": "import threading\nts = [threading.Thread(target=f) for _ in r]\n"
                          "for t in ts:\n    t.start()\nfor t in ts:\n    t.join()",
        "process ended": "import subprocess\np = subprocess.Popen(['a'])\np.terminate()",
        "process as a context": "import subprocess\nwith subprocess.Popen(['a']) as p:\n    pass",
        "process read": "import subprocess\np = subprocess.Popen(['a'])\nfor l in p.stdout:\n    l",
        "finished process": "import subprocess\nsubprocess.run(['a'], check=True)",
        "process waited for at once": "import subprocess\nsubprocess.Popen(['a']).wait()",
        "workers of a loader": "import torch\ntorch.utils.data.DataLoader(d, num_workers=2)",
        "pool of a library's function": "import math\nfrom multiprocessing import Pool\n"
                                        "with Pool() as p:\n    p.map(math.sqrt, [1])",
        "function that is not called": "import threading\ndef go():\n"
                                       "    threading.Thread(target=f).start()",
    },
    "EX409": {
        "raised again": "try:\n    train()\nexcept Exception as e:\n    print(e)\n    raise",
        "raised as another": "try:\n    f()\nexcept Exception as e:\n    raise RuntimeError from e",
        "narrow": "try:\n    train()\nexcept ValueError:\n    pass",
        "optional import": "try:\n    import wandb\nexcept Exception:\n    wandb = None",
        "import and use": (
            "try:\n    from google.colab import drive\n    drive.mount('/a')\nexcept Exception:\n"
            "    print('not in Colab')"
        ),
        "another value": "try:\n    r = train()\nexcept Exception:\n    r = load()",
        "recorded": "try:\n    train()\nexcept Exception as e:\n    failed.append(e)",
        "tidying": "import os\ntry:\n    os.remove('a')\nexcept Exception:\n    pass",
        "no call": "try:\n    x = y\nexcept Exception:\n    pass",
        "suppressed kind": (
            "import contextlib\nwith contextlib.suppress(FileNotFoundError):\n    train()"
        ),
        "ImportError that raises": "try:\n    import a\nexcept ImportError as e:\n    raise e",
    },
}  # fmt: skip


def table(cases: dict[str, dict[str, object]]) -> list:
    return [
        pytest.param(code, case, id=f"{code}-{name}")
        for code, rows in cases.items()
        for name, case in rows.items()
    ]


@pytest.mark.parametrize("code, case", table(FOUND))
def test_what_stops_or_spoils_a_run_is_found(code, case):
    source, line = case

    assert places(code, source) == [(0, line)]


@pytest.mark.parametrize("code, source", table(LEFT_ALONE))
def test_what_only_looks_like_it_is_left_alone(code, source):
    assert places(code, source) == []


@pytest.mark.parametrize("call, severity", [
    pytest.param("trainer.train()", "error", id="own package"),
    pytest.param("plt.savefig('a')", "warning", id="another"),
])  # fmt: skip
def test_hidden_call_of_the_own_package_is_worse(call, severity):
    source = OURS + f"try:\n    {call}\nexcept Exception as e:\n    print(e)"

    assert severities("EX409", source) == [severity]


def test_packages_beside_the_notebook_are_the_own_ones(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "__init__.py").touch()
    source = "import parts\ntry:\n    parts.go()\nexcept Exception:\n    pass"

    (problem,) = RULES["EX409"].check(subject_of(source, root=tmp_path))
    assert problem.severity is None


def test_names_are_followed_from_cell_to_cell():
    cells = "from google.colab import files as chosen", "pick = chosen.upload()"

    assert places("EX403", *cells) == [(1, 1)]


@pytest.mark.parametrize("source", [
    pytest.param("+".join(["x"] * 5000), id="deep expression"),
    pytest.param("\n".join("    " * i + "if x:" for i in range(90)) + " pass", id="deep blocks"),
    pytest.param("x = (", id="broken"),
    pytest.param("", id="empty"),
    pytest.param("%%bash\nserve &", id="another language"),
    pytest.param("f(*a, **b)\n(lambda: 0)()\n[].append\na[0]()()\nawait x", id="odd calls"),
    pytest.param("!\n%\n!!\n%%\n?", id="bare signs"),
    pytest.param("!echo 'open", id="open quote"),
])  # fmt: skip
def test_no_rule_raises(source):
    for rule in RULES.values():
        list(rule.check(subject_of(source)))
