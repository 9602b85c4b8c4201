"""Files and folders that a second run of a cell finds moved, removed or made already."""

import ast
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tools.analysis.scopes import FUNCTIONS, dotted_path, last_name, shown
from tools.analysis.shell_calls import text_of
from tools.program import CodeCell
from tools.rules import Problem

if TYPE_CHECKING:
    from tools.rules.rerun import Ground

MOVES = {"os.rename", "os.replace", "shutil.move", "os.remove", "os.unlink", "os.rmdir"}
MAKES = {"os.mkdir", "os.makedirs"}


def moves_files(statement: ast.stmt, ground: "Ground") -> Iterator[Problem]:
    """`os.rename`, `shutil.move` or `os.remove` of a file that this cell does not make."""
    call = statement.value if isinstance(statement, ast.Expr) else None
    if not isinstance(call, ast.Call) or ground.code.magics:
        return
    source = call.args[0] if call.args else None
    if last_name(call) == "unlink" and isinstance(call.func, ast.Attribute) and not call.keywords:
        source = None if call.args else call.func.value
    elif ground.names.dotted(call.func) not in MOVES:
        return
    if source is not None and _is_fixed(source, ground) and not _is_named_above(source, ground):
        yield ground.problem(
            statement,
            f"`{shown(call.func)}` raises in a second run, because the first has moved or "
            "removed the file.",
            "Test whether the file is there, or make it in this cell.",
        )


def makes_folders(statement: ast.stmt, ground: "Ground") -> Iterator[Problem]:
    """`mkdir` without `exist_ok` of a folder whose name is the same in each run."""
    call = statement.value if isinstance(statement, ast.Expr) else None
    if not isinstance(call, ast.Call) or any(word.arg == "exist_ok" for word in call.keywords):
        return
    if ground.names.dotted(call.func) in MAKES:
        folder = call.args[0] if call.args else None
    elif isinstance(call.func, ast.Attribute) and call.func.attr == "mkdir":
        folder = call.func.value
    else:
        return
    if folder is not None and _is_fixed(folder, ground) and not _is_removed_above(folder, ground):
        yield ground.problem(
            statement,
            f"`{shown(call.func)}` raises in a second run, because the folder is there.",
            "Use exist_ok=True; for os.mkdir, use os.makedirs.",
        )


def _is_fixed(node: ast.expr, ground: "Ground") -> bool:
    """Whether a path is the same in each run of the cell."""
    if not isinstance(node, ast.Constant) and "{}" not in text_of(node, ground.names):
        return True
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str)
    makers = ("Path", "join", "str", "joinpath", "expanduser", "abspath")
    for part in ast.walk(node):
        if isinstance(part, FUNCTIONS):
            return False
        if isinstance(part, ast.Call) and last_name(part) not in makers:
            return False
        is_open = isinstance(part, ast.Name) and part.id not in ground.names.imports
        if is_open and not ground.is_from_earlier(part.id):
            return False
    return True


def _is_named_above(node: ast.expr, ground: "Ground") -> bool:
    """Whether the cell has the same expression in an earlier statement."""
    wanted = shown(node)
    return any(
        isinstance(other, ast.expr) and other.lineno < node.lineno and shown(other) == wanted
        for other in ast.walk(ground.code.tree)
        if not isinstance(getattr(other, "ctx", None), ast.Store)
    )


def _is_removed_above(node: ast.expr, ground: "Ground") -> bool:
    removers = {"rmtree", "rmdir"}
    return any(
        isinstance(other, ast.Call) and last_name(other) in removers and other.lineno < node.lineno
        for other in ast.walk(ground.code.tree)
    )


def relative_cd(code: CodeCell) -> Iterator[Problem]:
    """`%cd folder` and `os.chdir("folder")`: a second run starts from inside that folder."""
    places = [(magic.line, _cd_target(magic.text)) for magic in code.magics if magic.name == "cd"
              and magic.kind == "line" and _is_at_margin(code, magic.line)]  # fmt: skip
    for statement in code.tree.body if code.tree else []:
        call = statement.value if isinstance(statement, ast.Expr) else None
        if isinstance(call, ast.Call) and dotted_path(call.func) == ["os", "chdir"] and call.args:
            target = call.args[0].value if isinstance(call.args[0], ast.Constant) else ""
            places.append((statement.lineno, target if isinstance(target, str) else ""))
    line, target = min(places, default=(0, ""))
    is_below = bool(target) and target[0] not in "/~$-{."
    if is_below or target.startswith(".."):
        yield Problem(
            f"A second run of this cell looks for `{target}` inside `{target}`, because the first "
            "run has changed the folder.",
            "Change to an absolute path, or use paths instead of changing the folder.",
            code.index,
            line,
        )


def _cd_target(text: str) -> str:
    words = [word for word in text.split()[1:] if not word.startswith("-q")]
    return words[0].strip("\"'") if words else ""


def _is_at_margin(code: CodeCell, line: int) -> bool:
    return not code.cell.source.split("\n")[line - 1][:1].isspace()
