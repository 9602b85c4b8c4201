"""The disk as tests see it: calls recorded, calls that fail, and what a power loss may leave.

A trace is a list of events: (mkdir, path), (create, path), (write, path, bytes), (fsync, path),
(rename, from, to), (unlink, path), (rmdir, path), (ack, step); paths are relative to a root.
"""

import itertools
import os
import random
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Tree = dict[str, Any]
Event = tuple[Any, ...]
WRITING = ("open", "write", "fsync", "rename", "replace", "unlink", "rmdir", "mkdir")
READING = ("open", "readv", "stat", "listdir")
SYSCALLS = "openat,write,fsync,rename,renameat,renameat2,mkdir,mkdirat,unlink,unlinkat,rmdir"
STRACE_LINE = re.compile(r"^(?:\d+ +)?(\w+)\((.*)\) += (-?\d+)")
QUOTED, DESCRIPTOR = re.compile(r'"((?:\\x[0-9a-f]{2})*)"'), re.compile(r"^(\d+|AT_FDCWD)<([^>]*)>")


@contextmanager
def failing(number: int, nth: int, names: tuple[str, ...], *, is_lasting: bool = False):
    """Let the n-th call of these functions of `os` fail, or all from there on; yields a counter."""
    counter = {"calls": 0, "failed": 0, "name": ""}

    def wrap(name, function):
        def call(*arguments, **named):
            counter["calls"] += 1
            if counter["calls"] == nth or (is_lasting and counter["calls"] > nth):
                counter["failed"] += 1
                counter["name"] = counter["name"] or name
                raise OSError(number, os.strerror(number))
            return function(*arguments, **named)

        return call

    with _patched({name: wrap(name, getattr(os, name)) for name in dict.fromkeys(names)}):
        yield counter


@contextmanager
def recording(root: Path) -> Iterator[list[Event]]:
    """Record what is done to the disk below a folder, at the functions of `os` that we call."""
    events, paths, real = [], {}, {name: getattr(os, name) for name in (*WRITING, "close")}

    def relative(path, dir_fd=None) -> str | None:
        whole = os.path.join(paths.get(dir_fd, "/"), path) if dir_fd is not None else str(path)
        return os.path.relpath(whole, root) if Path(whole).is_relative_to(root) else None

    def note(kind: str, *details) -> None:
        if details[0] is not None:
            events.append((kind, *details))

    def open_(path, flags, mode=0o777, *, dir_fd=None):
        descriptor = real["open"](path, flags, mode, dir_fd=dir_fd)
        name = relative(path, dir_fd)
        paths[descriptor] = None if name is None else str(root / name)
        if flags & os.O_CREAT:
            note("create", name)
        return descriptor

    def write(descriptor, data):
        done = real["write"](descriptor, data)
        if paths.get(descriptor):
            note("write", relative(paths[descriptor]), bytes(data[:done]))
        return done

    def fsync(descriptor):
        real["fsync"](descriptor)
        if paths.get(descriptor):
            note("fsync", relative(paths[descriptor]))

    def close(descriptor):
        paths.pop(descriptor, None)
        real["close"](descriptor)

    def rename(source, target, **named):
        real["rename"](source, target, **named)
        note("rename", relative(source), relative(target))

    def at_path(kind):
        def call(path, *arguments, dir_fd=None, **named):
            real[kind](path, *arguments, dir_fd=dir_fd, **named)
            note(kind, relative(path, dir_fd))

        return call

    replaced = {"open": open_, "write": write, "fsync": fsync, "close": close, "rename": rename}
    replaced |= {"replace": rename} | {kind: at_path(kind) for kind in ("unlink", "rmdir", "mkdir")}
    with _patched(replaced):
        yield events


def traced(command: list[str], root: Path, log: Path, cwd: Path) -> list[Event]:
    """Record what a process does to the disk below a folder, at the system calls themselves.

    Making the folder `ack-<step>` in the root acknowledges a step.
    """
    strace = ["strace", "-f", "-y", "-xx", "-s", "100000000", "-e", f"trace={SYSCALLS}"]
    subprocess.run([*strace, "-o", str(log), *command], cwd=cwd, check=True)
    events = []
    for line in log.read_text().splitlines():
        found = STRACE_LINE.match(line)
        if found and int(found[3]) >= 0:
            events += _events_of(found[1], found[2], line, root)
    return events


def _events_of(call: str, arguments: str, line: str, root: Path) -> Iterator[Event]:
    strings = [bytes.fromhex(text.replace("\\x", "")) for text in QUOTED.findall(arguments)]
    place = DESCRIPTOR.match(arguments)
    folder = _plain(place[2]) if place else os.getcwd()

    def relative(path: bytes | str) -> str | None:
        whole = os.path.join(folder, os.fsdecode(path))
        return os.path.relpath(whole, root) if Path(whole).is_relative_to(root) else None

    kind = call.removesuffix("2").removesuffix("at")
    if kind == "open":
        kind = "create" if "O_CREAT" in arguments else ""
    elif kind == "unlink" and "AT_REMOVEDIR" in arguments:
        kind = "rmdir"
    name = relative("" if kind in ("write", "fsync") else strings[0])
    if not kind or name is None or (kind == "write" and not Path(folder).is_relative_to(root)):
        return
    if kind == "mkdir" and name.startswith("ack-"):
        yield ("ack", int(name.removeprefix("ack-")))
    elif kind == "write":
        yield (kind, name, strings[0][: int(line.rpartition("=")[2])])
    elif kind == "rename":
        yield (kind, name, relative(strings[1]))
    else:
        yield (kind, name)


def _plain(text: str) -> str:
    """A path as strace prints it with -xx."""
    return os.fsdecode(bytes.fromhex(text.replace("\\x", ""))) if text.startswith("\\x") else text


class File:
    """A file: what is written, and what of it a power loss cannot take."""

    def __init__(self, content: bytes = b"") -> None:
        self.live = self.durable = content

    def states(self) -> list[bytes]:
        """As last synced, half of what came since, zeros in its place, and all of it."""
        zeros = self.durable + bytes(len(self.live) - len(self.durable))
        half = self.live[: (len(self.durable) + len(self.live)) // 2]
        return list(dict.fromkeys([self.durable, half, zeros, self.live]))


class Folder:
    """A folder: its names, and the changes of names that are not yet durable."""

    def __init__(self) -> None:
        self.live: dict[str, File | Folder] = {}
        self.durable: dict[str, File | Folder] = {}
        self.pending: list[dict[str, File | Folder | None]] = []

    def change(self, names: dict[str, "File | Folder | None"]) -> None:
        """Change names at once: all of them survive, or none."""
        self.live = _changed(self.live, [names])
        self.pending.append(names)

    def sync(self) -> None:
        self.durable, self.pending = dict(self.live), []

    def states(self) -> Iterator[Tree]:
        """All trees that may be left: any of the pending changes, with any contents."""
        for kept in itertools.product([False, True], repeat=len(self.pending)):
            names = _changed(self.durable, list(itertools.compress(self.pending, kept)))
            choices = [list(child.states()) for child in names.values()]
            for contents in itertools.product(*choices):
                yield dict(zip(names, contents, strict=True))

    def any_state(self, rng: random.Random) -> Tree:
        """One of these trees, drawn at random."""
        names = _changed(self.durable, [c for c in self.pending if rng.random() < 0.5])
        return {
            name: child.any_state(rng) if isinstance(child, Folder) else rng.choice(child.states())
            for name, child in names.items()
        }


class Disk:
    """A folder on a disk under a strict reading of POSIX, which replays a trace.

    What is not synced is there, lost, half there or zeros. A name is durable when its folder was
    synced, and not because its file was; names that are not may survive in any combination. Only a
    rename is atomic.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.root = Folder() if path is None else _read(path)

    def replay(self, event: Event) -> None:
        kind, path, *rest = event
        if kind == "ack":
            return
        if kind == "fsync":
            found = self._find(path)
            if isinstance(found, Folder):
                found.sync()
            else:
                found.durable = found.live
            return
        if kind == "write":
            self._find(path).live += rest[0]
            return
        folder, name = self._find(os.path.dirname(path)), os.path.basename(path)
        if kind == "rename":
            target = self._find(os.path.dirname(rest[0]))
            moved = {name: None, os.path.basename(rest[0]): folder.live[name]}
            assert target is folder, "a rename between folders is not atomic here"
            folder.change(moved)
        elif kind in ("mkdir", "create"):
            folder.change({name: Folder() if kind == "mkdir" else File()})
        else:
            folder.change({name: None})

    def _find(self, path: str) -> Any:
        found: Any = self.root
        for part in Path(path).parts:
            found = found.live[part]
        return found


def write_tree(tree: Tree, path: Path) -> None:
    """Put a tree on the real disk."""
    path.mkdir(parents=True, exist_ok=True)
    for name, content in tree.items():
        if isinstance(content, dict):
            write_tree(content, path / name)
        else:
            (path / name).write_bytes(content)


def key_of(tree: Tree) -> int:
    """A number that two trees share if they are the same."""
    return hash(
        frozenset((n, key_of(c) if isinstance(c, dict) else hash(c)) for n, c in tree.items())
    )


def _changed(names: dict[str, Any], changes: list[dict[str, Any]]) -> dict[str, Any]:
    names = dict(names)
    for change in changes:
        names |= change
    return {name: child for name, child in names.items() if child is not None}


def _read(path: Path) -> Folder:
    folder = Folder()
    for child in sorted(path.iterdir()):
        folder.live[child.name] = _read(child) if child.is_dir() else File(child.read_bytes())
    folder.sync()
    return folder


@contextmanager
def _patched(functions: dict[str, Any]) -> Iterator[None]:
    before = {name: getattr(os, name) for name in functions}
    try:
        for name, function in functions.items():
            setattr(os, name, function)
        yield
    finally:
        for name, function in before.items():
            setattr(os, name, function)
