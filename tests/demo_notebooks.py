"""A small project with a notebook of given cells, for the tests of runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[1]
MIME = "application/vnd.demo.run+json"
PYPROJECT = f"""\
[tool.notebooks]
paths = ["demo.ipynb"]
output_dir = "out"
schema = "demo_schema_of_tools:Demo"
summary_mime = "{MIME}"

[tool.notebooks.smoke]
"demo.ipynb" = {{ steps = 1 }}
"""
SCHEMA = """\
from pydantic import BaseModel, Field

class Demo(BaseModel):
    steps: int = Field(5, ge=1, description="Length of the run.")
"""
PARAMETERS = 'steps = None\nname = "a"\nsizes = [1]\nlater = None  # @param {type:"number"}'
SUMMARIZE = f"""\
import json
from pathlib import Path
folder = Path("out") / "demo-1"
folder.mkdir(parents=True, exist_ok=True)
summary = {{"run_id": "demo-1", "status": STATUS, "val_loss": 2.91312, "val_bits_per_byte": 1.5321,
            "elapsed_s": 97.2, "steps": 3}}
(folder / "summary.json").write_text(json.dumps(summary))
told = {{"run_id": "demo-1", "status": STATUS, "run_dir": str(folder),
         "summary_path": str(folder / "summary.json")}}
display({{"{MIME}": told}}, raw=True)
"""


def make_project(folder, monkeypatch, more=""):
    """A project with settings and a schema in a folder, which becomes the working folder."""
    (folder / "pyproject.toml").write_text(PYPROJECT + more)
    (folder / "demo_schema_of_tools.py").write_text(SCHEMA)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "demo_schema_of_tools", raising=False)
    monkeypatch.chdir(folder)
    return folder


def write_demo(folder, *sources, name="demo.ipynb", parameters=None, tags=()):
    """A notebook of a heading, maybe parameters, and code cells with the ids c1, c2, ...

    `tags` holds those of the cells, in order, as lists.
    """
    cells = [new_markdown_cell("# Demo", id="heading")]
    if parameters is not None:
        cell = new_code_cell(parameters, id="parameters")
        cell.metadata["tags"] = ["parameters"]
        cells.append(cell)
    own = [new_code_cell(source, id=f"c{i}") for i, source in enumerate(sources, 1)]
    for cell, names in zip(own, tags, strict=False):
        cell.metadata["tags"] = list(names)
    nbformat.write(new_notebook(cells=cells + own), folder / name)
    return folder / name


def outputs_of(report):
    """All that the executed notebook printed."""
    executed = nbformat.read(report.notebook_path, as_version=4)
    return "".join(o.get("text", "") for c in executed.cells for o in c.get("outputs", []))


def command_line(*arguments, **options):
    """`python -m tools` with arguments, started in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    command = [sys.executable, "-m", "tools", *arguments]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, **streams, **options)


def runs_of(path):
    """The runs of a report in JSON, which has no number that JSON does not know."""

    def refuse(name):
        raise ValueError(f"{name} is not JSON")

    return json.loads(Path(path).read_text(), parse_constant=refuse)["runs"]
