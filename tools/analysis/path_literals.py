"""Collect the files that code names by a literal, and those that may come from the code itself."""

import ast
import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, TypeGuard

from tools.analysis.shell_words import enter_magic
from tools.program import CodeCell, Program

READERS = (
    "open", "read", "load", "parse", "genfromtxt", "imread", "listdir", "scandir", "iterdir",
    "run_path", "stat", "from_yaml", "from_json", "from_toml", "from_file",
)  # fmt: skip
WRITERS = (
    "save", "write", "dump", "to_", "export", "mkdir", "makedirs", "touch", "copy", "move",
    "rename", "replace", "symlink", "download", "retrieve", "fetch", "extract", "unpack", "urlret",
    "create", "make", "new", "log", "plot", "record", "store", "put", "convert", "render",
    "compress", "archive", "remove", "unlink", "rmtree", "connect", "clone", "system", "popen",
    "Popen", "check_", "call", "run", "upload", "generate", "build", "glob",
)  # fmt: skip
Kind = Literal["read", "import", "name"]
IDLE = ("print", "display", "format", "join", "split", "startswith", "endswith", "len", "str")
TESTS = ("exists", "isfile", "isdir", "is_file", "is_dir", "lexists")
SINKS = re.compile(r"out|save|dest|target|log|cache|name|title|label|help", re.IGNORECASE)
PATHS = ("Path", "PurePath", "PosixPath", "PurePosixPath")
CATCHERS = ("OSError", "IOError", "FileNotFoundError", "Exception", "BaseException")
UNPACKING = ("extractall", "unpack_archive", "upload", "snapshot_download", "hf_hub_download")


@dataclass(frozen=True)
class PathUse:
    """A place where a file is needed."""

    path: str
    cell: int
    line: int
    kind: Kind
    """Whether the code reads it, imports from it as a folder, or only names it."""


@dataclass
class FileTraffic:
    """Which files the code of a notebook needs, and which may come from the notebook itself."""

    uses: list[PathUse] = field(default_factory=list)
    touched: set[str] = field(default_factory=set)
    """Files and folders that are written, tested for, or handed to what may write them."""
    unpacks: bool = False
    """Whether files of unknown names arrive."""
    moves: bool = False
    """Whether the working folder changes."""

    def enter(self, path: str, cell: int, line: int, kind: Kind) -> None:
        """Note that a file is needed."""
        self.uses.append(PathUse(path, cell, line, kind))

    def touch(self, words: Iterable[str]) -> None:
        """Note that files may be written."""
        self.touched.update(posixpath.normpath(word) for word in words)


def file_traffic(program: Program) -> FileTraffic:
    """Read all code cells; a cell that does not parse contributes its shell lines only."""
    traffic = FileTraffic()
    for cell in program.cells:
        for magic in cell.magics:
            enter_magic(traffic, cell.index, magic)
    trees = [cell for cell in program.cells if cell.tree is not None]
    names = _bound_paths(trees)
    for cell in trees:
        _CellReader(traffic, cell.index, names).read(cell.tree)
    return traffic


def _bound_paths(cells: list[CodeCell]) -> dict[str, str]:
    """Names that stand for one literal path in the whole notebook."""
    bound: dict[str, set[str | None]] = {}
    for cell in cells:
        plain = set()
        for node in ast.walk(cell.tree):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                plain.add(node.targets[0])
                bound.setdefault(node.targets[0].id, set()).add(literal_path(node.value, {}))
            elif _binds(node) and node not in plain:
                bound.setdefault(node.id, set()).add(None)
    single = {name: next(iter(paths)) for name, paths in bound.items() if len(paths) == 1}
    return {name: path for name, path in single.items() if path}


def _binds(node: ast.AST) -> TypeGuard[ast.Name]:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)


def literal_path(node: ast.AST, names: dict[str, str]) -> str | None:
    """The path that an expression spells out; None if it depends on the run."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        # The right side first: a long chain of divisions ends here at once.
        return _joined([node.right, node.left], names)
    if isinstance(node, ast.Call) and node.args and not node.keywords:
        name = _called(node.func)
        is_path = name == "os.path.join" or name.rpartition(".")[2] in PATHS
        return _joined(node.args[::-1], names) if is_path else None
    return None


def _joined(nodes: list[ast.expr], names: dict[str, str]) -> str | None:
    """The path of parts that are given from the last to the first."""
    parts = []
    for node in nodes:
        part = literal_path(node, names)
        if not part:
            return None
        parts.append(part)
    return posixpath.join(*reversed(parts))


def _called(node: ast.expr) -> str:
    """The dotted name of what is called; of `f().g` only what comes after the call."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        parts.append(node.id)
    return ".".join(reversed(parts))


class _CellReader:
    """Enters each call of a cell into the traffic."""

    def __init__(self, traffic: FileTraffic, cell: int, names: dict[str, str]) -> None:
        self.traffic, self.cell, self.names = traffic, cell, names
        self.guarded: set[ast.AST] = set()

    def read(self, tree: ast.Module) -> None:
        """Go through a cell; `ast.walk` does not recurse, so that no cell is too deep for it."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Try) and any(map(_expects_no_file, node.handlers)):
                self.guarded.update(part for child in node.body for part in ast.walk(child))
            elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
                self._use([node], "name")
            elif isinstance(node, ast.Call):
                self._enter_call(node)

    def _enter_call(self, node: ast.Call) -> None:
        """Enter what a call reads, writes, tests or names."""
        name = _called(node.func)
        verb = name.rpartition(".")[2]
        receiver = node.func.value if isinstance(node.func, ast.Attribute) else None
        self.traffic.moves |= name == "os.chdir"
        self.traffic.unpacks |= verb in UNPACKING
        if name in ("sys.path.append", "sys.path.insert"):
            self._use(node.args[-1:], "import")
        elif verb in IDLE:
            return
        elif receiver is not None and literal_path(receiver, self.names):
            self._enter_method(receiver, verb, node)
        elif verb.startswith(READERS) and not _writes(node, mode_at=1):
            self._use(node.args[:1], "read")
        elif verb in TESTS or verb.startswith((*WRITERS, *READERS)):
            self._touch([*node.args, *(keyword.value for keyword in node.keywords)])
        else:
            self._enter_unknown(node)

    def _enter_method(self, path: ast.expr, verb: str, node: ast.Call) -> None:
        """A method of a path; of the other strings nothing looks like a file."""
        if verb.startswith(READERS) and not _writes(node, mode_at=0):
            self._use([path], "read")
        else:
            self._touch([path, *node.args])

    def _enter_unknown(self, node: ast.Call) -> None:
        self._use(node.args, "name")
        for keyword in node.keywords:
            if keyword.arg and SINKS.search(keyword.arg):
                self._touch([keyword.value])
            else:
                self._use([keyword.value], "name")

    def _use(self, nodes: list[ast.expr], kind: Kind) -> None:
        for node in nodes:
            path = literal_path(node, self.names)
            if path and node not in self.guarded:
                self.traffic.enter(path, self.cell, node.lineno, kind)

    def _touch(self, nodes: list[ast.expr]) -> None:
        """Whatever is spelled out in arguments may be written, words of a command included."""
        for node in nodes:
            for part in ast.walk(node):
                if path := literal_path(part, self.names):
                    self.traffic.touch({path, *path.split()})


def _writes(node: ast.Call, mode_at: int) -> bool:
    """Whether a call opens its file for writing."""
    modes = node.args[mode_at : mode_at + 1]
    modes += [keyword.value for keyword in node.keywords if keyword.arg == "mode"]
    texts = [mode.value for mode in modes if isinstance(mode, ast.Constant)]
    return any(
        isinstance(text, str) and len(text) <= 5 and set(text) & set("wax+") for text in texts
    )


def _expects_no_file(handler: ast.ExceptHandler) -> bool:
    """Whether a handler catches what a missing file raises."""
    if handler.type is None:
        return True
    types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(_called(type).rpartition(".")[2] in CATCHERS for type in types)
