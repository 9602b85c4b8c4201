"""Order of a run: late bindings, guards, cells that cannot be run twice, names out of nowhere."""

import ast
import json
import symtable
from pathlib import Path

import pytest

from tools.analysis.scopes import global_reads
from tools.notebook import Notebook
from tools.rules import RULES, Subject, order, rerun  # noqa: F401
from tools.settings import Settings


def subject_of(*sources: str) -> Subject:
    cells = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {}, "source": text, "outputs": []}
        for i, text in enumerate(sources)
    ]
    content = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    notebook = Notebook(Path("a.ipynb"), json.dumps(content).encode(), content)
    return Subject(notebook, Settings(root=Path(".")), Path("."))


def places(code: str, *sources: str) -> list[tuple[int | None, int | None]]:
    return [(problem.cell, problem.line) for problem in RULES[code].check(subject_of(*sources))]


LATE = {
    "function": (["def f():\n    return x", "f()", "x = 1"], (1, 1)),
    "the same cell": (["def f():\n    return x\nf()\nx = 1"], (0, 3)),
    "lambda": (["f = lambda a: a * x", "y = f(2)", "x = 1"], (1, 1)),
    "transitive": (["def g():\n    return x\ndef f():\n    return g()", "f()", "x = 1"], (1, 1)),
    "a later function": (["def f():\n    return g()", "f()", "def g(): ..."], (1, 1)),
    "import": (["def f():\n    return np.pi", "f()", "import numpy as np"], (1, 1)),
    "constructor": (
        ["class Net:\n    def __init__(self):\n        self.w = width", "n = Net()", "width = 2"],
        (1, 1),
    ),
    "method": (
        ["class Net:\n    def run(self):\n        return x", "n = Net()", "n.run()", "x = 2"],
        (2, 1),
    ),
    "method through self": (
        [
            "class A:\n    def a(self):\n        self.b()\n    def b(self):\n        x",
            "A().a",
            "a = A()\na.a()",
            "x = 2",
        ],
        (2, 2),
    ),
    "inherited method": (
        ["class B:\n    def run(self):\n        x", "class A(B): ...\na = A()\na.run()", "x = 2"],
        (1, 3),
    ),
    "forward": (
        [
            "class Net(nn.Module):\n    def forward(self, a):\n        return a * x",
            "net = Net()\nnet(3)",
            "x = 2",
        ],
        (1, 2),
    ),
    "list": (["def f(a):\n    return a + x", "[f(a) for a in [1]]", "x = 1"], (1, 1)),
    "body of a loop": (
        ["def f():\n    for i in range(3):\n        print(x)", "f()", "x = 1"],
        (1, 1),
    ),
    "body of a with": (
        ["def f():\n    with open('a') as g:\n        print(x)", "f()", "x = 1"],
        (1, 1),
    ),
    "nested function": (
        ["def f():\n    def g():\n        return x\n    return g()", "f()", "x = 1"],
        (1, 1),
    ),
    "generator exhausted": (["def f():\n    yield x", "for a in f():\n    pass", "x = 1"], (1, 1)),
    "awaited": (["async def f():\n    return x", "await f()", "x = 1"], (1, 1)),
    "transparent decorator": (
        ["import torch\n@torch.no_grad()\ndef f():\n    x", "f()", "x = 1"],
        (1, 1),
    ),
    "key of sorted": (["sorted([1], key=lambda a: x[a])", "x = {1: 1}"], (0, 1)),
    "comprehension in a function": (
        ["def f():\n    return [x for y in [1]]", "f()", "x = 1"],
        (1, 1),
    ),
    "a test": (["def f():\n    if not x:\n        pass", "f()", "x = 1"], (1, 1)),
    "walrus": (["def f():\n    return x", "f(1 + (y := 2))", "x = 1"], (1, 1)),
}

EARLY = {
    "bound before the call": ["def f():\n    return x", "x = 1", "f()"],
    "never called": ["def f():\n    return x", "x = 1"],
    "bound nowhere is another rule's": ["def f():\n    return x", "f()"],
    "parameter": ["def f(x):\n    return x", "f(1)", "x = 1"],
    "local": ["def f():\n    x = 2\n    return x", "f()", "x = 1"],
    "guarded by globals": ["def f():\n    if 'x' in globals():\n        return x", "f()", "x = 1"],
    "NameError handled": [
        "def f():\n    try:\n        return x\n    except NameError:\n        return 0",
        "f()",
        "x = 1",
    ],
    "NameError suppressed": [
        "import contextlib\ndef f():\n    with contextlib.suppress(NameError):\n        x",
        "f()",
        "x = 1",
    ],
    "a branch": ["def f(a):\n    if a:\n        return x", "f(0)", "x = 1"],
    "short circuit": ["def f(a):\n    return a and x", "f(0)", "x = 1"],
    "after a way out": ["def f(a):\n    if a:\n        return 1\n    return x", "f(1)", "x = 1"],
    "callback": ["def f():\n    return x", "button.on_click(f)", "x = 1"],
    "lazy generator": ["def f():\n    yield x", "g = f()", "x = 1", "list(g)"],
    "coroutine": ["async def f():\n    return x", "t = f()", "x = 1", "await t"],
    "unknown decorator": ["@app.route\ndef f():\n    return x", "f()", "x = 1"],
    "star import": ["from a import *\ndef f():\n    return x", "f()", "x = 1"],
    "%run": ["%run other.py", "def f():\n    return x", "f()", "x = 1"],
    "bound by a magic": ["def f():\n    return x", "%time x = 1", "f()", "x = 2"],
    "bound by a broken cell": ["def f():\n    return x", "x = = 1", "f()", "x = 2"],
    "bound again later": ["x = 1", "def f():\n    return x", "f()", "x = 2"],
    "maybe bound": ["if a:\n    x = 1", "def f():\n    return x", "f()", "x = 2"],
    "None first": ["x = None", "def f():\n    return x['a']", "f()", "x = {}"],
    "bound by a global statement": [
        "def g():\n    global x\n    x = 1\ndef f():\n    return x",
        "g()\nf()",
        "x = 2",
    ],
    "another function": [
        "def f():\n    return 1",
        "def f2():\n    return x",
        "f()",
        "x = 1",
        "f2()",
    ],
    "comprehension's own": ["def f():\n    return [x for x in [1]]", "f()", "x = 1"],
    "returned lambda": ["def f():\n    return lambda: x", "f()", "x = 1"],
    "two definitions": [
        "if ready:\n    def f(): return x\nelse:\n    def f(): return 1",
        "f()",
        "x = 1",
    ],
    "kernel's names": ["def f():\n    return display(_, get_ipython())", "f()"],
    "annotation": ["def f() -> Later:\n    a: Later = 1", "f()", "class Later: ..."],
    "dead call": ["def f():\n    return x", "if False:\n    f()", "x = 1"],
    "exec": ["exec('x = 1')", "def f():\n    return x", "f()", "x = 1"],
    "recursion": ["def f():\n    f()\n    return 1", "f()"],
}


@pytest.mark.parametrize("sources, place", LATE.values(), ids=LATE)
def test_call_before_its_names_are_bound_is_found(sources, place):
    assert places("PY304", *sources) == [place]


@pytest.mark.parametrize("sources", EARLY.values(), ids=EARLY)
def test_what_only_looks_like_a_late_binding_is_left_alone(sources):
    assert places("PY304", *sources) == []


def test_late_binding_is_reported_once_and_names_the_cell():
    sources = "def f():\n    return x", "f()", "f()", "x = 1"

    (problem,) = RULES["PY304"].check(subject_of(*sources))
    assert "`x`" in problem.message
    assert "cell c3" in problem.message


@pytest.mark.parametrize("source, place, severity", [
    pytest.param("if 'model' not in globals():\n    raise NameError('model')", (0, 1), None,
                 id="raise"),
    pytest.param("assert 'model' in globals(), 'run cell 2 first'", (0, 1), None, id="assert"),
    pytest.param("if not ('model' in locals()):\n    raise RuntimeError", (0, 1), None, id="not"),
    pytest.param("if 'model' in dir():\n    pass\nelse:\n    raise RuntimeError", (0, 1), None,
                 id="else"),
    pytest.param("import sys\nif 'a' not in globals() or 'b' not in vars():\n    sys.exit(1)",
                 (0, 2), None, id="nowhere"),
    pytest.param("for n in ['model', 'a']:\n    if n not in globals():\n        raise NameError(n)",
                 (0, 1), None, id="loop"),
    pytest.param("if 'modle' in globals():\n    print(modle)", (0, 1), "info", id="never runs"),
    pytest.param("x = modle if 'modle' in globals() else 1", (0, 1), "info", id="never taken"),
])  # fmt: skip
def test_guard_with_one_outcome_is_found(source, place, severity):
    (problem,) = RULES["PY307"].check(subject_of(source, "model = 1"))
    assert ((problem.cell, problem.line), problem.severity) == (place, severity)


@pytest.mark.parametrize("sources", [
    pytest.param(["model = 1", "if 'model' not in globals():\n    raise NameError"], id="passed"),
    pytest.param(["if x:\n    model = 1", "assert 'model' in globals()"], id="maybe bound"),
    pytest.param(["if 'model' in globals():\n    print(model)", "model = 1"], id="bound later"),
    pytest.param(["if 'model' not in globals():\n    model = 1"], id="default"),
    pytest.param(["if '__file__' in globals():\n    print(1)"], id="script or notebook"),
    pytest.param(["from a import *", "assert 'model' in globals()"], id="star import"),
    pytest.param(["def f():\n    assert 'model' in globals()", "model = 1", "f()"], id="function"),
    pytest.param(["%run setup.py", "assert 'model' in globals()"], id="%run"),
    pytest.param(["def f():\n    global model\n    model = 1\nf()", "assert 'model' in globals()"],
                 id="global statement"),
    pytest.param(["if 'google.colab' in sys.modules:\n    print(1)"], id="not a namespace"),
    pytest.param(["if 'a' in globals() and 'b' not in globals():\n    raise", "a = 1"], id="open"),
    pytest.param(["if hasattr(config, 'x'):\n    print(config.x)"], id="hasattr"),
])  # fmt: skip
def test_guard_that_may_go_either_way_is_left_alone(sources):
    found = places("PY307", *sources)

    assert found == []


def test_names_read_are_those_the_compiler_finds():
    """`symtable` is the judge, on modules of the standard library."""
    for module in ("dataclasses", "enum", "typing", "contextlib", "asyncio.tasks", "inspect"):
        path = Path(ast.__file__).parent / (module.replace(".", "/") + ".py")
        text = path.read_text(encoding="utf-8")
        tables = {t.get_lineno(): t for t in symtable.symtable(text, module, "exec").get_children()}
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                table = tables[node.lineno]

                assert set(global_reads(node)) ^ globals_in(table) <= annotations(node)


def globals_in(table: symtable.SymbolTable) -> set[str]:
    own = {s.get_name() for s in table.get_symbols() if s.is_global() and s.is_referenced()}
    return own.union(*(globals_in(child) for child in table.get_children()))


def annotations(node: ast.AST) -> set[str]:
    """Names in annotations, which we do not count: whether they are read differs by version."""
    parts = [
        getattr(inner, part, None) for inner in ast.walk(node) for part in ("annotation", "returns")
    ]
    return {
        name.id for part in parts if part for name in ast.walk(part) if isinstance(name, ast.Name)
    }


AGAIN = {
    "augmented": (["step = 0", "step += 1"], (1, 1)),
    "augmented in a loop": (["step = 0", "for i in range(3):\n    step += i"], (1, 2)),
    "augmented attribute": (["config = f()", "config.epochs += 1"], (1, 1)),
    "augmented item": (["counts = {}", "counts['a'] += 1"], (1, 1)),
    "x = x.pop()": (["x = [1]", "x = x.pop()"], (1, 1)),
    "drop": (["df = f()", "df = df.drop(columns='a')"], (1, 1)),
    "chain": (["df = f()", "df = df.dropna().set_index('a')"], (1, 1)),
    "to numpy": (["x = f()", "x = x.detach().cpu().numpy()"], (1, 1)),
    "split": (["s = 'a,b'", "s = s.split(',')"], (1, 1)),
    "scaled": (["x = f()", "x = x / 255"], (1, 1)),
    "standardised": (["x, mean, std = f()", "x = (x - mean) / std"], (1, 1)),
    "sliced": (["x = f()", "x = x[1:]"], (1, 1)),
    "indexed": (["ds = f()", "ds = ds['train']"], (1, 1)),
    "DataParallel": (
        ["from torch import nn\nmodel = f()", "model = nn.DataParallel(model)"],
        (1, 1),
    ),
    "split set": (["train = f()", "train, val = random_split(train, [1, 2])"], (1, 1)),
    "concat": (["a = b = f()", "a = pd.concat([a, b])"], (1, 1)),
    "del": (["model = f()", "import gc\ndel model\ngc.collect()"], (1, 2)),
    "del of an entry": (["d = {'a': 1}", "del d['a']"], (1, 1)),
    "del of a variable": (["import os", "del os.environ['A']"], (1, 1)),
    "pop": (["d = {'a': 1}", "value = d.pop('a')"], (1, 1)),
    "append": (["results = []", "results.append(1)"], (1, 1)),
    "append in a loop": (["results = []", "for i in range(3):\n    results.append(i)"], (1, 2)),
    "chdir": (["import os\nos.chdir('repo')"], (0, 2)),
    "%cd": (["!git clone -b v1 u\n%cd repo"], (0, 2)),
    "%cd upwards": (["%cd .."], (0, 1)),
    "rename": (["import os\nos.rename('a', 'b')"], (0, 2)),
    "move": (["import shutil\nshutil.move('a', 'b')"], (0, 2)),
    "unlink": (["from pathlib import Path\nPath('a').unlink()"], (0, 2)),
    "makedirs": (["import os\nos.makedirs('runs')"], (0, 2)),
    "mkdir": (["from pathlib import Path\np = Path('a') / 'b'\np.mkdir(parents=True)"], (0, 3)),
    "mkdir under an earlier path": (["p = f()", "(p / 'logs').mkdir()"], (1, 1)),
}

ONCE_MORE = {
    "set in the cell": ["step = 0", "step = 0\nstep += 1"],
    "set in the same cell": ["step = 0\nstep += 1"],
    "idempotent operator": ["flags = 0", "flags |= 2"],
    "attribute of a module": ["import matplotlib.pyplot as plt", "plt.x += 1"],
    "drop, no errors": ["df = f()", "df = df.drop(columns='a', errors='ignore')"],
    "another name": ["df = f()", "small = df.drop(columns='a')"],
    "idempotent chain": ["df = f()", "df = df.dropna().reset_index(drop=True)"],
    "to": ["model = f()", "model = model.to('cpu')"],
    "compile": ["import torch\nmodel = f()", "model = torch.compile(model)"],
    "standardised by itself": ["x = f()", "x = (x - x.mean()) / x.std()"],
    "by a value of this cell": ["x = f()", "m = x.mean()\nx = x - m"],
    "head": ["x = f()", "x = x[:100]"],
    "filter": ["df = f()", "df = df[df.a > 1]"],
    "under a condition": ["s = 'a'", "if isinstance(s, str):\n    s = s.split()"],
    "del, guarded": ["model = f()", "if 'model' in globals():\n    del model"],
    "del, tried": ["model = f()", "try:\n    del model\nexcept NameError:\n    pass"],
    "del of its own": ["x = 1\ndel x"],
    "pop with a default": ["d = {}", "d.pop('a', None)"],
    "update": ["d = {}", "d.update(a=1)"],
    "list of its own": ["results = []", "results = []\nresults.append(1)"],
    "append to no list": ["model = f()", "model.append(1)"],
    "append once": ["results = []", "if 1 not in results:\n    results.append(1)"],
    "in a function": ["results = []", "def f():\n    results.append(1)"],
    "absolute chdir": ["import os\nos.chdir('/content/repo')"],
    "absolute, then relative": ["%cd /content\n%cd repo"],
    "mkdir, tested": ["import os\nif not os.path.isdir('a'):\n    os.mkdir('a')"],
    "exist_ok": ["import os\nos.makedirs('a', exist_ok=True)"],
    "a new name each run": ["import os, time\nd = f'r{time.time()}'\nos.mkdir(d)"],
    "removed before": ["import os, shutil\nshutil.rmtree('a', True)\nos.mkdir('a')"],
    "made before": ["import os\ntorch.save(m, 'a')\nos.rename('a', 'b')"],
    "moved from who knows where": ["import os\nos.replace(tmp(), 'b')"],
    "missing_ok": ["from pathlib import Path\nPath('a').unlink(missing_ok=True)"],
    "rename of a column": ["df = f()", "df = df.rename(columns={'a': 'b'})"],
}


@pytest.mark.parametrize("sources, place", AGAIN.values(), ids=AGAIN)
def test_cell_that_cannot_run_twice_is_found(sources, place):
    assert places("PY305", *sources) == [place]


@pytest.mark.parametrize("sources", ONCE_MORE.values(), ids=ONCE_MORE)
def test_cell_that_can_run_twice_is_left_alone(sources):
    assert places("PY305", *sources) == []
