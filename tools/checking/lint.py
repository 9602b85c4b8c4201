"""Names, their order, redefinitions and banned symbols: ruff, run once over all notebooks.

Only checks are chosen whose finding is a defect when a notebook is run from the top: an unused
import is none, and a cell that imports again what an earlier cell imported is none either.
"""

import ast
import difflib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.analysis.names import bindings
from tools.checking.checker import Checker
from tools.checking.copies import Copy
from tools.checking.finding import Finding, Severity, locate
from tools.program import CodeCell
from tools.rules.syntax import AUTOMAGICS


@dataclass(frozen=True)
class Lint:
    """How a check of ruff is reported."""

    severity: Severity
    cure: str
    code: str = "PY301"
    message: str = ""
    """In place of ruff's own, where that counts cells in its own way; {} is the name."""


FORMAT = Lint("error", "Make the placeholders and the values agree.")
UNDEFINED = Lint("error", "Bind it above this line, or correct the name.")
LINTS = {
    "F402": Lint(
        "warning",
        "Give the loop variable another name.",
        message="The loop variable `{}` hides the import of the same name.",
    ),
    "F403": Lint(
        "warning",
        "Import the names that are used.",
        "PY306",
        "`{}` hides which names it binds, so that a wrong name is found only by running.",
    ),
    **dict.fromkeys(("F501", "F502", "F505", "F506", "F507", "F508", "F509"), FORMAT),
    **dict.fromkeys(("F521", "F524", "F525", "PLE1307"), FORMAT),
    "F601": Lint("warning", "Keep one of the two entries."),
    "F621": Lint("error", "Unpack fewer names."),
    "F622": Lint("error", "Keep one starred name."),
    "F631": Lint("error", "Remove the parentheses around condition and message."),
    "F632": Lint("error", "Compare with == or !=."),
    "F633": Lint("error", "Call print(..., file=...)."),
    "F634": Lint("error", "Remove the comma or the parentheses."),
    "F811": Lint(
        "warning",
        "Rename one of the two, or delete the one that is never used.",
        message="`{}` is defined again here, and what it was before is never used.",
    ),
    "F821": UNDEFINED,
    "F822": Lint("error", "Remove it from __all__."),
    "F823": Lint(
        "error",
        "Bind it in the function before this line, or declare it global.",
        message="`{}` is local to this function, but is read before it is bound there.",
    ),
    "PLE1205": Lint("warning", "Make the placeholders and the values agree."),
    "PLE1206": Lint("warning", "Make the placeholders and the values agree."),
    "RUF008": Lint("error", "Use dataclasses.field(default_factory=...)."),
    "TID251": Lint(
        "error",
        "Migrate the notebook: python -m tools migrate --diff.",
        "PY303",
        "`{}` is of a legacy API.",
    ),
}

CODES = ("PY300", "PY301", "PY303", "PY306")
"""The codes under which findings of ruff are reported."""


def start(
    copies: Mapping[str, Copy],
    modules: Sequence[Path],
    banned: Mapping[str, str],
    folder: Path,
) -> Checker:
    """Start ruff on the copies and on the modules of the packages that notebooks import."""
    config = folder / "ruff.toml"
    config.write_text(_config(banned), encoding="utf-8")
    files = [str(copy.path) for copy in copies.values()] + [str(path) for path in modules]
    listing = folder / "ruff.files"
    listing.write_text("\n".join(files), encoding="utf-8")
    options = ["check", "--no-cache", "--quiet", "--output-format", "json"]
    return Checker("ruff", [*options, "--config", str(config), f"@{listing}"], folder, CODES)


def _config(banned: Mapping[str, str]) -> str:
    version = f"py{sys.version_info.major}{sys.version_info.minor}"
    lines = [
        f'target-version = "{version}"',
        "[lint]",
        f"select = {json.dumps(list(LINTS))}",
        'external = ["NB", "CO", "FM", "PY", "EX", "PV", "WF", "SU"]',
        "[lint.flake8-tidy-imports.banned-api]",
        *(f"{json.dumps(name)}.msg = {json.dumps(cure)}" for name, cure in banned.items()),
    ]
    return "\n".join(lines)


def findings(
    output: str, copies: Mapping[str, Copy], banned: Mapping[str, str]
) -> Iterator[Finding]:
    """What ruff found, at the cells and lines of the notebooks themselves."""
    for item in json.loads(output or "[]"):
        path, code = Path(item["filename"]), item["code"]
        row, column = item["location"]["row"], item["location"]["column"]
        copy = copies.get(path.name)
        if copy is None:
            yield from _of_module(path, code, item["message"], row, column)
            continue
        place = copy.place(item["cell"], row)
        if code in LINTS and place is not None:
            finding = _of_cell(copy, place, code, item["message"], column, banned)
            if finding is not None:
                yield finding


def _of_module(path: Path, code: str, message: str, row: int, column: int) -> Iterator[Finding]:
    """In a package only what stops an import or a call: undefined names and broken syntax."""
    if code == "F821":
        text = f"`{named(message)}` is not bound anywhere in this module."
        cure, rule = "Import it or define it in the module.", "PY301"
    elif code in (None, "invalid-syntax"):
        text, cure, rule = f"The module does not parse: {message}.", "Correct this line.", "PY300"
    else:
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    excerpt = lines[row - 1] if row <= len(lines) else ""
    yield Finding(
        path, rule, "error", text, cure, line=row, file_line=row, column=column, excerpt=excerpt,
        origin=code or "",
    )  # fmt: skip


def _of_cell(
    copy: Copy, place: tuple, code: str, message: str, column: int, banned: Mapping[str, str]
) -> Finding | None:
    cell, line = place
    name, lint = named(message), LINTS[code]
    where = {**locate(copy.notebook, copy.cells, cell.index, line), "column": column}
    if code == "F821":
        return undefined(copy, place, name, where, code)
    if code == "F811" and _is_imported_again(copy, name):
        return None
    if code == "TID251" and _is_told_by_name(cell, line, name, banned):
        return None
    cure = banned.get(name) or lint.cure if code == "TID251" else lint.cure
    text = lint.message.format(name) if lint.message else message.rstrip(".") + "."
    return Finding(copy.notebook.path, lint.code, lint.severity, text, cure, origin=code, **where)


def undefined(
    copy: Copy, place: tuple, name: str, where: dict[str, Any], origin: str
) -> Finding | None:
    """The finding for a name that is not bound when the line runs, unless it may well be."""
    cell, line = place
    if copy.names.is_excused(name, cell.index, line):
        return None
    path = copy.notebook.path
    if name in AUTOMAGICS and where["excerpt"].split("#")[0].strip() == name:
        message = f"`{name}` is taken for a magic while no variable has this name."
        return Finding(path, "PY306", "warning", message, f"Write %{name}.", origin=origin, **where)
    return Finding(
        path,
        "PY301",
        "error",
        f"`{name}` is not bound when this line runs.{_hint(copy, name, cell.index, line)}",
        UNDEFINED.cure,
        origin=origin,
        **where,
    )


def _hint(copy: Copy, name: str, index: int, line: int) -> str:
    """Where the name is bound instead, or which name may be meant."""
    home = copy.names.home(name)
    if home is not None and home.index > index:
        return f" Cell {home.index + 1} ({home.cell.id}) binds it, which comes later."
    if home is not None:
        is_below = home.index == index and min(_lines_that_bind(home.tree, name), default=0) > line
        return " This cell binds it further down." if is_below else ""
    known = {
        other
        for cell in copy.program.cells
        if cell.tree is not None and cell.index <= index
        for other in bindings(cell.tree)
    }
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.75)
    return f" Did you mean `{near[0]}`?" if near else ""


def _lines_that_bind(tree: ast.AST, name: str) -> Iterator[int]:
    for node in ast.walk(tree):
        is_stored = isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)
        if is_stored and node.id == name:
            yield node.lineno


def _is_imported_again(copy: Copy, name: str) -> bool:
    """Whether every binding of a name is an import of the same thing."""
    sources = set()
    for cell in copy.program.cells:
        for node in cell.nodes:
            if isinstance(node, ast.Import | ast.ImportFrom):
                sources.update(
                    (getattr(node, "module", None), getattr(node, "level", 0), alias.name)
                    for alias in node.names
                    if (alias.asname or alias.name.partition(".")[0]) == name
                )
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                sources.update([(node,)] if node.name == name else [])
    return len(sources) == 1 and len(next(iter(sources))) > 1


def _is_told_by_name(cell: CodeCell, line: int, name: str, banned: Mapping[str, str]) -> bool:
    """Whether a line imports from a banned module only what is banned by name as well."""
    return any(
        isinstance(node, ast.ImportFrom)
        and (node.lineno, node.module) == (line, name)
        and all(f"{name}.{alias.name}" in banned for alias in node.names)
        for node in cell.nodes
    )


def named(message: str) -> str:
    """The first thing that a message names in backticks; empty without one."""
    parts = message.split("`")
    return parts[1] if len(parts) > 2 else ""
