"""Install cells: what they must not move, what they must name, and when they may run."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

from tools.analysis.scopes import own_nodes, parents
from tools.analysis.shell_calls import UNKNOWN, Command, shell_commands
from tools.program import Program
from tools.rules import Problem, Severity, Subject, rule

TORCH = {"torch", "torchvision", "torchaudio", "triton", "xformers", "vllm"}
KERNEL = {"ipykernel", "ipython", "ipywidgets", "tornado", "pyzmq", "jupyter-client", "traitlets"}
HEAVY = TORCH | KERNEL | {"numpy", "prompt-toolkit", "google-colab"}
"""What a runtime brings along and an install must leave where it is."""
MODULES = {
    "scikit-learn": "sklearn", "pillow": "PIL", "opencv-python": "cv2", "pyyaml": "yaml",
    "beautifulsoup4": "bs4", "python-dateutil": "dateutil", "ipython": "IPython",
    "pytorch-lightning": "pytorch_lightning", "opencv-python-headless": "cv2",
}  # fmt: skip
"""The module of a distribution, where the names differ by more than a hyphen."""
WITH_VALUE = {
    "-c", "--constraint", "-r", "--requirement", "-i", "--index-url", "--extra-index-url", "-f",
    "--find-links", "-t", "--target", "--upgrade-strategy", "--prefix", "--root", "--progress-bar",
    "--python", "--only-binary", "--no-binary", "--config-settings", "--trusted-host", "--timeout",
}  # fmt: skip
MOVING = {"main", "master", "dev", "develop", "trunk", "HEAD", "nightly", "latest"}
PINS = ("==", "<", "~=", "!=")


@dataclass(frozen=True)
class Install:
    """One `pip install`, taken apart."""

    command: Command
    requirements: tuple[str, ...] = ()
    options: frozenset[str] = frozenset()
    values: dict[str, str] = field(default_factory=dict)

    @property
    def is_upgrade(self) -> bool:
        """Whether it replaces what is installed by what is newest."""
        return not self.options.isdisjoint({"-U", "--upgrade"})

    @property
    def is_constrained(self) -> bool:
        """Whether a constraint file holds the heavy packages."""
        return not self.values.keys().isdisjoint({"-c", "--constraint"})

    @property
    def is_alone(self) -> bool:
        """Whether dependencies are left alone."""
        return "--no-deps" in self.options


@rule("EX402")
def install_cells(subject: Subject) -> Iterator[Problem]:
    """Install cells leave the runtime's packages alone and name what they fetch by a fixed ref."""
    commands = shell_commands(subject.program)
    earlier: set[str] = set()
    for command in commands:
        install = read_install(command)
        if install is not None:
            yield from _moves(install)
            yield from _unpinned(install, subject.settings.repository)
            yield from _too_late(install, subject.program, earlier)
            earlier.update(map(project_of, install.requirements))
            if command.is_background and not command.is_shell_line:
                yield _problem(
                    command,
                    "This install goes on in the background while later cells import.",
                    "Drop the `&`.",
                )
        elif command.words[:2] == ("git", "clone"):
            yield from _clone(command, commands, subject.settings.repository)


def read_install(command: Command) -> Install | None:
    """Take a `pip install` apart; None for any other command."""
    words = list(command.words)
    while words and (words[0] == "sudo" or "=" in words[0]):
        words.pop(0)
    at = words.index("install") if "install" in words[:6] else 0
    if at == 0 or not _is_pip(words[:at]):
        return None
    return _taken_apart(command, words[at + 1 :])


def _is_pip(words: list[str]) -> bool:
    """Whether a command begins with `pip`, `python -m pip` or `uv pip`."""
    program = words[0].rpartition("/")[2]
    if program.startswith(("python", "{")):
        return words[1:3] == ["-m", "pip"]
    return program.startswith("pip") or words[:2] == ["uv", "pip"]


def _taken_apart(command: Command, words: list[str]) -> Install:
    requirements: list[str] = []
    options: set[str] = set()
    values: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if not word.startswith("-"):
            requirements.append(word)
        elif name in WITH_VALUE:
            values[name] = value if equals else next(rest, "")
        elif word.startswith("--"):
            options.add(name)
        else:
            options.update(f"-{letter}" for letter in word[1:])
    return Install(command, tuple(requirements), frozenset(options), values)


def project_of(requirement: str) -> str:
    """The normalised project of a requirement, also of a repository's URL."""
    text = requirement.partition("#egg=")[2] or requirement
    if "://" in text and " @ " not in text:
        text = _without_ref(text).rstrip("/").rpartition("/")[2].removesuffix(".git")
    name = "".join(c if c.isalnum() or c in "-_." else " " for c in text).split(" ")[0]
    return name.lower().replace("_", "-").replace(".", "-").strip("-")


def _without_ref(url: str) -> str:
    head, _, path = url.partition("://")
    return f"{head}://{path.partition('@')[0] if path.count('@') == 1 else path}"


def _moves(install: Install) -> Iterator[Problem]:
    """Heavy packages named, everything reinstalled, or dependencies upgraded eagerly."""
    command = install.command
    is_forced = not install.options.isdisjoint({"--force-reinstall", "-I", "--ignore-installed"})
    if is_forced and not install.is_alone:
        yield _problem(
            command,
            "This install replaces every dependency, torch and numpy with them.",
            "Drop --force-reinstall, or add --no-deps.",
        )
    if install.values.get("--upgrade-strategy") == "eager":
        yield _problem(
            command,
            "This install upgrades every dependency, torch and numpy with them.",
            "Drop --upgrade-strategy eager.",
        )
    if install.is_constrained:
        return
    for requirement in install.requirements:
        name = project_of(requirement)
        if name in HEAVY and "://" not in requirement:
            is_pinned = any(pin in requirement for pin in PINS)
            yield _problem(
                command,
                f"This install names {name}, which the runtime brings along: "
                f"{'it is moved' if is_pinned or install.is_upgrade else 'it may be moved'}.",
                f"Drop {name}, or hold it with a constraint file (-c) of what is installed.",
                severity=None if is_pinned or install.is_upgrade else "warning",
            )


def _unpinned(install: Install, repository: str) -> Iterator[Problem]:
    for requirement in install.requirements:
        if "git+" in requirement:
            ref = _ref_of(requirement)
            if not ref or ref in MOVING:
                got = f"the moving branch {ref}" if ref else "no tag or commit"
                yield _problem(
                    install.command,
                    f"`{requirement}` names {got}, so that the code changes from run to run.",
                    "Name a tag or commit: git+https://...@v1.0.",
                )
            if is_own(requirement, repository) and not install.is_alone:
                yield _problem(
                    install.command,
                    "This install of the own package brings its dependencies, which the runtime "
                    "has in other versions.",
                    "Add --no-deps.",
                    severity="warning",
                )
        elif any(f"/archive/{part}{branch}." in requirement
                 for part in ("", "refs/heads/") for branch in MOVING):  # fmt: skip
            yield _problem(
                install.command,
                f"`{requirement}` is the archive of a moving branch.",
                "Name the archive of a tag or commit.",
            )


def _ref_of(requirement: str) -> str:
    """What stands behind the `@` of a repository's URL."""
    path = requirement.partition("git+")[2].partition("://")[2].partition("#")[0]
    return path.partition("/")[2].rpartition("@")[2] if "@" in path.partition("/")[2] else ""


def is_own(url: str, repository: str) -> bool:
    """Whether a URL is of the project's own repository."""
    slug = repository.partition("://")[2].removesuffix(".git").rstrip("/").lower()
    return bool(slug) and slug in url.lower()


def _too_late(install: Install, program: Program, earlier: set[str]) -> Iterator[Problem]:
    """An install of what an earlier line has imported: the kernel goes on with the old one."""
    if install.command.is_conditional:
        return
    imported = _imported_before(install.command, program)
    for requirement in install.requirements:
        name = project_of(requirement)
        module = MODULES.get(name, name.replace("-", "_"))
        is_pinned = any(pin in requirement for pin in PINS)
        is_moved = is_pinned or install.is_upgrade or "://" in requirement
        has_torch = name in TORCH and is_pinned and "torch" in imported
        if has_torch or (module in imported and (is_moved or name not in earlier)):
            module = module if module in imported else "torch"
            yield _problem(
                install.command,
                f"{name} is installed after {module} was imported; the kernel keeps what it has.",
                "Move the install above the first import.",
            )


def _imported_before(command: Command, program: Program) -> set[str]:
    """The top-level modules that surely were imported before a command."""
    found: set[str] = set()
    for code in program.cells:
        if code.tree is None or code.index > command.cell:
            continue
        above = parents(code.tree)
        for node in own_nodes(code.tree):
            if code.index == command.cell and getattr(node, "lineno", 0) >= command.line:
                continue
            if isinstance(above.get(node), ast.Module):
                if isinstance(node, ast.Import):
                    found.update(alias.name.split(".")[0] for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                    found.add(node.module.split(".")[0])
    return found


def _clone(command: Command, commands: list[Command], repository: str) -> Iterator[Problem]:
    """A clone without a ref, unless a checkout follows in the same cell."""
    words = command.words
    has_ref = any(w.partition("=")[0] in ("-b", "--branch", "--revision") for w in words)
    follows = [other for other in commands if other.cell == command.cell]
    verbs = ("checkout", "reset", "switch")
    if (
        has_ref
        or UNKNOWN in words
        or any(o.words[0] == "git" and set(verbs) & set(o.words) for o in follows)
    ):
        return
    url = next((word for word in words[2:] if "://" in word or "@" in word), words[-1])
    what = "the own repository" if is_own(url, repository) else f"`{url}`"
    yield _problem(
        command,
        f"This clones {what} at whatever its branch is today.",
        "Name a tag: git clone --branch v1.0.",
        severity="warning",
    )


def _problem(
    command: Command, message: str, cure: str, severity: Severity | None = None
) -> Problem:
    return Problem(message, cure, command.cell, command.line, severity)
