"""Each way in which a notebook can go wrong gets its verdict, at its cell.

Print the table of what was found:  python -m pytest -q -s -n 0 tests/test_tools_verdicts.py
"""

import pytest

from tests.demo_notebooks import make_project, write_demo
from tools.run import run_notebook
from tools.running import guard

KILL = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
HOG = "x = b'x' * (400 * 2**20)\nimport time; time.sleep(9)"
HOG_CHILD = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {HOG!r}])"
SHORT = """\
import resource
resource.setrlimit(resource.RLIMIT_AS, (2**33, resource.RLIM_INFINITY))
bytearray(2**40)"""
CUDA = "raise RuntimeError('CUDA out of memory. Tried to allocate 2.00 GiB')"
THREAD = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()"
POOL = """\
import time
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor()
pool.submit(time.sleep, 60)"""
FORK = """\
import multiprocessing, time
multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,)).start()"""
SHOWN = "try:\n    1 / 0\nexcept ZeroDivisionError:\n    get_ipython().showtraceback()"
STUBBORN = """\
import time
while True:
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        pass"""
TIMEOUT, MEMORY = {"timeout_s": 1.0}, {"memory_limit_mib": 300}
TRAPS = {
    "os._exit(9)": ("import os; os._exit(9)", "dead kernel", "exit code 9", {}),
    "os._exit(0)": ("import os; os._exit(0)", "dead kernel", "exit code 0", {}),
    "kill -9": (KILL, "dead kernel", "SIGKILL", {}),
    "os.abort": ("import os; os.abort()", "dead kernel", "signal SIGABRT", {}),
    "segfault": ("import ctypes; ctypes.string_at(0)", "dead kernel", "signal SIGSEGV", {}),
    "killed for memory": (HOG, "out of memory", "MiB of 300 MiB allowed", MEMORY),
    "child killed for memory": (HOG_CHILD, "out of memory", "of 300 MiB allowed", MEMORY),
    "MemoryError": (SHORT, "out of memory", "raised MemoryError", {}),
    "CUDA out of memory": (CUDA, "out of memory", "CUDA out of memory", {}),
    "hangs": ("while True: pass", "timeout", "1 s, the limit of each cell", TIMEOUT),
    "hangs and ignores interrupts": (STUBBORN, "timeout", "nor when it was interr", TIMEOUT),
    "hangs beyond the total": (
        "while True: pass",
        "timeout",
        "the limit of the whole notebook",
        {"total_timeout_s": 3},
    ),
    "sys.exit(0)": ("import sys; sys.exit(0)", "exit", "sys.exit(0)", {}),
    "quit()": ("quit()", "exit", "quit()", {}),
    "!exit 3": ("!exit 3", "shell", "exit code 3", {}),
    "not the last ! line": ("!false\n!true", "shell", "exit code 1", {}),
    "indented ! line": ("if True:\n    !false", "shell", "exit code 1", {}),
    "x = !exit 3": ("x = !exit 3", "shell", "exit code 3", {}),
    "!!exit 3": ("!!exit 3", "shell", "exit code 3", {}),
    "%sx exit 3": ("x = %sx exit 3", "shell", "exit code 3", {}),
    "x = !kill": ("x = !kill -9 $$", "shell", "signal SIGKILL", {}),
    "%%bash exit 4": ("%%bash\nexit 4", "error", "CalledProcessError", {}),
    "1 / 0": ("1 / 0", "error", "ZeroDivisionError: division by zero", {}),
    "shown error": (SHOWN, "error", "ZeroDivisionError", {}),
    "syntax": ("def broken(:", "error", "SyntaxError", {}),
    "input()": ("input('?')", "error", "StdinNotImplementedError", {}),
    "thread left": (THREAD, "left running", "left thread ", {}),
    "busy pool left": (POOL, "left running", "left thread ThreadPool", {}),
    "process left": (FORK, "left running", "left process ForkProcess-1", {}),
    "Popen left": (
        "import subprocess\nsubprocess.Popen(['sleep', '60'])",
        "left running",
        "left process sleep 60",
        {},
    ),
    "orphan left": ("import os; os.system('sleep 60 &')", "left running", "process sleep 60", {}),
}
SOUND = {
    "magics": "%time x = 1\n%config InlineBackend.figure_format = 'svg'",
    "await": "import asyncio\nawait asyncio.sleep(0)\nawait asyncio.to_thread(print, 'there')",
    "shell": "name = command = 'ok'\n!echo {name} $command",
    "assigned shell": "lines = !echo one && echo two\nassert lines == ['one', 'two'], lines",
    "shell not reached": "if False:\n    !false",
    "widgets": "import ipywidgets\nslider = ipywidgets.IntSlider()\nslider",
    "output of a widget": "out = ipywidgets.Output()\nwith out:\n    print('inside')\nout",
    "tqdm": "from tqdm.auto import tqdm\nfor i in tqdm(range(3)): pass",
    "finished thread": "import threading\nt = threading.Thread(target=print)\nt.start()\nt.join()",
    "idle pool": "from concurrent.futures import ThreadPoolExecutor as P\np = P()\np.submit(print)",
    "idle processes": (
        "from concurrent.futures import ProcessPoolExecutor as Q\n"
        "q = Q(1)\nq.submit(abs, 1).result()"
    ),
    "finished child": "import subprocess\nsubprocess.Popen(['true']).wait()",
    "almost finished child": "brief = subprocess.Popen(['sleep', '0.3'])",
    "empty": "  \n",
    "display": "from IPython.display import HTML\nHTML('<b>bold</b>')",
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project folder; the working folder of the test. Whoever ignores interrupts dies soon."""
    monkeypatch.setattr(guard, "GRACE_S", 0.5)
    return make_project(tmp_path, monkeypatch)


@pytest.mark.parametrize("name", TRAPS)
def test_trap_gets_its_verdict_at_its_cell(project, name):
    source, cause, said, options = TRAPS[name]

    report = run_notebook(write_demo(project, "x = 1", source, "y = 1"), **options)

    verdict = report.verdict
    print(f"\n{name:<29} {verdict.status:<7} {verdict.cause:<14} {verdict.cell.id}  ", end="")
    print(f"{report.elapsed_s:4.1f} s  {verdict.reason}", end="")
    assert (verdict.status, verdict.cause, verdict.cell.id) == ("failed", cause, "c2")
    assert verdict.cell.number == 3
    assert said in verdict.reason
    is_last = cause == "left running"
    assert [cell.reply is not None for cell in report.cells][::2] == [True, is_last]
    assert report.exit_code == 1
    assert report.notebook_path.parent.parent.as_posix() == "out/notebooks"


def test_what_only_looks_wrong_is_completed(project):
    report = run_notebook(write_demo(project, *SOUND.values()))

    print(f"\n{'all that is sound':<29} {report.verdict}", end="")
    assert str(report.verdict) == "completed"
    assert len(report.cells) == len(SOUND) - 1
    assert all(cell.seconds >= 0 for cell in report.cells)


def test_a_tag_allows_a_cell_to_leave_something_running(project):
    start = "import subprocess\nsubprocess.Popen(['sleep', '60'])"

    report = run_notebook(write_demo(project, start, "x = 1", tags=[["leaves-running"]]))

    assert str(report.verdict) == "completed"
