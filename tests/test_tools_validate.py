"""validate: what is found, at which cell and line, merged, accepted, known, told and mended."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tools.checking.baseline import Baseline, read_baseline
from tools.checking.finding import FIELDS, Finding
from tools.checking.fix import mend
from tools.checking.house import chosen, summaries, validate_notebook
from tools.commands.validate import validate as command
from tools.errors import ToolsError
from tools.notebook import read
from tools.settings import Settings
from tools.validate import Report, validate

ROOT = Path(__file__).parents[1]
PACKAGE = {
    "engine/__init__.py": """
        _HOMES = {"Trainer": "engine.trainer", "Result": "engine.result", "fit": ".calls"}
        def __getattr__(name):
            if name not in _HOMES:
                raise AttributeError(name)
    """,
    "engine/trainer.py": """
        from engine.result import Result
        class Trainer:
            def __init__(self, model, config=None):
                self.model = model
            def train(self, data: list, *, epochs: int = 1) -> Result: ...
    """,
    "engine/result.py": """
        import dataclasses
        from typing import Any, TypedDict
        import pandas as pd
        @dataclasses.dataclass
        class Result:
            final_loss: float
            best_epoch: int | None
            metrics_summary: pd.DataFrame
            def __getitem__(self, name: str) -> Any:
                return getattr(self, name)
        class Spec(TypedDict):
            name: str
            size: int
    """,
    "engine/calls.py": """
        from engine.result import Spec
        from missing_base import Base
        def fit(spec: Spec, *, epochs=1): ...
        def scores() -> Spec: ...
        def plan(config, size=1):
            total = config["steps"] * config["batch"]
            if size > 1:
                total += config["extra"]
            return total
        class Outside(Base): ...
    """,
    "engine/open.py": """
        def __getattr__(name):
            return len(name)
    """,
}
USES = (
    "from engine import Trainer, fit\nfrom engine.calls import scores\nr = Trainer(1).train([])\n"
)


def write_tree(folder: Path, **files: str) -> Path:
    """Write the package and more files into a folder; their common indentation goes."""
    for name, text in {**PACKAGE, **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = text.strip("\n").splitlines()
        margin = min((len(x) - len(x.lstrip()) for x in lines if x.strip()), default=0)
        path.write_text("\n".join(line[margin:] for line in lines) + "\n")
    return folder


def write_notebook(path: Path, *sources: str | dict) -> Path:
    """Write a notebook; a cell is the source of a code cell, or a dict of its fields."""
    cells = []
    for i, source in enumerate(sources):
        fields = {"source": source} if isinstance(source, str) else dict(source)
        text = fields.pop("source")
        cell = {"cell_type": "code", "id": f"cell-{i}", "metadata": {}, **fields}
        if cell["cell_type"] == "code":
            cell |= {"execution_count": None, "outputs": []}
        cells.append({**cell, "source": text.splitlines(keepends=True)})
    metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    content = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def check(folder: Path, *sources: str | dict, select=("PY30", "SU"), **options) -> Report:
    """Validate a notebook of these cells in a tree with the package."""
    write_tree(folder)
    path = write_notebook(folder / "nb.ipynb", *sources)
    ignore = ("PY304", "PY305", "PY307")
    settings = Settings(root=folder, **options)
    return validate([path], settings, root=folder, select=select, ignore=ignore)


def told(report: Report) -> list[tuple]:
    """Code, cell and line of each error and warning in the notebook."""
    return [
        (f.code, f.cell_index, f.line)
        for f in report.findings
        if f.severity != "info" and f.cell_index is not None
    ]


SEEN = [
    pytest.param(["x = (1,\n"], [("PY300", 0, 1)], id="cell that does not parse"),
    pytest.param(["x = 1\nreturn x\n"], [("PY300", 0, 2)], id="return outside a function"),
    pytest.param(["a = 1\nprint(nam)\n"], [("PY301", 0, 2)], id="undefined name"),
    pytest.param(["print(later)", "later = 1"], [("PY301", 0, 1)], id="use before definition"),
    pytest.param(["x = 1\ndel x", "x"], [("PY301", 1, 1)], id="use after del"),
    pytest.param(["import math", "config\n"], [("PY306", 1, 1)], id="name that looks like a magic"),
    pytest.param(["pip install x"], [("PY306", 0, 1)], id="magic without its sign"),
    pytest.param(["from math import *\nsqrt(4)"], [("PY306", 0, 1)], id="star import"),
    pytest.param(["def f(): ...", "def f(): ..."], [("PY301", 1, 1)], id="redefinition"),
    pytest.param(["if False:\n    x = 1\nx"], [("PY301", 0, 3)], id="bound in dead code only"),
    pytest.param(["'%d %d' % (1,)"], [("PY301", 0, 1)], id="format and values"),
    pytest.param(["print(__file__)"], [("PY301", 0, 1)], id="__file__"),
    pytest.param(["await nam()"], [("PY301", 0, 1)], id="undefined name beside await"),
    pytest.param(["import engine.gone"], [("PY302", 0, 1)], id="missing module"),
    pytest.param(["from engine import gone"], [("PY302", 0, 1)], id="missing name, lazy package"),
    pytest.param(["import engine\nengine.gone"], [("PY302", 0, 2)], id="missing in a package"),
    pytest.param(["from engine.trainer import x"], [("PY302", 0, 1)], id="missing name"),
    pytest.param(["import torch.gone"], [("PY302", 0, 1)], id="missing module, installed package"),
    pytest.param(["import engin"], [("PY302", 0, 1)], id="misspelled package"),
    pytest.param([USES, "Trainer(1, conf=2)"], [("PY302", 1, 1)], id="unknown keyword"),
    pytest.param([USES, "Trainer()"], [("PY302", 1, 1)], id="missing argument"),
    pytest.param([USES, "Trainer(1, 2, 3)"], [("PY302", 1, 1)], id="too many arguments"),
    pytest.param(
        [USES, "Trainer(1).train(\n    [],\n    epoch=2,\n)"], [("PY302", 1, 3)], id="method"
    ),
    pytest.param([USES, "Trainer(1).adapter"], [("PY302", 1, 1)], id="missing attribute"),
    pytest.param([USES, "r.loss_history"], [("PY302", 1, 1)], id="missing field"),
    pytest.param([USES, "\nr['loss_history']"], [("PY302", 1, 2)], id="missing key of a record"),
    pytest.param([USES, "scores()['gone']"], [("PY302", 1, 1)], id="missing key of a TypedDict"),
    pytest.param([USES, "fit({'name': 'a'})"], [("PY302", 1, 1)], id="key missing in an argument"),
    pytest.param(
        ["from engine.calls import plan\nc = {'steps': 1, 'extra': 2}", "c['steps']\nplan(c)"],
        [("PY302", 1, 2)],
        id="key missing in a dict that is passed by name",
    ),
    pytest.param(
        ["def f(a, b):\n    return b['x']\n", "f(1, b={'y': 2})"],
        [("PY302", 1, 1)],
        id="key missing in a dict for a function of the notebook",
    ),
    pytest.param(["{[1, 2]: 3}"], [("PY302", 0, 1)], id="unhashable key"),
    pytest.param(["d = {'a': 1}\nd[['a']]"], [("PY302", 0, 2)], id="unhashable subscript"),
    pytest.param([USES, "if r.metrics_summary: ..."], [("PY302", 1, 1)], id="truth of a field"),
    pytest.param(
        ["import pandas as pd\ndf = pd.read_csv('x')\nwide = df.head()", "while not wide: ..."],
        [("PY302", 1, 1)],
        id="truth of a table",
    ),
    pytest.param(
        ["import pandas as pd\ndf = pd.DataFrame()\nif df['a'] > 1: ..."],
        [("PY302", 0, 3)],
        id="truth of a column",
    ),
]


@pytest.mark.parametrize("sources, wanted", SEEN)
def test_a_defect_is_told_once_at_its_cell_and_line(tmp_path, sources, wanted):
    assert told(check(tmp_path, *sources)) == wanted


CLEAN = [
    pytest.param(["if 'x' in globals():\n    print(x)"], id="guarded by globals"),
    pytest.param(["y = x if 'x' in globals() else 1"], id="guarded in an expression"),
    pytest.param(["y = 'x' in dir() and x"], id="guarded by dir"),
    pytest.param(["if 'x' not in globals():\n    x = 1\nprint(x)"], id="bound if not there"),
    pytest.param(["try:\n    x\nexcept NameError:\n    x = 1"], id="guarded by NameError"),
    pytest.param(["try:\n    __file__\nexcept NameError: ..."], id="guarded __file__"),
    pytest.param(["try:\n    import wandb\nexcept ImportError:\n    wandb = None"], id="optional"),
    pytest.param(["try:\n    import wandb\nexcept ImportError:\n    raise"], id="re-raised"),
    pytest.param(["from google.colab import drive\ndrive.mount('x')"], id="google.colab"),
    pytest.param(["import sklearn_not_here\nsklearn_not_here.x()"], id="not installed"),
    pytest.param(["!pip install x\n%matplotlib inline\nfiles = !ls\nprint(files)"], id="magics"),
    pytest.param(["%%capture out\n1", "out.show()"], id="name that a magic binds"),
    pytest.param(["%%bash\necho $x (", "1"], id="cell that is not Python"),
    pytest.param(["%run other.ipynb", "print(from_other)"], id="names of another notebook"),
    pytest.param(["globals()['x'] = 1", "print(x)"], id="bound through globals"),
    pytest.param(["def f():\n    return late", "late = 1", "f()"], id="bound before the call"),
    pytest.param(["display(1)\nget_ipython()\n_, __, _1, In, Out"], id="names of IPython"),
    pytest.param(["import math", "import math\nmath.pi"], id="imported again"),
    pytest.param(["import os\nimport sys"], id="unused import"),
    pytest.param(
        ["cfg = None", "cfg = {}\ncfg['a'] = 1", "cfg['a']"], id="None first, then a dict"
    ),
    pytest.param(
        ["r = None\ndef show():\n    return r['a'], r.get('b')", "r = {'a': 1}\nshow()"],
        id="None first, read in a function",
    ),
    pytest.param(["import asyncio\nawait asyncio.sleep(0)"], id="top-level await"),
    pytest.param(["x = 1", "from __future__ import annotations\nx"], id="future import in a cell"),
    pytest.param(["from engine.calls import Outside\nOutside(1, a=2).x"], id="external base"),
    pytest.param(["from engine.open import anything\nanything.x"], id="module __getattr__"),
    pytest.param(["import engine.open as o\no.anything.x"], id="module __getattr__, attribute"),
    pytest.param([USES, "if hasattr(r, 'extra'):\n    r.extra"], id="guarded by hasattr"),
    pytest.param(["class A: ...\na = A()\na.x = 1", "a.x"], id="attribute set from outside"),
    pytest.param(["def f(): ...\nf.calls = 0\nf.calls"], id="attribute of a function"),
    pytest.param([USES, "for name in ('final_loss',): r[name]\nr['best_epoch']"], id="keys"),
    pytest.param([USES, "fit({'size': 1, 'name': 'a'}, epochs=2)"], id="other key order"),
    pytest.param([USES, "# fit(spec=1)\n'Trainer(nope=1)'"], id="comments and strings"),
    pytest.param(["import pandas as pd\ndf = pd.DataFrame()\nif not df.empty: ..."], id="empty"),
    pytest.param(["import pandas as pd\ndf = pd.DataFrame()\nif df is None: ..."], id="is"),
    pytest.param(["def f(t):\n    if t: ...\nimport pandas as pd\nt = pd.DataFrame()"], id="arg"),
    pytest.param(
        ["from engine.calls import plan\nc = {'steps': 1}\nc['batch'] = 2", "plan(c)"],
        id="key added later",
    ),
    pytest.param(
        ["from engine.calls import plan\nc = {'steps': 1}\nd = {**c, 'batch': 2}", "plan(d)"],
        id="dict made of another",
    ),
    pytest.param(
        ["from engine.calls import plan\nplan({'batch': 1, 'steps': 2})"], id="key that may be read"
    ),
    pytest.param(["{(1, 2): 3}\n{'a': [1]}\nd = {}\nd[1, 2] = 3"], id="hashable"),
    pytest.param(
        [
            {"source": "size = 'small'", "metadata": {"tags": ["parameters"]}},
            "if size == 'large':\n    n = 2\nelse:\n    n = 1",
            "if size == 'large':\n    m = 1\n    print(m)",
        ],
        id="branch for another value of a parameter",
    ),
    pytest.param(
        ["size = 'small'  # @param ['small', 'large']\nif size == 'large':\n    n = 2", "n"],
        id="name bound for another value of a form",
    ),
    pytest.param(
        [{"source": "raise ValueError(1)", "metadata": {"tags": ["raises-exception"]}}, "x = 1"],
        id="cell that is meant to raise",
    ),
    pytest.param(["import sys\nif sys.platform == 'win32':\n    w = 1", "w = 2\nw"], id="platform"),
    pytest.param(["nam  # noqa", "nam2  # noqa: F821", "nam3  # noqa: PY301"], id="noqa"),
]


@pytest.mark.parametrize("sources", CLEAN)
def test_what_only_looks_like_a_defect_is_not_told(tmp_path, sources):
    assert told(check(tmp_path, *sources)) == []


def test_a_cell_that_does_not_parse_is_told_once_and_its_names_are_not_missed(tmp_path):
    broken = "import math\ndef helper(x):\n    return (x\nvalue = nam\n"

    report = check(tmp_path, broken, "helper(value) + math.pi", "other")

    assert told(report) == [("PY300", 0, 3), ("PY301", 2, 1)]


def test_the_place_after_a_defect_is_still_checked(tmp_path):
    text = {"cell_type": "markdown", "source": "# T"}

    report = check(tmp_path, "x = (", "config", "nam", text, "nam")

    assert [cell for _, cell, _ in told(report)] == [0, 1, 2, 4]


@pytest.mark.parametrize("sources, wanted", SEEN)
def test_the_line_of_the_file_is_that_of_the_code(tmp_path, sources, wanted):
    report = check(tmp_path, {"cell_type": "markdown", "source": "# Title\n\ntext"}, *sources)
    lines = (tmp_path / "nb.ipynb").read_text().splitlines()

    for finding in report.findings:
        source = sources[finding.cell_index - 1].splitlines()[finding.line - 1]
        assert json.dumps(source)[1:-1] in lines[finding.file_line - 1]
        assert finding.excerpt == source


def test_several_notebooks_keep_their_findings_apart(tmp_path):
    write_tree(tmp_path)
    names = ["a/x.ipynb", "b/x.ipynb", "c.ipynb"]
    paths = [write_notebook(tmp_path / n, "ok = 1", f"nam_{i}") for i, n in enumerate(names)]

    report = validate(paths, Settings(root=tmp_path), root=tmp_path, select=["PY301"])

    assert [(f.path, f.message.split("`")[1]) for f in report.findings] == [
        (path, f"nam_{i}") for i, path in enumerate(paths)
    ]


def test_a_file_that_cannot_be_read_is_a_finding_and_the_others_are_checked(tmp_path):
    broken = tmp_path / "broken.ipynb"
    broken.write_text('{"cells": [')
    sound = write_notebook(tmp_path / "sound.ipynb", "nam")

    report = validate(
        [broken, sound], Settings(root=tmp_path), root=tmp_path, select=["NB001", "PY301"]
    )

    assert [(f.path, f.code, f.severity) for f in report.findings] == [
        (broken, "NB001", "error"),
        (sound, "PY301", "error"),
    ]
    assert broken.read_text() == '{"cells": ['


def test_defects_of_the_package_are_told_once_with_the_path_of_the_module(tmp_path):
    write_tree(
        tmp_path, **{"engine/broken.py": "from engine.gone import x\nfrom os import path\nnam()"}
    )
    paths = [write_notebook(tmp_path / f"{n}.ipynb", "import engine.trainer") for n in "ab"]

    report = validate(paths, Settings(root=tmp_path), root=tmp_path, select=["PY301", "PY302"])

    found = [(f.path, f.code, f.line, f.file_line, f.cell_id) for f in report.findings]
    module = tmp_path / "engine" / "broken.py"
    assert found == [(module, "PY302", 1, 1, None), (module, "PY301", 3, 3, None)]


def test_imports_resolve_against_the_root_that_is_given(tmp_path):
    write_tree(tmp_path / "tree")
    path = write_notebook(tmp_path / "elsewhere" / "nb.ipynb", "from engine import gone")
    settings = Settings(root=tmp_path)

    there = validate([path], settings, root=tmp_path / "tree", select=["PY302"])
    nowhere = validate([path], settings, root=tmp_path / "elsewhere", select=["PY302"])

    assert [f.severity for f in there.findings] == ["error"]
    assert [f.severity for f in nowhere.findings] == ["info"]


def test_a_deleted_legacy_package_is_an_error_not_an_uninstalled_one(tmp_path):
    report = check(tmp_path, "import old_engine.core", select=["PY302"], legacy=("old_engine",))

    assert told(report) == [("PY302", 0, 1)]


def test_legacy_symbols_are_told_with_their_cure_in_code_only(tmp_path, monkeypatch):
    package = "def legacy_symbols():\n    return {'old.core.Fitter': 'Use Trainer.'}"
    write_tree(tmp_path, **{"own_migrations.py": package})
    monkeypatch.syspath_prepend(str(tmp_path))
    cells = [
        "from old.core import Fitter as F",
        "import old.core as oc\noc.Fitter()",
        "# old.core.Fitter\nprint('old.core.Fitter')",
        {"cell_type": "markdown", "source": "`old.core.Fitter`"},
        "import importlib\nimportlib.import_module('old.core.Fitter')",
    ]

    report = check(tmp_path, *cells, select=["PY303"], migrations="own_migrations", legacy=("old",))

    assert told(report) == [("PY303", 0, 1), ("PY303", 1, 2), ("PY303", 4, 2)]
    assert {f.cure for f in report.findings} == {"Use Trainer."}


ACCEPTED = [
    pytest.param("nam  # tools: ignore PY301\nnam_2", [2], id="line"),
    pytest.param("# tools: ignore PY301\nnam\nnam_2", [], id="cell"),
    pytest.param("# tools: ignore PY302, PY301\nnam", [], id="several codes"),
    pytest.param("nam  # why  # noqa: PY301, E501", [], id="noqa after a comment"),
    pytest.param("nam  # noqa: PY302", [1], id="noqa of another code"),
    pytest.param("nam; '# tools: ignore PY301'", [1], id="a string is no comment"),
]


@pytest.mark.parametrize("source, lines", ACCEPTED)
def test_what_a_cell_accepts_is_left_out(tmp_path, source, lines):
    assert [line for _, _, line in told(check(tmp_path, source))] == lines


def test_a_tag_and_a_markdown_comment_accept_for_their_cell(tmp_path):
    tagged = {"source": "nam", "metadata": {"tags": ["ignore:PY301"]}}
    text = {"cell_type": "markdown", "source": "<!-- tools: ignore PY999 -->\n# T"}

    report = check(tmp_path, tagged, text, "nam")

    assert told(report) == [("SU701", 1, 1), ("PY301", 2, 1)]
    assert report.n_accepted == 1


def test_a_baseline_survives_moved_lines_and_cells_and_tells_what_is_gone(tmp_path):
    check_one = ["x = 1\nnam", "gone_name"]
    file = tmp_path / "known.json"
    Baseline(file).write(check(tmp_path, *check_one).findings)
    cells = [{"source": "1", "id": "new"}, {"source": "\n\nnam\nfresh", "id": "cell-0"}]
    path = write_notebook(tmp_path / "nb.ipynb", *cells)

    known = read_baseline(file)
    report = validate([path], Settings(root=tmp_path), select=["PY301", "SU"], baseline=known)

    assert report.n_known == 1
    assert [(f.code, f.severity) for f in report.findings] == [
        ("SU702", "info"),
        ("PY301", "error"),
    ]
    assert "cell-1" in report.findings[0].message


def test_our_own_rules_alone_need_no_other_program(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    path = write_notebook(tmp_path / "nb.ipynb", "x = (", "{[1]: 2}")

    found = validate_notebook(read(path), Settings(root=tmp_path), tmp_path)

    assert {"PY300", "PY302"} <= {finding.code for finding in found}


def test_a_missing_checker_is_refused_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))

    with pytest.raises(ToolsError, match="pip install"):
        check(tmp_path, "x = 1")


def test_a_code_that_no_rule_has_is_refused_with_the_nearest():
    assert chosen(["PY30"], ["PY301"]) < {code for code in summaries() if code.startswith("PY")}
    with pytest.raises(ToolsError, match="PY301"):
        chosen(["PY3O1"])


def run(*arguments: str | Path):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    "source, options, code",
    [
        pytest.param("x = 1", [], 0, id="clean"),
        pytest.param("import not_here_at_all", [], 0, id="info only"),
        pytest.param("from math import *", [], 1, id="warning"),
        pytest.param("nam", [], 1, id="error"),
        pytest.param("nam", ["--ignore", "PY301"], 0, id="ignored"),
        pytest.param("nam", ["--select", "PY302,PY303"], 0, id="not selected"),
        pytest.param("x = 1", ["--select", "XX"], 2, id="unknown code"),
        pytest.param("x = 1", ["--format", "yaml"], 2, id="unknown format"),
        pytest.param("x = 1", ["--baseline", "no-such-file.json"], 2, id="missing baseline"),
        pytest.param("x = 1", ["no-such.ipynb"], 2, id="missing path"),
    ],
)
def test_the_exit_code_tells_clean_found_and_refused_apart(tmp_path, source, options, code):
    path = write_notebook(tmp_path / "nb.ipynb", source)
    chosen_codes = [] if "--select" in options else ["--select", "PY30"]

    result = run(path, "--root", tmp_path, *chosen_codes, *options)

    assert result.exit_code == code
    assert "Traceback" not in result.output


def test_a_folder_means_its_notebooks_but_no_copies_of_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    skipped = [".ipynb_checkpoints", ".venv", "runs", "env"]
    for folder in ["sub", *skipped]:
        write_notebook(tmp_path / folder / "x.ipynb", "nam")
    (tmp_path / "env" / "pyvenv.cfg").write_text("")

    result = run(tmp_path, "--select", "PY301", "--format", "json")

    assert [row["path"] for row in json.loads(result.output)] == ["sub/x.ipynb"]
    assert run(tmp_path / "env" / "lib", "--select", "PY301").exit_code == 2


def test_a_baseline_is_written_and_read_by_the_command(tmp_path):
    path = write_notebook(tmp_path / "nb.ipynb", "nam")
    options = [path, "--root", tmp_path, "--select", "PY301", "--baseline", tmp_path / "known.json"]

    assert run(*options, "--write-baseline").exit_code == 0
    result = run(*options)

    assert result.exit_code == 0
    assert "1 in the baseline" in result.output


def test_fix_mends_what_it_can_writes_once_and_then_changes_nothing(tmp_path):
    path = write_notebook(tmp_path / "nb.ipynb", "x = 1")
    content = json.loads(path.read_text())
    content["cells"][0] |= {"execution_count": 7}
    path.write_text(json.dumps(content, indent=1) + "\n")
    before = path.read_bytes()

    shown = run(path, "--root", tmp_path, "--select", "NB005", "--diff")
    assert "+" in shown.output and path.read_bytes() == before
    first = run(path, "--root", tmp_path, "--select", "NB005", "--fix")
    mended = path.read_bytes()
    second = run(path, "--root", tmp_path, "--select", "NB005", "--fix")

    assert "fixed NB005" in first.output and first.exit_code == 0
    assert json.loads(mended)["cells"][0]["execution_count"] is None
    assert "fixed" not in second.output and path.read_bytes() == mended


def test_fix_leaves_what_a_cell_accepts(tmp_path):
    path = write_notebook(
        tmp_path / "nb.ipynb", {"source": "x = 1", "metadata": {"tags": ["ignore:NB005"]}}
    )
    path.write_text(path.read_text().replace('"execution_count": null', '"execution_count": 7'))

    assert mend(path, Settings(root=tmp_path), tmp_path, {"NB005"}) is None


def test_the_project_s_notebooks_are_items_of_pytest_on_request(tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        '[tool.notebooks]\npaths = ["nb.ipynb"]\nignore = ["NB", "CO"]\n'
    )
    write_notebook(tmp_path / "nb.ipynb", "nam")
    (tmp_path / "test_other.py").write_text("def test_nothing(): pass\n")
    options = ["-p", "tools.pytest_plugin", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    line = [sys.executable, "-m", "pytest", "-q", *options, str(tmp_path)]
    asked = subprocess.run([*line, "--notebooks"], capture_output=True, text=True, cwd=ROOT)
    quiet = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)

    assert "1 failed, 1 passed" in asked.stdout
    assert "`nam` is not bound" in asked.stdout and "Traceback" not in asked.stdout
    assert "1 passed" in quiet.stdout


def test_a_finding_is_nine_fields_in_json(tmp_path):
    path = write_notebook(tmp_path / "nb.ipynb", "\nnam")

    rows = json.loads(run(path, "--root", tmp_path, "--select", "PY301", "--format", "json").output)

    assert [list(row) for row in rows] == [list(FIELDS)]
    assert rows[0] | {"message": "", "cure": ""} == {
        "path": str(path),
        "code": "PY301",
        "severity": "error",
        "cell_id": "cell-0",
        "cell_index": 0,
        "line": 2,
        "file_line": rows[0]["file_line"],
        "message": "",
        "cure": "",
    }


def test_a_finding_is_known_by_its_code_cell_and_text_not_by_its_line():
    one = Finding(Path("a"), "PY301", "error", "m", "c", "id", 3, 7, 70, excerpt="  nam")
    moved = Finding(Path("a"), "PY301", "error", "other", "c", "id", 4, 9, 90, excerpt="nam")

    assert one.fingerprint == moved.fingerprint
