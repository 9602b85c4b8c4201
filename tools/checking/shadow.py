"""Lay out first-party packages as a type checker should read them.

Two idioms hide from a type checker what a reader of the module knows, and with it most wrong
names and keywords of the notebooks that import the package:

- a package that loads names lazily has a `__getattr__`, by which any name seems to exist;
- a record or a pydantic model whose method takes any name (`__getitem__`, `__init__(**values)`)
  although only its fields are accepted.

Where the source proves which names there are, a changed copy says so. Line numbers stay. All else
is linked, and nothing is written unless a package has such a module.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from tools.analysis.packages import SKIPPED, lazy_table, modules_of

MARKS = (b"def __getattr__(", b"def __getitem__(", b"def __init__(self, **")


def write_shadow(packages: list[Path], folder: Path) -> list[Path]:
    """Write changed copies of packages into the folder; the folder if there are any, else none."""
    for package in packages:
        changed = {path: text for path in modules_of(package) for text in _changed(path, package)}
        if changed:
            _link(package, folder / package.name, changed)
    return [folder] if folder.is_dir() else []


def _link(source: Path, target: Path, changed: dict[Path, str]) -> None:
    """Make the target read as the source, but for the changed files."""
    target.mkdir(parents=True, exist_ok=True)
    for entry in source.iterdir():
        if entry in changed:
            (target / entry.name).write_text(changed[entry], encoding="utf-8")
        elif any(path.is_relative_to(entry) for path in changed):
            _link(entry, target / entry.name, changed)
        elif entry.name not in SKIPPED:
            (target / entry.name).symlink_to(entry)


def _changed(path: Path, package: Path) -> Iterator[str]:
    """The text of a module with its names spelled out, if it has such an idiom."""
    raw = path.read_bytes()
    if not any(mark in raw for mark in MARKS):
        return
    try:
        text = raw.decode("utf-8")
        tree = ast.parse(text)
    except ValueError:
        return
    except SyntaxError:
        return
    edit = _Edit(text)
    if path.name == "__init__.py":
        _spell_out_lazy_names(tree, edit, package)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            _spell_out_keys(node, edit)
            _spell_out_fields(node, edit)
    if edit.text() != text:
        yield edit.text()


class _Edit:
    """Changes to the text of a module that keep its line numbers."""

    def __init__(self, text: str):
        self._lines = [line.encode() for line in text.split("\n")]
        self._spans: list[tuple[int, int, bytes]] = []
        self._appended: list[str] = []
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line) + 1)

    def replace(self, node: ast.expr | ast.stmt, text: str) -> None:
        """Put a text in the place of a node; as many line ends follow as were in it."""
        start = self._starts[node.lineno - 1] + node.col_offset
        end = self._starts[node.end_lineno - 1] + node.end_col_offset
        self._spans.append((start, end, (text + "\n" * (node.end_lineno - node.lineno)).encode()))

    def append(self, line: str) -> None:
        """Add a line at the end."""
        self._appended.append(line)

    def text(self) -> str:
        """The changed text."""
        raw = b"\n".join(self._lines)
        for start, end, text in sorted(self._spans, reverse=True):
            raw = raw[:start] + text + raw[end:]
        return "\n".join([raw.decode(), *self._appended]) if self._appended else raw.decode()


def _spell_out_lazy_names(tree: ast.Module, edit: _Edit, package: Path) -> None:
    """Turn `__getattr__` over a table from name to module into imports of these names."""
    function = _function(tree.body, "__getattr__")
    if function is None or not _refuses_other_names(function):
        return
    read = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
    for node in tree.body:
        table = lazy_table(node, read)
        if table and all(_is_module(home, package) for home in table.values()):
            edit.replace(function, "pass")
            for name, home in table.items():
                edit.append(f"from {home} import {name} as {name}")
            return


def _refuses_other_names(function: ast.FunctionDef) -> bool:
    """Whether the function raises AttributeError, and asks for no name but by the table."""
    parameter = function.args.args[0].arg
    raises = any(
        isinstance(node, ast.Raise) and "AttributeError" in ast.unparse(node)
        for node in ast.walk(function)
    )
    asked = (node for node in ast.walk(function) if isinstance(node, ast.Compare))
    literal = any(
        isinstance(node.ops[0], ast.Eq) and parameter in ast.unparse(node) for node in asked
    )
    calls = {ast.unparse(n.func) for n in ast.walk(function) if isinstance(n, ast.Call)}
    return raises and not literal and not any(name.endswith("startswith") for name in calls)


def _is_module(name: str, package: Path) -> bool:
    parts = name.split(".")
    if name.startswith("."):
        parts = [package.name, *name.lstrip(".").split(".")]
    path = package.parent.joinpath(*parts)
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def _spell_out_keys(node: ast.ClassDef, edit: _Edit) -> None:
    """Let `__getitem__` of a dataclass that returns its attributes take only its fields' names."""
    function = _function(node.body, "__getitem__")
    if function is None or len(function.args.args) != 2 or not _is_dataclass(node):
        return
    annotation = function.args.args[1].annotation
    returned = ast.unparse(function.body[-1])
    parameter = function.args.args[1].arg
    if node.bases or annotation is None or returned != f"return getattr(self, {parameter})":
        return
    names = [item.target.id for item in node.body if _is_field(item)]
    if names:
        edit.replace(annotation, f"'_Literal_of_fields[{', '.join(map(_quoted, names))}]'")
        edit.append("from typing import Literal as _Literal_of_fields")


def _quoted(name: str) -> str:
    return f'"{name}"'


def _spell_out_fields(node: ast.ClassDef, edit: _Edit) -> None:
    """Drop `__init__(self, **values)` of a pydantic model that forbids what is not a field."""
    function = _function(node.body, "__init__")
    if function is None or not any(ast.unparse(base).endswith("BaseModel") for base in node.bases):
        return
    arguments = function.args
    takes_any = arguments.kwarg and len(arguments.args) == 1 and not arguments.kwonlyargs
    if takes_any and not arguments.vararg and _forbids_extra(node):
        edit.replace(function, "pass")


def _forbids_extra(node: ast.ClassDef) -> bool:
    keywords = list(node.keywords)
    for item in node.body:
        if isinstance(item, ast.Assign) and ast.unparse(item.targets[0]) == "model_config":
            keywords += item.value.keywords if isinstance(item.value, ast.Call) else []
    return any(
        keyword.arg == "extra" and ast.unparse(keyword.value) == "'forbid'" for keyword in keywords
    )


def _is_dataclass(node: ast.ClassDef) -> bool:
    names = (ast.unparse(item).partition("(")[0] for item in node.decorator_list)
    return any(name in ("dataclass", "dataclasses.dataclass") for name in names)


def _is_field(item: ast.stmt) -> bool:
    return (
        isinstance(item, ast.AnnAssign)
        and isinstance(item.target, ast.Name)
        and "ClassVar" not in ast.unparse(item.annotation)
    )


def _function(body: list[ast.stmt], name: str) -> ast.FunctionDef | None:
    return next((n for n in body if isinstance(n, ast.FunctionDef) and n.name == name), None)
