"""Lanes: other environments than ours for the kernel, to see what a notebook does there.

`colab-stub` puts a recording stand-in for `google.colab` before all packages. A lane of the
settings runs in a virtual environment of its own, with its own pins:

    [tool.notebooks.lanes.colab-like]
    folder = ".venv-colab"
    requirements = ["requirements.txt"]
    constraints = "constraints-colab.txt"
    environment = { COLAB_RELEASE_TAG = "release-colab-like" }

Paths are relative to the settings' root. The runner itself stays in its own environment.
"""

import difflib
import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools.errors import SettingsError

if TYPE_CHECKING:
    from tools.settings import Settings

STUB = "colab-stub"
STUB_FOLDER = Path(__file__).resolve().parents[1] / "colab_stub"
STUB_ENVIRONMENT = {"COLAB_RELEASE_TAG": "release-colab-stub"}
STAMP = ".pins"
KINDS = {"folder": str, "requirements": list, "constraints": str, "environment": dict}


@dataclass(frozen=True)
class Lane:
    """Where a kernel runs."""

    python: str = ""
    """Its interpreter; empty for the one that runs us."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that are set for it."""


def lane_faults(table: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with `[tool.notebooks.lanes]`, one message for each fault."""
    for lane, values in table.items():
        if not isinstance(values, dict) or not values.get("folder"):
            yield (
                f"lanes.{lane} in [tool.notebooks] is {values!r}, but a table with a folder for "
                "its virtual environment is wanted. Correct pyproject.toml."
            )
            continue
        for key, value in values.items():
            if key not in KINDS:
                yield (
                    f"lanes.{lane}.{key} in [tool.notebooks] is not a key of a lane. "
                    f"Known: {', '.join(KINDS)}. Correct pyproject.toml."
                )
            elif not isinstance(value, KINDS[key]):
                yield (
                    f"lanes.{lane}.{key} in [tool.notebooks] is {value!r}, but a "
                    f"{KINDS[key].__name__} is wanted. Correct pyproject.toml."
                )


def find_lane(names: Sequence[str], python: str | None, settings: "Settings") -> Lane:
    """All lanes of these names as one; a given interpreter goes before theirs.

    Raises: SettingsError if a lane is unknown or its environment has not been created.
    """
    environment: dict[str, str] = {}
    for name in names:
        if name == STUB:
            environment |= {**STUB_ENVIRONMENT, "PYTHONPATH": _stub_path()}
            continue
        table = _table(name, settings)
        environment |= {k: str(v) for k, v in table.get("environment", {}).items()}
        if python is None:
            python = str(_interpreter(settings.root / table["folder"]))
            if not Path(python).exists():
                raise SettingsError(
                    f"The environment of lane {name} is not at {table['folder']}. "
                    f"Run: python -m tools lane {name} --create"
                )
    if python is not None and not Path(python).exists():
        raise SettingsError(
            f"{python} is not there, but the interpreter of the kernel is wanted. "
            "Give --kernel-python the path of a python that has ipykernel."
        )
    return Lane(python or "", environment)


def create_lane(
    name: str,
    settings: "Settings",
    *,
    python: str,
    folder: Path | None = None,
    progress: Callable[[str], None],
) -> Path:
    """Create a lane's virtual environment, unless one with the same pins is there; its python.

    Raises: SettingsError if the lane is unknown or pip cannot install what it names.
    """
    table = _table(name, settings)
    target = folder or settings.root / table["folder"]
    files = [settings.root / path for path in table.get("requirements", [])]
    constraints = [settings.root / path for path in [table.get("constraints")] if path]
    for path in [*files, *constraints]:
        if not path.is_file():
            raise SettingsError(f"Lane {name} names {path}, which is not there. Correct its path.")
    stamp, wanted = target / STAMP, _digest(python, [*files, *constraints])
    interpreter = _interpreter(target)
    if stamp.is_file() and stamp.read_text() == wanted:
        return interpreter
    progress(f"Setting up {target}: some minutes.")
    install = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for path in files:
        install += ["-r", str(path)]
    for path in constraints:
        install += ["-c", str(path)]
    _call([python, "-m", "venv", "--clear", str(target)])
    _call(install)
    stamp.write_text(wanted)
    return interpreter


def _table(name: str, settings: "Settings") -> dict[str, Any]:
    if name in settings.lanes:
        return settings.lanes[name]
    known = [STUB, *settings.lanes]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]}?" if near and near[0] != name else ""
    raise SettingsError(
        f"{name} is not a lane of [tool.notebooks.lanes].{hint} Known: {', '.join(known)}."
    )


def _stub_path() -> str:
    """The search path with the stand-in before everything else."""
    return os.pathsep.join(filter(None, [str(STUB_FOLDER), os.environ.get("PYTHONPATH")]))


def _interpreter(folder: Path) -> Path:
    return folder / "bin" / "python"


def _digest(python: str, files: Sequence[Path]) -> str:
    """A name for what an environment is made of."""
    content = b"\0".join([python.encode(), *(path.read_bytes() for path in files)])
    return hashlib.sha256(content).hexdigest()


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SettingsError(
            f"{' '.join(command)} failed with exit code {done.returncode}:\n"
            f"{done.stderr.strip()}\nCorrect the pins, or choose another --python."
        )
