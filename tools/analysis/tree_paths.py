"""Judge whether a file that a notebook names is in the tree, or may come into it."""

import os
import posixpath
import re
from urllib.parse import unquote, urlsplit

from tools.analysis.path_literals import FileTraffic, PathUse
from tools.analysis.repository_urls import own_slug
from tools.rules import Subject

PLAIN_PATH = re.compile(r"[\w.][\w./ -]*")
# What a person writes: it is in the tree, or it is nowhere.
KEPT = (
    ".py", ".ipynb", ".md", ".rst", ".txt", ".json", ".jsonl", ".yaml", ".yml", ".toml", ".cfg",
    ".ini", ".csv", ".tsv", ".sh", ".html",
)  # fmt: skip
# What a program makes as often as not; it counts only in a folder of the tree.
MADE = (".png", ".jpg", ".jpeg", ".svg", ".pt", ".pth", ".npy", ".npz", ".pkl", ".parquet")


def is_missing(subject: Subject, use: PathUse, traffic: FileTraffic) -> bool:
    """Whether code names a file that is neither there nor made on the way."""
    path = use.path
    suffix = posixpath.splitext(path)[1].lower()
    if traffic.moves or not PLAIN_PATH.fullmatch(path) or path != path.strip() or "//" in path:
        return False
    head, slash, _ = path.partition("/")
    is_below = bool(slash) and head not in (".", "..") and stands(subject, head)
    is_expected = {
        "import": not suffix,
        "read": suffix in KEPT or (suffix in MADE and is_below),
        "name": suffix in KEPT and is_below,
    }[use.kind]
    if not is_expected or (traffic.unpacks and not is_below):
        return False
    return not (may_come(subject, path, traffic) or stands(subject, path))


def linked_file(target: str) -> str:
    """The file beside the notebook that a link names; empty if it names anything else."""
    try:
        parts = urlsplit(target.strip())
    except ValueError:
        return ""
    # Jupyter's server delivers any file under `files/`.
    path = unquote(parts.path).removeprefix("files/")
    if parts.scheme or parts.netloc or not PLAIN_PATH.fullmatch(path):
        return ""
    return path if "/" in path or posixpath.splitext(path)[1] else ""


def may_come(subject: Subject, path: str, traffic: FileTraffic) -> bool:
    """Whether the notebook itself may bring a file about."""
    folders = [posixpath.normpath(path)]
    while posixpath.dirname(folders[-1]) not in ("", folders[-1]):
        folders.append(posixpath.dirname(folders[-1]))
    made = traffic.touched - {_own_name(subject), ".", ".."}
    made |= {posixpath.normpath(subject.settings.output_dir or "runs"), "content"}
    if not stands(subject, folders[-1]):
        # A folder that is not in the tree, and in which something is made, is made too.
        made |= {other.partition("/")[0] for other in traffic.touched if "/" in other}
    return not made.isdisjoint(folders)


def stands(subject: Subject, path: str) -> bool:
    """Whether a path is in the tree, or leads out of it, where nothing can be known."""
    root = os.path.abspath(subject.root)
    beside = os.path.dirname(os.path.abspath(subject.notebook.path))
    # A clone of the repository holds the same files one folder deeper.
    for part in {path, path.removeprefix(f"{_own_name(subject)}/")}:
        if os.path.exists(os.path.join(beside, part)) or os.path.exists(os.path.join(root, part)):
            return True
    return not os.path.normpath(os.path.join(root, path)).startswith(root)


def _own_name(subject: Subject) -> str:
    return own_slug(subject.settings.repository).partition("/")[2] or "/"
