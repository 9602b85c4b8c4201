"""The outline of a notebook: what is generated into it, read from a TOML file and checked whole."""

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tools.errors import SettingsError

Widget = Literal["string", "integer", "number", "boolean", "slider", "date", "raw"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class FormField(_Part):
    """One line of the cell of parameters; what is left out comes from the schema."""

    name: str
    default: Any = None
    options: list[Any] | None = None
    options_from: str = ""
    """`module:object`, a mapping or list whose items are the options."""
    widget: Widget | None = None
    help: str = ""


class FormSection(_Part):
    """Lines of the form under one heading."""

    fields: list[FormField]
    text: str = ""
    """Markdown above the fields."""
    unset: bool = False
    """Whether the defaults are `None`, so that something else decides."""


class Form(_Part):
    """The cell of parameters."""

    cell: str
    title: str
    sections: list[FormSection]


class OutlineCell(_Part):
    """What one cell must carry, and how it is known when its id was lost."""

    starts: str
    """How its source begins."""
    tags: list[str] = []
    cellView: Literal["form", "both", "code", ""] = ""
    badge: bool = False
    """Whether it holds the badge that opens the notebook in Colab."""
    repository: str = ""
    """The name to which its code assigns the URL of the repository."""
    ref: str = ""
    """The name to which its code assigns the pinned ref."""


class Document(_Part):
    """A text file beside the notebook that repeats what the schema says."""

    file: str
    badge: bool = False
    table: Literal["", "parameters", "settings", "rules"] = ""


class Outline(_Part):
    """Everything that `sync` writes for one notebook."""

    metadata: dict[str, Any] = {}
    cells: dict[str, OutlineCell] = {}
    parameters: Form | None = None
    documents: list[Document] = []


def read_outline(path: Path) -> Outline:
    """Read an outline.

    Raises: SettingsError, naming all faults at once.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"The outline {path} cannot be read ({error.strerror}), but [tool.notebooks.outlines] "
            "names it. Give the path of a TOML file."
        ) from error
    except ValueError as error:
        raise SettingsError(
            f"{path} is not TOML ({error}), but an outline is. Correct it."
        ) from error
    try:
        outline = Outline.model_validate(content)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, item['loc']))} in {path} is wrong ({item['msg']}). Correct it."
            for item in error.errors()
        ]
        raise SettingsError("\n".join(faults)) from error
    form = outline.parameters
    if form and form.cell not in outline.cells:
        raise SettingsError(
            f"The form's cell in {path} is {form.cell!r}, but [cells] has no such id. Add it there."
        )
    return outline
