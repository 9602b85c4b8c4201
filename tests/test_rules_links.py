"""Links of a notebook lead where they say: to the own repository, into the tree, to a heading."""

import json

import pytest

from tools.notebook import read
from tools.rules import (
    RULES,
    Subject,
    links,  # noqa: F401 (it enters the rules)
)
from tools.settings import Settings

OWN = "https://github.com/ann/suite"
BADGE = "https://colab.research.google.com/github/{}/blob/{}/{}"
GOOD_BADGE = BADGE.format("ann/suite", "v1.0", "training.ipynb")
OPENING = f"# Train\n\n[![Open in Colab](https://x.org/badge.svg)]({GOOD_BADGE})"


@pytest.fixture
def tree(tmp_path):
    """A small project: two folders of files, and a second notebook."""
    for name in ("helpers/README.md", "configs/small.json", "src/train.py", "other.ipynb"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    return tmp_path


def subject_of(tree, *cells, ref="v1.0", paths=("training.ipynb",), repository=OWN):
    """A notebook of these cells, each a kind and a source."""
    nodes = [
        {"cell_type": kind, "id": f"c{i}", "metadata": {}, "source": source}
        | ({"outputs": [], "execution_count": None} if kind == "code" else {})
        for i, (kind, source) in enumerate(cells)
    ]
    path = tree / "training.ipynb"
    path.write_text(
        json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": nodes})
    )
    return Subject(read(path), Settings(tree, paths=paths, ref=ref, repository=repository), tree)


def found(code, subject):
    """Cell and line of each problem."""
    return [(problem.cell, problem.line) for problem in RULES[code].check(subject)]


def text(source):
    return ("markdown", source)


def code(source):
    return ("code", source)


@pytest.mark.parametrize(
    "cell, line",
    [
        pytest.param(text(f"See\n[it]({OWN}/blob/main/helpers/README.md)"), 2, id="ref"),
        pytest.param(text(f"[it]({OWN}/blob/v1.0/helpers/GONE.md)"), 1, id="path"),
        pytest.param(text("<https://github.com/ann/siute>"), 1, id="typo in the name"),
        pytest.param(text("https://github.com/anm/suite/issues"), 1, id="typo in the owner"),
        pytest.param(code('URL = "https://github.com/bob/suite"'), 1, id="other owner, in code"),
        pytest.param(text("[fork](https://github.com/bob/suite)"), 1, id="other owner, in text"),
        pytest.param(
            code(f'import os\nREPOSITORY, REF = "{OWN}", "v0.9"'), 2, id="constant beside the URL"
        ),
        pytest.param(
            code(f'run(["git", "clone", "--branch", "v0.9", "{OWN}"])'), 1, id="list of words"
        ),
        pytest.param(code(f"x = 1\n!git clone -b v0.9 {OWN}.git"), 2, id="shell line"),
        pytest.param(code(f"%pip install git+{OWN}.git@v0.9"), 1, id="pip"),
        pytest.param(
            code('u = "https://raw.githubusercontent.com/ann/suite/main/configs/small.json"'),
            1,
            id="raw file",
        ),
        pytest.param(
            code("# @markdown [more](https://github.com/ann/suite/tree/dev/src)"), 1, id="form"
        ),
        pytest.param(text(BADGE.format("ann/suite", "main", "other.ipynb")), 1, id="other badge"),
    ],
)
def test_a_url_that_misses_the_own_repository_is_found(tree, cell, line):
    assert found("CO101", subject_of(tree, text(OPENING), cell)) == [(1, line)]


@pytest.mark.parametrize(
    "cell",
    [
        pytest.param(text(f"[it]({OWN}/blob/v1.0/helpers/README.md#use), {OWN}."), id="right"),
        pytest.param(text(f"{OWN}/tree/v1.0/src and {OWN}/issues/3"), id="folder, issue"),
        pytest.param(text("https://github.com/Ann/Suite"), id="case does not matter"),
        pytest.param(text("https://github.com/bob/other/blob/main/x.md"), id="another repository"),
        pytest.param(text("https://github.com/ann/suite-data"), id="a sister of it"),
        pytest.param(text("git clone https://github.com/YOUR_NAME/suite"), id="placeholder"),
        pytest.param(text("https://gist.github.com/ann/suitf"), id="a gist"),
        pytest.param(text(f"{OWN}/blob/{'a1' * 20}/old.py"), id="permalink to a commit"),
        pytest.param(code(f'f"{OWN}/blob/{{REF}}/src/train.py"'), id="ref is a name"),
        pytest.param(code(f'u = f"{OWN}/blob/v1.0/{{name}}.py"'), id="path is a name"),
        pytest.param(code(f'REPOSITORY, REF = "{OWN}", "v1.0"'), id="constant"),
        pytest.param(code('REF = "v0.9"  # of another repository'), id="constant, no URL"),
        pytest.param(code(f"!git clone --branch $REF {OWN}"), id="shell variable"),
        pytest.param(text(BADGE.format("ann/suite", "v1.0", "other.ipynb")), id="other notebook"),
    ],
)
def test_a_url_that_is_right_or_of_others_is_left_alone(tree, cell):
    assert found("CO101", subject_of(tree, text(OPENING), cell)) == []


@pytest.mark.parametrize(
    "first, line",
    [
        pytest.param("# Train", None, id="none"),
        pytest.param(f"# T\n[docs](https://x.org)\n[Colab]({GOOD_BADGE})", 3, id="not first"),
        pytest.param(f"[C]({BADGE.format('ann/suite', 'v1.0', 'other.ipynb')})", 1, id="path"),
        pytest.param(f"[C]({BADGE.format('ann/suite', 'main', 'training.ipynb')})", 1, id="ref"),
        pytest.param(f"[C]({BADGE.format('x/y', 'v1.0', 'training.ipynb')})", 1, id="slug"),
        pytest.param(f"[C]({BADGE.format('bob/suite', 'v1.0', 'training.ipynb')})", 1, id="owner"),
    ],
)
def test_the_first_link_of_a_notebook_of_the_project_is_its_badge(tree, first, line):
    assert found("CO101", subject_of(tree, text(first))) == [(0, line)]
    assert found("CO101", subject_of(tree, code("x = 1"), text(OPENING))) == []


def test_a_notebook_that_is_not_listed_needs_no_badge(tree):
    assert found("CO101", subject_of(tree, text("# Train"), paths=())) == []


def test_without_a_repository_no_url_is_judged(tree):
    url = text("https://github.com/ann/siute")

    assert found("CO101", subject_of(tree, url, repository="")) == []
    assert found("CO101", subject_of(tree, url, repository="https://gitlab.com/a/b")) == []


def test_the_fix_writes_ref_and_path_and_nothing_else(tree):
    wrong = f"# T\n[C]({BADGE.format('ann/suite', 'main', 'other.ipynb')})"
    cells = (
        text(wrong),
        code(f'!pip install git+{OWN}@v0.9\nu = "{OWN}/blob/v0.9/src/train.py"  # ü'),
        text("https://github.com/ann/siute/blob/main/x"),
    )
    subject = subject_of(tree, *cells)

    RULES["CO101"].fix(subject)
    sources = [cell.source for cell in subject.notebook.cells]
    assert sources == [
        f"# T\n[C]({GOOD_BADGE})",
        f'!pip install git+{OWN}@v1.0\nu = "{OWN}/blob/v1.0/src/train.py"  # ü',
        cells[2][1],
    ]
    RULES["CO101"].fix(subject)
    assert [cell.source for cell in subject.notebook.cells] == sources
    assert found("CO101", subject) == [(2, 1)]


@pytest.mark.parametrize(
    "cell, line",
    [
        pytest.param(text("See\n[guide](helpers/GUIDE.md)"), 2, id="link"),
        pytest.param(text("![curve](img/curve.png)"), 1, id="picture"),
        pytest.param(text('<img src="./img/curve.png" width=3>'), 1, id="picture in HTML"),
        pytest.param(text("[next](gone.ipynb#Start)"), 1, id="notebook with an anchor"),
        pytest.param(code('\nconf = open("helpers/conf.yaml")'), 2, id="open"),
        pytest.param(code('Path("configs/large.json")'), 1, id="Path"),
        pytest.param(code('Path("configs") / "large.json"'), 1, id="Path with a slash"),
        pytest.param(code('p = "configs/large.json"\njson.load(open(p))'), 2, id="by a name"),
        pytest.param(code('config = load_config("configs/large.json")'), 1, id="own reader"),
        pytest.param(code('Trainer(config="configs/large.yaml")'), 1, id="argument"),
        pytest.param(code('pd.read_csv("table.csv")'), 1, id="table"),
        pytest.param(code('Path("notes.md").read_text()'), 1, id="read_text"),
        pytest.param(code('sys.path.append("lib")'), 1, id="import path"),
        pytest.param(code("x = 1\n%run gone.ipynb"), 2, id="%run"),
        pytest.param(code("!python src/gone.py --fast"), 1, id="script"),
        pytest.param(code("%pip install -r requirements-gone.txt"), 1, id="requirements"),
    ],
)
def test_a_path_that_is_not_in_the_tree_is_found(tree, cell, line):
    assert found("CO105", subject_of(tree, text("# T"), cell)) == [(1, line)]


@pytest.mark.parametrize(
    "cell",
    [
        pytest.param(text("[a](helpers/README.md) [b](./other.ipynb) [c](src)"), id="it is there"),
        pytest.param(text("[a](https://x.org/y.md) [b](#top) [c](mailto:a@b.org)"), id="URLs"),
        pytest.param(text("![p](attachment:p.png) ![d](data:image/png;base64,AA)"), id="embedded"),
        pytest.param(text("`[a](gone.md)` and $P[x](y/z)$"), id="code span, formula"),
        pytest.param(text("```\n[a](gone.md)\n```"), id="fenced"),
        pytest.param(text("[a](../elsewhere/x.md) [b](/abs/x.md)"), id="out of the tree"),
        pytest.param(text("![curve](runs/curve.png)"), id="below the folder of output"),
        pytest.param(code('open("configs/small.json"); sys.path.insert(0, "src")'), id="read"),
        pytest.param(code('open("suite/configs/small.json")'), id="in a clone of this repository"),
        pytest.param(code('open("new.json", "w"); open("new.json")'), id="written before"),
        pytest.param(code('df.to_csv("out.csv")\npd.read_csv("out.csv")'), id="saved before"),
        pytest.param(code('os.makedirs("data")\nopen("data/x.txt")'), id="folder is made"),
        pytest.param(code("!wget https://x.org/d/t.csv\npd.read_csv('t.csv')"), id="downloaded"),
        pytest.param(code("!unzip a.zip\nopen('inner.json')"), id="unpacked"),
        pytest.param(code("%cd elsewhere\nopen('x.json')"), id="another working folder"),
        pytest.param(code("%%writefile gone.py\nx = 1"), id="writefile"),
        pytest.param(code('if os.path.exists("x.json"):\n    open("x.json")'), id="tested for"),
        pytest.param(
            code('try:\n    open("x.json")\nexcept FileNotFoundError:\n    pass'), id="expected"
        ),
        pytest.param(code('open(f"configs/{name}.json"); open(path)'), id="not spelled out"),
        pytest.param(code('open("/content/x.json"); open("~/x.json")'), id="not in the tree"),
        pytest.param(code('load_dataset("ann/corpus"); np.load(buffer)'), id="no file"),
        pytest.param(code('log("train/loss"); x = "configs/a.json in prose"'), id="other strings"),
        pytest.param(code('torch.load("model.pt")'), id="what training makes"),
        pytest.param(code('json.loads("{}"); "a/b.json".split("/")'), id="strings with methods"),
    ],
)
def test_a_path_that_stands_or_may_come_is_left_alone(tree, cell):
    assert found("CO105", subject_of(tree, text("# T"), cell)) == []


@pytest.mark.parametrize(
    "source, line",
    [
        pytest.param("[a](#Setup)", 1, id="no such heading"),
        pytest.param("\n- [a](#set-Up)", 2, id="neither way of case"),
        pytest.param('<a href="#nowhere">x</a>', 1, id="HTML"),
        pytest.param("[a](#in-a-fence)\n```\n# In a fence\n```", 1, id="heading in a fence"),
        pytest.param("[a](#scrollTo=gone)", 1, id="id of no cell"),
        pytest.param("[a](#set-up-3)", 1, id="third of two"),
    ],
)
def test_an_anchor_without_a_target_is_found(tree, source, line):
    subject = subject_of(tree, text("# T\n## Set up\n## Set up"), text(source))

    assert found("CO106", subject) == [(1, line)]


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("[a](#Set-up) [b](#set-up) [c](#set-up-1)", id="Jupyter, GitHub, second"),
        pytest.param("[a](#What's-new?) [b](#whats-new)", id="punctuation"),
        pytest.param("[a](#L%C3%A4nge) [b](#länge)", id="not ASCII"),
        pytest.param("[a](#x) [b](#y) [c](#z)", id="HTML anchors"),
        pytest.param("[a](#scrollTo=c0&line=2)", id="cell of Colab"),
        pytest.param("[a](#) [b](#top)", id="top"),
        pytest.param("[a](#made-by-code)", id="anchor in shown HTML"),
        pytest.param("[a](#label) [b](#given)", id="labels of MyST and kramdown"),
        pytest.param("`[a](#no)` [b](https://x.org#no)", id="no link of this notebook"),
    ],
)
def test_an_anchor_that_a_front_end_knows_is_left_alone(tree, source):
    headings = "# T\n## Set up\n## What's `new`?\n## Länge\n## Set up\n(label)=\n## Last {#given}"
    html = '<a name="x"></a> text <b id="y">b</b>\n\n<div id="z">\n</div>'
    shown = code('display(HTML("<a name=made-by-code>"))')
    subject = subject_of(tree, text(headings), text(html), shown, text(source))

    assert found("CO106", subject) == []


def test_links_are_read_with_their_line_and_target():
    from tools.document.markdown import parse_markdown

    read = parse_markdown("a\n![p](x%20y.png) [b][1]\n\n| [c](d.md) |\n|---|\n\n[1]: e.md")

    assert [(link.target, link.line) for link in read.links] == [
        ("x%20y.png", 2),
        ("e.md", 2),
        ("d.md", 4),
    ]
