"""Install cells: nothing of the runtime is moved, and all that is fetched has a fixed ref."""

import json
from pathlib import Path

import pytest

from tools.analysis.shell_calls import split
from tools.notebook import Notebook
from tools.rules import RULES, Subject
from tools.rules import install as _install  # noqa: F401
from tools.rules.install import project_of
from tools.settings import Settings

OWN = "https://github.com/me/suite"


def subject_of(*sources: str) -> Subject:
    cells = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {}, "source": text, "outputs": []}
        for i, text in enumerate(sources)
    ]
    content = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    notebook = Notebook(Path("a.ipynb"), json.dumps(content).encode(), content)
    return Subject(notebook, Settings(root=Path("."), repository=OWN), Path("."))


def found(*sources: str) -> list[tuple[int | None, int | None, str]]:
    problems = RULES["EX402"].check(subject_of(*sources))
    return [(problem.cell, problem.line, problem.severity or "error") for problem in problems]


UNSOUND = {
    "pinned torch": (["!pip install torch==2.1.0"], (0, 1, "error")),
    "older numpy": (["%pip install 'numpy<2'"], (0, 1, "error")),
    "upgraded widgets": (["!pip install -U ipywidgets"], (0, 1, "error")),
    "combined flags": (["!pip install -qU torch"], (0, 1, "error")),
    "named torch": (["x = 1\n!pip install -q torch"], (0, 2, "warning")),
    "in the middle": (["!pip install pandas torchvision==0.20 tqdm"], (0, 1, "error")),
    "module pip": (["!python -m pip install torch==2.1"], (0, 1, "error")),
    "this Python's pip": (["!{sys.executable} -m pip install torch==2.1"], (0, 1, "error")),
    "uv": (["!uv pip install --system torch==2.1"], (0, 1, "error")),
    "after another command": (["!apt-get -q update && pip install torch==2.1"], (0, 1, "error")),
    "continued line": (["!pip install a \\\n  torch==2.1"], (0, 1, "error")),
    "bash cell": (["%%bash\nset -e\npip install torch==2.1"], (0, 3, "error")),
    "in a block": (["if colab:\n    !pip install torch==2.1"], (0, 2, "error")),
    "subprocess": (
        ["import subprocess, sys\nrun = subprocess.run\n"
         "subprocess.run([sys.executable, '-m', 'pip', 'install', 'torch<2'])"],
        (0, 3, "error"),
    ),
    "subprocess, list by name": (
        ["import subprocess\npip = ['pip', 'install']\nsubprocess.check_call([*pip, 'torch<2'])"],
        (0, 3, "error"),
    ),
    "os.system": (["import os\nos.system('pip install torch==2.1')"], (0, 2, "error")),
    "forced": (["!pip install --force-reinstall transformers"], (0, 1, "error")),
    "eager": (["!pip install -U --upgrade-strategy eager tqdm"], (0, 1, "error")),
    "git, no ref": (["!pip install git+https://github.com/a/b"], (0, 1, "error")),
    "git, no ref, .git": (["!pip install git+https://github.com/a/b.git"], (0, 1, "error")),
    "git, moving branch": (["!pip install git+https://github.com/a/b@main"], (0, 1, "error")),
    "git over ssh": (["!pip install git+ssh://git@github.com/a/b"], (0, 1, "error")),
    "git, by name": (["!pip install 'b @ git+https://github.com/a/b'"], (0, 1, "error")),
    "archive of a branch": (
        ["!pip install https://github.com/a/b/archive/refs/heads/main.zip"], (0, 1, "error")
    ),
    "own package with all": ([f"!pip install git+{OWN}@v1.0"], (0, 1, "warning")),
    "after its import": (["import tqdm", "!pip install tqdm"], (1, 1, "error")),
    "after its import, other name": (["import sklearn", "!pip install scikit-learn"],
                                     (1, 1, "error")),
    "moved after its import": (
        ["!pip install tqdm", "import tqdm", "!pip install -U tqdm"], (2, 1, "error")
    ),
    "after its import, same cell": (["from rich import print\n!pip install rich"], (0, 2, "error")),
    "torch before its companion": (["import torch", "!pip install -c c.txt xformers==0.0.29"],
                                   (1, 1, "error")),
    "in the background": (["%pip install tqdm &"], (0, 1, "error")),
    "clone": (["!git clone https://github.com/a/b"], (0, 1, "warning")),
    "clone of the own": ([f"import subprocess\nsubprocess.run(['git', 'clone', '{OWN}'])"],
                         (0, 2, "warning")),
}  # fmt: skip

SOUND = {
    "plain": ["!pip install -q datasets"],
    "version of another": ["%pip install transformers==5.0"],
    "upgrade of another": ["!pip install -U tqdm"],
    "upgrade of pip": ["!pip install --upgrade pip"],
    "constrained": ["!pip install -c constraints.txt torch==2.1"],
    "name that begins alike": ["!pip install torchmetrics==1.0 numpy-financial"],
    "forced, alone": ["!pip install --force-reinstall --no-deps suite==1.0"],
    "requirements file": ["!pip install -r requirements.txt"],
    "value of an option": ["!pip install tqdm --index-url https://torch/numpy"],
    "this folder": ["!pip install -e ."],
    "git, tag": ["!pip install git+https://github.com/a/b@v1.0"],
    "git, commit": ["!pip install git+https://github.com/a/b.git@0123abc#egg=b"],
    "git, ref by name": ["!pip install git+https://github.com/a/b@{REF}"],
    "own, alone": [f"!pip install --no-deps git+{OWN}@v1.0"],
    "archive of a tag": ["!pip install https://github.com/a/b/archive/v1.0.zip"],
    "listed": ["!pip list | grep torch", "!pip show torch", "!pip freeze > torch==1"],
    "said": ["print('pip install torch==2.1')  # !pip install torch==2.1"],
    "echoed": ["!echo pip install torch==2.1"],
    "again, with an extra": ["!pip install tqdm", "import tqdm", "!pip install 'tqdm[notebook]'"],
    "before its import": ["!pip install tqdm", "import tqdm"],
    "only if it is missing": ["try:\n    import tqdm\nexcept ImportError:\n    !pip install tqdm"],
    "after an optional import": ["try:\n    import tqdm\nexcept ImportError:\n    tqdm = None",
                                 "!pip install tqdm"],
    "after the import of another": ["import tqdm_extra", "!pip install tqdm"],
    "clone at a tag": ["!git clone --depth 1 --branch v1.0 https://github.com/a/b"],
    "clone, then checkout": ["!git clone https://github.com/a/b && cd b && git checkout 0123abc"],
    "clone with unknown words": ["import subprocess\nsubprocess.run(['git', 'clone', *words])"],
    "other git": ["!git status"],
    "open quote": ["!pip install 'torch"],
    "nothing": ["!", "%pip", "!pip install"],
}  # fmt: skip


@pytest.mark.parametrize("sources, problem", UNSOUND.values(), ids=UNSOUND)
def test_unsound_install_is_found(sources, problem):
    assert found(*sources) == [problem]


@pytest.mark.parametrize("sources", SOUND.values(), ids=SOUND)
def test_sound_install_is_left_alone(sources):
    assert found(*sources) == []


@pytest.mark.parametrize("requirement, project", [
    ("torch==2.1", "torch"),
    ("Torch_Vision>=1", "torch-vision"),
    ("unsloth[colab] @ git+https://github.com/a/unsloth", "unsloth"),
    ("git+https://github.com/a/b.git@v1", "b"),
    ("git+https://github.com/a/b#egg=c", "c"),
    ("numpy", "numpy"),
    (".", ""),
])  # fmt: skip
def test_project_of_a_requirement(requirement, project):
    assert project_of(requirement) == project


@pytest.mark.parametrize("text, commands", [
    ("a b", [(("a", "b"), False)]),
    ("a && b; c", [(("a",), False), (("b",), False), (("c",), False)]),
    ("a > log 2>&1 &", [(("a", "2"), True)]),
    ("a 'b & c' # d & e", [(("a", "b & c"), False)]),
    ("a | b", [(("a",), False), (("b",), False)]),
    ("", []),
])  # fmt: skip
def test_shell_line_is_split_into_commands(text, commands):
    assert list(split(text)) == commands
