"""Defects of the file and of its cells' form."""

from tests.defects.cases import Content, defect


def _source(index: int, items):
    def edit(content: Content) -> None:
        content["cells"][index]["source"] = items

    return edit


def _cell(index: int, **values):
    def edit(content: Content) -> None:
        for key, value in values.items():
            if value is None:
                content["cells"][index].pop(key, None)
            else:
                content["cells"][index][key] = value

    return edit


def _top(**values):
    return lambda content: content.update(values)


def _metadata(index: int, **values):
    return lambda content: content["cells"][index]["metadata"].update(values)


NEWLINES = "lost newlines"
FORMAT = "invalid nbformat"
FRAME = "frame of the notebook"
REST = "missing cellView, stub drift, missing requirement"

CASES = [
    defect(NEWLINES, "two statements in one line", ["a = 1", "b"], "NB010", 1,
           edit=_source(1, ["b = 1", "c = 2\n", "d = 3"])),
    defect(NEWLINES, "one long comment that compiles", "a", "NB010", 0,
           edit=_source(0, ["# Set up", "import os", "print(os.name)"])),
    defect(NEWLINES, "markdown run together", ["md:a", "b = 1"], "NB010", 0,
           edit=_source(0, ["# Title", "Text that follows.\n", "More."])),
    defect(NEWLINES, "only one item of many", "a", "NB010", 0,
           edit=_source(0, ["x = 1\n", "y = 2", "z = 3\n", "w = 4"])),

    defect(FORMAT, "a cell without id", ["a = 1", "b = 2"], "NB001 NB002", 1,
           edit=_cell(1, id=None)),
    defect(FORMAT, "two cells of one id", ["a = 1", "b = 2"], "NB002", 1,
           edit=_cell(1, id="cell-0")),
    defect(FORMAT, "an id with a blank", ["a = 1"], "NB001 NB002", 0,
           edit=_cell(0, id="cell 0")),
    defect(FORMAT, "a code cell without outputs", ["a = 1"], "NB001", 0,
           edit=_cell(0, outputs=None)),
    defect(FORMAT, "a code cell without execution count", ["a = 1", "b = 1"], "NB001", 1,
           edit=_cell(1, execution_count=None)),
    defect(FORMAT, "a text cell with outputs", ["md:# T"], "NB001", 0,
           edit=_cell(0, outputs=[])),
    defect(FORMAT, "an unknown field", ["a = 1"], "NB001", 0, edit=_cell(0, colour="red")),
    defect(FORMAT, "truncated JSON", ["a = 1"], "NB001", None,
           raw=lambda text: text[:-40].encode()),
    defect(FORMAT, "a key twice", ["a = 1"], "NB001", None,
           raw=lambda text: text.replace('"cells"', '"nbformat": 4, "cells"', 1).encode()),
    defect(FORMAT, "UTF-16", ["a = 1"], "NB001", None, raw=lambda text: text.encode("utf-16")),
    defect(FORMAT, "code typed as markdown", ["x = 1", "md:import os\nx = os.getcwd()\nprint(x)"],
           "NB011", 1),
    defect(FORMAT, "a function typed as markdown",
           ["md:def f(x):\n    y = x + 1\n    return y\n\nf(1)"], "NB011", 0),
    defect(FORMAT, "markdown typed as code", ["x = 1", "## Train the model\n\nThis takes a while."],
           "NB012", 1),

    defect(FRAME, "no language", ["a = 1"], "NB004", None,
           edit=lambda content: content["metadata"].pop("language_info")),
    defect(FRAME, "no kernel", ["a = 1"], "NB004", None,
           edit=lambda content: content["metadata"].pop("kernelspec")),
    defect(FRAME, "outputs committed", ["print(1)"], "NB005", 0, edit=_cell(
        0, outputs=[{"output_type": "stream", "name": "stdout", "text": ["1\n"]}])),
    defect(FRAME, "execution counts committed", ["a = 1"], "NB005", 0, edit=_cell(
        0, execution_count=3)),
    defect(FRAME, "widget state without state", ["a = 1"], "NB006", None,
           edit=lambda content: content["metadata"].update(
               widgets={"application/vnd.jupyter.widget-state+json": {"x": {}}})),
    defect(FRAME, "metadata of another tool", ["a = 1"], "NB003", 0,
           edit=_metadata(0, ExecuteTime={"start": 1})),
    defect(REST, "a title without cellView",
           ["# @title Set up\na = 1"], "CO103", 0),
    defect(REST, "a form view without a form",
           ["a = 1"], "CO103", 0, edit=_metadata(0, cellView="form")),
    defect(REST, "a package nobody installs",
           ["import emoji_of_nobody\nemoji_of_nobody.show()"], "EX410", 0),
    defect(REST, "a package that pip was not told of",
           ["%pip install -q einops", "import einops", "import timm\nimport einops"], "EX410", 2),
]  # fmt: skip
