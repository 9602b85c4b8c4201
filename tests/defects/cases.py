"""The form of a case, and the small tree in which all cases lie."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Content = dict[str, Any]
Edit = Callable[[Content], object]


@dataclass(frozen=True)
class Case:
    """A notebook of a few cells, and what a static check must say about it."""

    kind: str
    """The class of defects it belongs to, or of things that look like one."""
    name: str
    cells: tuple[str, ...]
    """Sources in order; one that begins with `md:` is Markdown."""
    codes: frozenset[str] = frozenset()
    """Any one of these must be reported; empty if nothing may be."""
    cell: int | None = None
    """Index into `cells`; None for the file, or for a file of the package."""
    edit: Edit = field(default=lambda content: None, repr=False)
    """Spoil the notebook's JSON."""
    workflow: dict[str, list[str]] = field(default_factory=dict)
    file: str = ""
    """The file of the package that is to blame, instead of the notebook."""
    raw: Callable[[str], bytes] = field(default=lambda text: text.encode(), repr=False)
    """Spoil the file's text."""

    @property
    def place(self) -> int | None:
        """Index in the notebook, whose first cell is a title unless the case has one."""
        return None if self.cell is None else self.cell + (not self.has_title)

    @property
    def has_title(self) -> bool:
        """Whether the case's own cells begin with a title."""
        return self.cells[0].startswith("md:# ")

    @property
    def file_name(self) -> str:
        """A name for the notebook of this case."""
        words = "".join(c if c.isalnum() else " " for c in f"{self.kind} {self.name}").split()
        return "-".join(words).lower() + ".ipynb"


def defect(kind: str, name: str, cells: str | list[str], codes: str, cell: int | None, **extra):
    """A case in which one of `codes` must be seen at a cell."""
    cells = [cells] if isinstance(cells, str) else cells
    return Case(kind, name, tuple(cells), frozenset(codes.split()), cell, **extra)


def lookalike(kind: str, name: str, *cells: str, **extra):
    """A case in which nothing may be flagged."""
    return Case(kind, name, cells, **extra)


def content_of(case: Case) -> Content:
    """The notebook's JSON, with the case's edit; a title comes first."""
    cells: list[Content] = []
    for i, source in enumerate(case.cells):
        is_text = source.startswith("md:")
        text = source.removeprefix("md:")
        cell: Content = {
            "id": f"cell-{i}",
            "cell_type": "markdown" if is_text else "code",
            "metadata": {},
            "source": text.splitlines(keepends=True),
        }
        cells.append(cell if is_text else cell | {"execution_count": None, "outputs": []})
    content = {"cells": cells, "metadata": copy.deepcopy(METADATA), "nbformat": 4}
    content["nbformat_minor"] = 5
    case.edit(content)
    if not case.has_title:
        content["cells"].insert(0, dict(TITLE))
    return content


METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}

TITLE = {"id": "title", "cell_type": "markdown", "metadata": {}, "source": ["# A notebook"]}

# The tree against which imports and paths resolve.
TREE = {
    "pyproject.toml": """
[project]
name = "lab"
version = "1"
dependencies = ["numpy", "pandas", "torch", "ipywidgets", "matplotlib"]
[project.urls]
Repository = "https://github.com/lab-team/lab"
[tool.notebooks]
ref = "v1"
""",
    "data/small.txt": "text",
    "lab/__init__.py": '''"""A laboratory."""
from lab.core import Builder, Config, Trainer, describe, fit
from lab.results import Summary
''',
    "lab/core.py": '''"""Training."""
from dataclasses import dataclass
from typing import TypedDict

from lab.results import Summary


@dataclass
class Config:
    steps: int = 1
    rate: float = 0.1

    def to_dict(self) -> dict[str, float]:
        return {"steps": self.steps, "rate": self.rate}


class Builder:
    def with_steps(self, steps: int) -> "Builder":
        return self

    def build(self) -> Config:
        return Config()


class Options(TypedDict):
    name: str
    size: int


class Trainer:
    def __init__(self, model: object, config: Config) -> None:
        self.model = model
        self.config = config

    def train(self, data: list[int], epochs: int = 1) -> Summary:
        return fit(self.model, epochs=epochs)


def fit(model: object, *, epochs: int = 1, rate: float = 0.1) -> Summary:
    return {"final_loss": 0.0, "metrics": []}


def describe(options: Options) -> str:
    return options["name"]
''',
    "lab/results.py": '''"""Results."""
from typing import TypedDict


class Summary(TypedDict):
    final_loss: float
    metrics: list[float]
''',
    "lab/dynamic.py": '''"""Names made on demand."""


def __getattr__(name: str) -> object:
    return name
''',
    "lab/external.py": '''"""A class whose base is not installed here."""
from not_installed_here import Module


class Network(Module):
    def forward(self, x):
        return self.scale(x)
''',
    "lab_undefined/__init__.py": '''"""A package with an undefined name."""


def run():
    return missing_name + 1
''',
    "lab_lost/__init__.py": '''"""A package that imports a module which was deleted."""
from lab_lost.gone import thing
''',
}
