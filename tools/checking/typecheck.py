"""Imports, attributes, calls and keys: ty, run once over all notebooks of a root.

Only rules are chosen whose finding fails when the line runs, whatever values the variables have:
what depends on a value being None, or on a declared type that Python does not enforce, is left
out. What stands here was chosen by trying it on ordinary notebook code with ty 0.0.105.
"""

import ast
import difflib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.analysis.imports import (
    ENVIRONMENT,
    first_party,
    first_party_names,
    imported_packages,
    is_installed,
    is_optional,
    search_folders,
)
from tools.analysis.packages import modules_of
from tools.checking.checker import Checker
from tools.checking.copies import Copy
from tools.checking.finding import Finding, Severity, locate
from tools.checking.lint import named, undefined
from tools.checking.shadow import write_shadow
from tools.program import CodeCell
from tools.settings import Settings

CODE = "PY302"
CODES = ("PY301", CODE)
"""The codes under which findings of ty are reported."""
KEYWORD = "Correct the call: compare it with the signature."
CURES = {
    "import-not-found": "Correct the import, or restore the module.",
    "missing-module-member": "Import a name that the module has.",
    "missing-attribute": "Use an attribute that it has.",
    "missing-argument": "Pass the argument.",
    "unknown-argument": KEYWORD,
    "too-many-positional-arguments": KEYWORD,
    "parameter-already-assigned": KEYWORD,
    "positional-only-parameter-as-kwarg": KEYWORD,
    "not-callable": "Call a function, or remove the parentheses.",
    "not-subscriptable": "Remove the subscript, or correct the name.",
    "not-iterable": "Loop over something that can be iterated.",
    "index-out-of-bounds": "Use an index that is within the length.",
    "invalid-typed-dict-key": "Use a key that the dict has.",
    "missing-typed-dict-key": "Add the key.",
    "unknown-typed-dict-constructor-key": "Remove the key, or correct its name.",
    "invalid-argument-type": "Use a key that the record has.",
    "unresolved-reference": "Bind it above this line, or correct the name.",
}
IN_MODULES = ("import-not-found", "missing-module-member", "unresolved-reference")
"""The rules that are reported for the modules of a package, not only for notebooks."""
LINE = re.compile(
    r"(?P<path>.+?):(?:cell (?P<cell>\d+):)?(?P<row>\d+):(?P<column>\d+): "
    r"\w+\[(?P<rule>[\w-]+)\] (?P<message>.*)"
)


@dataclass(frozen=True)
class Tree:
    """The notebooks of one root, the folders they import from, and the packages found there."""

    root: Path
    copies: Mapping[str, Copy]
    folders: Sequence[Path]
    packages: Sequence[Path]
    settings: Settings


@dataclass(frozen=True)
class Remark:
    """One line of ty's output."""

    rule: str
    message: str
    row: int
    column: int


def start(tree: Tree, folder: Path) -> Checker:
    """Start ty on the copies of a root and on the packages that they import."""
    shadow = write_shadow(list(tree.packages), folder / "shadow")
    config = folder / "ty.toml"
    config.write_text(_config([*shadow, *tree.folders]), encoding="utf-8")
    modules = [str(path) for package in tree.packages for path in modules_of(package)]
    options = ["check", "--config-file", str(config), "--project", str(folder), "--no-progress"]
    options += ["--color", "never", "--output-format", "concise", "--no-respect-ignore-files"]
    copies = [str(copy.path) for copy in tree.copies.values()]
    return Checker("ty", [*options, *copies, *modules], folder, CODES)


def _config(folders: Sequence[Path]) -> str:
    paths = ", ".join(f'"{_escaped(path)}"' for path in folders)
    rules = "\n".join(f'{rule} = "error"' for rule in CURES)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return (
        f'[environment]\npython = "{_escaped(Path(sys.prefix))}"\npython-version = "{version}"\n'
        f'python-platform = "all"\nroot = ["."]\nextra-paths = [{paths}]\n'
        f'[rules]\nall = "ignore"\n{rules}\n'
    )


def _escaped(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace('"', '\\"')


def findings(output: str, tree: Tree, folder: Path) -> Iterator[Finding]:
    """What ty found, at the cells and lines of the notebooks and modules themselves."""
    hidden: dict[str, tuple[int, int]] = {}
    for line in output.splitlines():
        match = LINE.fullmatch(line)
        if match is None or match["rule"] not in CURES:
            continue
        path = (folder / match["path"]).resolve()
        remark = Remark(match["rule"], match["message"], int(match["row"]), int(match["column"]))
        copy = tree.copies.get(path.name) if match["cell"] else None
        if copy is None:
            yield from _of_module(path, remark, tree)
            continue
        place = copy.place(int(match["cell"]), remark.row)
        if place is None or place[0].tree is None:
            continue
        if remark.rule == "import-not-found" and _is_star(*place):
            hidden.setdefault(copy.path.name, (place[0].index, place[1]))
        since = hidden.get(copy.path.name)
        if since and remark.rule == "unresolved-reference" and (place[0].index, place[1]) > since:
            continue
        yield from _of_cell(copy, place, remark, tree)


def _of_cell(
    copy: Copy, place: tuple[CodeCell, int], remark: Remark, tree: Tree
) -> Iterator[Finding]:
    cell, line = place
    name = named(remark.message)
    where = {
        **locate(copy.notebook, copy.cells, cell.index, line),
        "column": remark.column,
    }
    if remark.rule == "unresolved-reference":
        found = undefined(copy, place, name, where, remark.rule)
        yield from [found] if found else []
    elif remark.rule == "import-not-found":
        yield from _of_import(copy, place, name, where, tree)
    elif not _is_excused(copy, place, remark):
        yield _finding(copy, _sentence(remark), CURES[remark.rule], where, remark.rule)


def _finding(
    copy: Copy,
    message: str,
    cure: str,
    where: dict[str, Any],
    origin: str,
    severity: Severity = "error",
) -> Finding:
    return Finding(copy.notebook.path, CODE, severity, message, cure, origin=origin, **where)


def _of_import(
    copy: Copy, place: tuple[CodeCell, int], name: str, where: dict[str, Any], tree: Tree
) -> Iterator[Finding]:
    """A module that cannot be found: an error if it should be in the tree, else said as info."""
    cell, line = place
    top = name.partition(".")[0]
    if is_optional(cell.tree, line) or name.startswith(ENVIRONMENT):
        return
    rule = "import-not-found"
    is_ours = top in tree.settings.legacy or first_party(top, list(tree.folders))
    if not is_ours and is_installed(name):
        return
    if is_ours or is_installed(top):
        home = "the tree" if is_ours else f"the {top} that is installed"
        message = f"There is no module `{name}` in {home}."
        yield _finding(copy, message, CURES[rule], where, rule)
        return
    near = difflib.get_close_matches(top, first_party_names(list(tree.folders)), 1, 0.85)
    if near:
        message = f"There is no module `{name}`. Did you mean `{near[0]}`?"
        yield _finding(copy, message, CURES[rule], where, rule)
        return
    message = f"`{top}` is not installed here, so its use was not checked."
    cure = f"Install {top} to have its use checked."
    yield _finding(copy, message, cure, where, rule, severity="info")


def _sentence(remark: Remark) -> str:
    """What ty says, but for a key in the words of a reader."""
    if remark.rule != "invalid-argument-type":
        return f"{remark.message.rstrip('.')}."
    owner = remark.message.split("`")[-2]
    key = remark.message.partition("key of type `Literal[")[2].partition("]`")[0]
    return f"`{owner}` has no key {key}."


def _is_excused(copy: Copy, place: tuple[CodeCell, int], remark: Remark) -> bool:
    """Whether the line runs after all: the type checker knows less than Python does."""
    if "None" in remark.message:
        return True
    if remark.rule == "missing-attribute":
        return named(remark.message.partition("attribute")[2]) in copy.names.attributes
    if remark.rule == "invalid-argument-type":
        return not _has_literal_key(*place, remark)
    return False


def _has_literal_key(cell: CodeCell, line: int, remark: Remark) -> bool:
    """Whether the remark is about a subscript with a literal text, such as `result["loss"]`."""
    return "`__getitem__`" in remark.message and any(
        isinstance(node, ast.Subscript)
        and node.lineno == line
        and isinstance(node.slice, ast.Constant)
        and f'Literal["{node.slice.value}"]' in remark.message
        for node in cell.nodes
    )


def _is_star(cell: CodeCell, line: int) -> bool:
    return any(
        isinstance(node, ast.ImportFrom) and node.lineno == line and node.names[0].name == "*"
        for node in cell.nodes
    )


def _of_module(path: Path, remark: Remark, tree: Tree) -> Iterator[Finding]:
    """In a package only what stops an import or a call: undefined names and imports."""
    if remark.rule not in IN_MODULES:
        return
    name = named(remark.message)
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        guarded = is_optional(ast.parse(text), remark.row)
    except SyntaxError:
        return
    is_import = remark.rule != "unresolved-reference"
    if is_import and (guarded or not first_party(name.partition(".")[0], list(tree.folders))):
        return
    lines = text.splitlines()
    yield Finding(
        path,
        CODE if is_import else "PY301",
        "error",
        f"{remark.message}." if is_import else f"`{name}` is not bound anywhere in this module.",
        CURES[remark.rule] if is_import else "Import it or define it in the module.",
        line=remark.row,
        file_line=remark.row,
        column=remark.column,
        excerpt=lines[remark.row - 1] if remark.row <= len(lines) else "",
        origin=remark.rule,
    )


def trees(copies: Mapping[str, Copy], settings: Mapping[Path, Settings]) -> list[Tree]:
    """The copies grouped by root."""
    found = []
    for root in dict.fromkeys(copy.root for copy in copies.values()):
        own = {name: copy for name, copy in copies.items() if copy.root == root}
        folders = search_folders(root, [copy.notebook.path for copy in own.values()])
        packages = imported_packages([copy.program for copy in own.values()], folders)
        found.append(Tree(root, own, folders, packages, settings[root]))
    return found
