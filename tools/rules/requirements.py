"""Rules of requirements: what a notebook imports must come with the project or be installed."""

import ast
import shlex
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tools.program import CodeCell
from tools.rules import Problem, Subject, rule

GIVEN = {"IPython", "ipykernel", "google", "pip", "setuptools"}
"""Packages that Colab or any kernel brings."""
DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-python",
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
    "yaml": "pyyaml",
    "bs4": "beautifulsoup4",
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
}
"""Where the name that is imported is not the name that is installed."""


@rule("EX410")
def imports_come_with_a_requirement(subject: Subject) -> Iterator[Problem]:
    """An imported package is required by the project or installed by the notebook."""
    declared = declared_requirements(subject.root)
    if not declared:
        return
    known = declared | {_normal(name) for cell in subject.program.cells for name in installed(cell)}
    seen: set[str] = set()
    for cell in subject.program.cells:
        for name, line in plain_imports(cell):
            if name in seen or is_given(name, subject.root) or _is_required(name, known):
                continue
            seen.add(name)
            yield Problem(
                f"{name} is imported, but no requirement of the project brings it and no cell "
                "installs it.",
                "Add it to the requirements, install it in a cell above, or import it in a try.",
                cell.index,
                line,
            )


def declared_requirements(root: Path) -> set[str]:
    """Normal names of what pyproject.toml and requirements*.txt of a tree ask for."""
    names: set[str] = set()
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text("utf-8")).get("project", {})
        lines = list(project.get("dependencies", []))
        for extra in project.get("optional-dependencies", {}).values():
            lines += extra
    except (OSError, ValueError, AttributeError, TypeError):
        lines = []
    for path in sorted(root.glob("requirements*.txt")):
        lines += path.read_text("utf-8", errors="replace").splitlines()
    for line in lines:
        name = _requirement_name(line)
        if name:
            names.add(_normal(name))
    return names


def plain_imports(cell: CodeCell) -> Iterator[tuple[str, int]]:
    """Top-level names of the absolute imports that are not within a `try`, with their lines."""
    if cell.tree is None:
        return
    pending: list[ast.AST] = [cell.tree]
    while pending:
        node = pending.pop(0)
        if isinstance(node, ast.Try):
            pending[:0] = [*node.orelse, *node.finalbody]
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0], node.lineno
        pending[:0] = ast.iter_child_nodes(node)


def installed(cell: CodeCell) -> Iterator[str]:
    """Names of the distributions that pip installs in a cell."""
    for magic in cell.magics:
        text = magic.text.replace("\\\n", " ").lstrip("%! ")
        words = _words(text)
        if "install" in words and any(
            word.startswith(("pip", "uv", "conda")) for word in words[:4]
        ):
            yield from _install_names(words[words.index("install") + 1 :])
    for node in ast.walk(cell.tree) if cell.tree else ():
        if isinstance(node, ast.List | ast.Tuple):
            words = [n.value for n in node.elts if isinstance(n, ast.Constant)]
            words = [word for word in words if isinstance(word, str)]
            if "pip" in words and "install" in words:
                yield from _install_names(words[words.index("install") + 1 :])


def _install_names(words: list[str]) -> Iterator[str]:
    for word in words:
        if word in (";", "&&", "|", "#"):
            return
        name = _requirement_name(word) if not word.startswith("-") else ""
        if name:
            yield name


def _requirement_name(line: str) -> str:
    """The distribution a line asks for; of a URL, its last part; empty if it asks for none."""
    from packaging.requirements import InvalidRequirement, Requirement

    text = line.partition(" #")[0].strip()
    if not text or text.startswith(("#", "-")):
        return ""
    if "://" in text and " @ " not in text:
        name = text.partition("#egg=")[2] or text.partition("@v")[0].rstrip("/").rpartition("/")[2]
        return name.partition("@")[0].removesuffix(".git").partition("-")[0]
    try:
        return Requirement(text).name
    except InvalidRequirement:
        return ""


def is_given(name: str, root: Path) -> bool:
    """Whether an import needs no requirement: the standard library, the tree, or the kernel."""
    if name in sys.stdlib_module_names or name in GIVEN:
        return True
    return (root / name).is_dir() or (root / f"{name}.py").is_file()


def _is_required(name: str, known: set[str]) -> bool:
    candidates = {_normal(name), _normal(DISTRIBUTIONS.get(name, name))}
    if candidates & known:
        return True
    candidates |= {_normal(other) for other in _distributions().get(name, [])}
    return bool(candidates & _with_their_requirements(frozenset(known)))


@cache
def _distributions() -> dict[str, list[str]]:
    from importlib.metadata import packages_distributions

    return dict(packages_distributions())


@cache
def _with_their_requirements(names: frozenset[str]) -> frozenset[str]:
    """The names with everything that those installed here ask for, extras left out."""
    from importlib.metadata import PackageNotFoundError, requires

    found, pending = set(), list(names)
    while pending:
        name = pending.pop()
        if name in found:
            continue
        found.add(name)
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue
        pending += [_normal(_requirement_name(line)) for line in lines if "extra ==" not in line]
    return frozenset(found)


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()
