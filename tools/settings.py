"""Read `[tool.notebooks]` of the nearest pyproject.toml: all that the tools know of a project."""

import difflib
import importlib
import os
import sys
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from tools.errors import SettingsError
from tools.running.expectations import expectation_faults
from tools.running.lanes import lane_faults
from tools.running.limits import limit_faults


@dataclass(frozen=True)
class Settings:
    """What the tools must know about the notebooks of a project."""

    root: Path
    """The folder that paths are relative to."""
    paths: tuple[str, ...] = ()
    """The notebooks of the project."""
    ref: str = ""
    """Branch, tag or commit that the notebooks' links point to."""
    output_dir: str = "runs"
    """Where executed notebooks go, relative to the working folder."""
    schema: str = ""
    """`module:object` whose `model_json_schema()` describes parameters."""
    summary_mime: str = ""
    """MIME type of the output by which a notebook tells of its run."""
    smoke: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Parameters of a smoke run, by notebook."""
    workflows: dict[str, dict[str, dict[str, list[str]]]] = field(default_factory=dict)
    """By notebook and name: `skip` or `only`, lists of ids or tags of cells."""
    limits: dict[str, Any] = field(default_factory=dict)
    """Of a run: `cell_s`, `total_s`, `memory_mib`, and `tags`, a table of tag to seconds."""
    expect: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the summary of a smoke run must say, by notebook; see tools/running/expectations.py."""
    lanes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Environments to run in, by name; see tools/running/lanes.py."""
    outlines: dict[str, str] = field(default_factory=dict)
    """The outline file that `sync` generates from, by notebook."""
    training_calls: tuple[str, ...] = ("train", "fit", "run_search")
    """Names of functions and methods that train, for `stats`."""
    migrations: str = ""
    """The package of migrations, for example `tools.migrations`."""
    legacy: tuple[str, ...] = ()
    """Top-level modules that `migrations` replaces."""
    ignore: tuple[str, ...] = ()
    """Codes of rules that `validate` leaves out."""
    baseline: str = ""
    """The file of known findings, relative to the root."""
    repository: str = ""
    """URL of the repository; from `[project.urls]`."""

    def name_of(self, notebook: Path) -> str:
        """The name by which the settings know a notebook: its path from the root."""
        return Path(os.path.relpath(notebook.resolve(), self.root)).as_posix()

    def smoke_parameters(self, notebook: Path) -> dict[str, Any]:
        """Parameters of a notebook's smoke run.

        Raises: SettingsError if it has none, since a smoke run at full size is a mistake.
        """
        name = self.name_of(notebook)
        if name not in self.smoke:
            raise SettingsError(
                f"{name} has no smoke parameters. "
                f'Add a line "{name}" = {{...}} to [tool.notebooks.smoke] in pyproject.toml.'
            )
        return dict(self.smoke[name])

    def load_schema(self) -> dict[str, Any]:
        """The JSON schema that `schema` names, or an empty one.

        Raises: SettingsError if it cannot be imported.
        """
        if not self.schema:
            return {}
        module, _, name = self.schema.partition(":")
        if str(self.root) not in sys.path:
            sys.path.insert(0, str(self.root))
        try:
            return getattr(importlib.import_module(module), name).model_json_schema()
        except UNLOADABLE as error:
            raise SettingsError(
                f"schema is {self.schema!r}, but it cannot be loaded ({error}). "
                "Name a pydantic model as module:object in [tool.notebooks]."
            ) from error


UNLOADABLE = (ImportError, AttributeError, ValueError, TypeError, NameError, SyntaxError)
KINDS = {
    "paths": list,
    "smoke": dict,
    "workflows": dict,
    "limits": dict,
    "expect": dict,
    "lanes": dict,
    "outlines": dict,
    "legacy": list,
    "training_calls": list,
    "ignore": list,
}
DERIVED = ("root", "repository")


def load_settings(start: Path | None = None) -> Settings:
    """Read the settings from the nearest pyproject.toml at or above `start`; without one, defaults.

    Raises: SettingsError, naming all faults at once.
    """
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "pyproject.toml").is_file():
            return _read(folder)
    return Settings(root=start)


def _read(root: Path) -> Settings:
    path = root / "pyproject.toml"
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SettingsError(f"{path} is not TOML ({error}). Correct it.") from error
    table = content.get("tool", {}).get("notebooks", {})
    faults = list(_faults(table)) or [
        *limit_faults(table.get("limits", {})),
        *expectation_faults(table.get("expect", {})),
        *lane_faults(table.get("lanes", {})),
    ]
    if faults:
        raise SettingsError("\n".join(faults))
    lists = {name: tuple(value) for name, value in table.items() if isinstance(value, list)}
    urls = content.get("project", {}).get("urls", {})
    repository = next((url for name, url in urls.items() if name.lower() == "repository"), "")
    return Settings(root=root, repository=repository, **{**table, **lists})


def _faults(table: dict[str, Any]):
    known = [f.name for f in fields(Settings) if f.name not in DERIVED]
    for name, value in table.items():
        wanted = KINDS.get(name, str)
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]}?" if near else ""
            yield f"{name} is not a key of [tool.notebooks].{hint} Known: {', '.join(known)}."
        elif not isinstance(value, wanted):
            yield (
                f"{name} in [tool.notebooks] is {value!r}, but a {wanted.__name__} is wanted. "
                "Correct pyproject.toml."
            )
