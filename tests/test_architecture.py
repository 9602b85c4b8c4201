"""The shape of the code: floors, no cycles, and nothing heavy or unsafe that was not asked for."""

import ast
import graphlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
# A module imports from lower floors, or from its own folder.
FLOORS = {
    "errors": 0,
    "config": 1,
    "task": 1,
    "objectives": 2,
    "data": 2,
    "models": 2,
    "tracking": 2,
    "engine": 3,
    "notebook": 4,
    "export": 4,
    "trainer": 5,
    "search": 6,
    "check_resume": 6,
    "__init__": 7,
    "__main__": 7,
}
OPTIONAL = {
    "wandb", "ray", "transformers", "datasets", "mlflow", "IPython", "ipywidgets", "pandas",
    "matplotlib", "tokenizers", "sqlalchemy", "optuna", "tensorboard", "google",
}  # fmt: skip
PICKLES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
# Modules that are loaded only when their library is wanted.
ADAPTERS = {
    (f"tracking/{name}.py", "sqlalchemy")
    for name in ("connect", "db", "entries", "migrations", "rebuild", "salvage", "schema")
}


class Import(NamedTuple):
    """One import: in which file, of which module, and whether it is run, and run at once."""

    path: Path
    line: int
    target: str
    is_run: bool
    at_import_time: bool

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line} imports {self.target}"


def files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: Path) -> Iterator[Import]:
    """All imports of a file, in functions and under TYPE_CHECKING too."""

    def walk(node: ast.AST, is_run: bool, at_once: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for target in targets(node, path):
                yield Import(path, node.lineno, target, is_run, is_run and at_once)
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for name, value in ast.iter_fields(node):
            typing_only = isinstance(node, ast.If) and name == "body" and is_type_checking(node)
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from walk(child, is_run and not typing_only, at_once and not is_function)

    return walk(tree_of(path), True, True)


def is_type_checking(node: ast.If) -> bool:
    return ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def targets(node: ast.Import | ast.ImportFrom, path: Path) -> list[str]:
    """Modules that a statement names; `from package import module` names the module."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        package = path.relative_to(ROOT).parts[: -node.level]
        base = ".".join([*package, *filter(None, [base])])
    names = [f"{base}.{alias.name}" for alias in node.names]
    return sorted({name if is_module(name) else base for name in names})


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str) -> str:
    """The row of the table of floors that a module of helpers belongs to."""
    _, *rest = module.split(".")
    return rest[0] if rest else "__init__"


def test_every_part_of_helpers_has_a_floor():
    parts = {part_of(module_of(path)) for path in files("helpers")}

    assert parts <= FLOORS.keys()


def test_imports_go_down_the_floors_or_stay_in_their_folder():
    climbs = []
    for path in files("helpers"):
        own = part_of(module_of(path))
        for found in imports(path):
            if found.target.partition(".")[0] != "helpers" or not found.is_run:
                continue
            other = part_of(found.target)
            if other != own and FLOORS[other] >= FLOORS[own]:
                climbs.append(str(found))

    assert climbs == []


def test_annotations_do_not_climb_above_their_floor():
    climbs = []
    for path in files("helpers"):
        own = part_of(module_of(path))
        for found in imports(path):
            if found.target.partition(".")[0] == "helpers" and not found.is_run:
                climbs += [str(found)] if FLOORS[part_of(found.target)] > FLOORS[own] else []

    assert climbs == []


def test_no_module_imports_itself_in_a_circle():
    graph = {
        module_of(path): {
            found.target
            for found in imports(path)
            if found.at_import_time and found.target.startswith("helpers")
        }
        for path in files("helpers")
    }

    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert set(order) == set(graph)


def test_floors_0_and_1_know_nothing_of_torch():
    low = [path for path in files("helpers") if FLOORS[part_of(module_of(path))] <= 1]
    heavy = [
        str(found)
        for path in low
        for found in imports(path)
        if found.target.partition(".")[0] in {"torch", "numpy", "pandas"}
    ]

    assert len(low) == 3
    assert heavy == []


def test_helpers_know_nothing_of_tools_and_tests():
    upward = [
        str(found)
        for path in files("helpers")
        for found in imports(path)
        if found.target.partition(".")[0] in {"tools", "tests", "benchmarks"}
    ]

    assert upward == []


def test_tools_import_helpers_inside_functions_only():
    early = [
        str(found)
        for path in files("tools")
        for found in imports(path)
        if found.at_import_time and found.target.partition(".")[0] == "helpers"
    ]

    assert early == []


def test_optional_packages_are_imported_where_they_are_used():
    early = [
        str(found)
        for path in files("helpers")
        for found in imports(path)
        if (package := found.target.partition(".")[0]) in OPTIONAL
        and found.at_import_time
        and (path.relative_to(ROOT / "helpers").as_posix(), package) not in ADAPTERS
    ]

    assert early == []


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        pytest.param("import helpers", {"torch", "numpy", *OPTIONAL}, id="helpers"),
        pytest.param("import helpers.config", {"torch", "numpy", *OPTIONAL}, id="config"),
        pytest.param("from helpers import Trainer", OPTIONAL, id="trainer"),
        pytest.param("import tools", {"torch", "helpers", *OPTIONAL}, id="tools"),
    ],
)
def test_an_import_loads_only_what_it_needs(statement, unwanted):
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    loaded = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout.split()

    assert unwanted.isdisjoint(loaded)


def test_every_public_name_is_there():
    import helpers

    assert helpers.__all__
    assert all(getattr(helpers, name) is not None for name in helpers.__all__)
    assert set(helpers.__all__) <= set(dir(helpers))


@pytest.mark.parametrize("path", files("helpers", "tools"), ids=module_of)
def test_nothing_is_pickled(path):
    unsafe = [
        f"{path.name}:{node.lineno} {ast.unparse(node)}"
        for node in ast.walk(tree_of(path))
        if is_unsafe(node)
    ]

    assert unsafe == []


def is_unsafe(node: ast.AST) -> bool:
    """Whether a statement or call may run code that a file holds."""
    if isinstance(node, ast.Import):
        return any(alias.name.partition(".")[0] in PICKLES for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        is_error = all(alias.name == "UnpicklingError" for alias in node.names)
        return (node.module or "").partition(".")[0] in PICKLES and not is_error
    if not isinstance(node, ast.Call):
        return False
    keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
    name = ast.unparse(node.func)
    if name == "torch.load":
        return keywords.get("weights_only") != "True"
    return name.endswith(("read_pickle", "to_pickle")) or "allow_pickle" in keywords


@pytest.mark.parametrize(
    ("source", "is_found"),
    [
        pytest.param("torch.load(path)", True, id="default"),
        pytest.param("torch.load(path, weights_only=False)", True, id="off"),
        pytest.param("torch.load(path, weights_only=True)", False, id="on"),
        pytest.param("np.load(path, allow_pickle=True)", True, id="numpy"),
        pytest.param("json.load(file)", False, id="json"),
        pytest.param("import pickle as p", True, id="pickle"),
        pytest.param("from joblib import load", True, id="joblib"),
        pytest.param("from pickle import UnpicklingError", False, id="the error of torch.load"),
    ],
)
def test_what_is_unsafe_is_recognised(source, is_found):
    assert any(map(is_unsafe, ast.walk(ast.parse(source)))) == is_found


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        (
            "document",
            {"analysis", "checking", "rules", "codemod", "running", "commands", "formats"},
        ),
        ("analysis", {"checking", "codemod", "running", "commands", "formats", "generation"}),
        ("rules", {"checking", "codemod", "commands", "formats"}),
        ("generation", {"analysis", "codemod", "running", "commands", "formats"}),
    ],
)
def test_a_folder_of_the_tools_knows_nothing_of_those_above(lower, higher):
    found = [
        str(found)
        for path in files(f"tools/{lower}")
        for found in imports(path)
        if found.target.startswith("tools.") and found.target.split(".")[1] in higher
    ]

    assert found == []
