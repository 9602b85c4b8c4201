"""Defects that hurt a run from top to bottom, and those of links, forms and privacy."""

from tests.defects.cases import Content, defect


def _tagged(content: Content) -> None:
    content["cells"][0]["metadata"]["tags"] = ["parameters"]


PATHS = "path that is not in the tree; wrong repository slug"
FORMS = "parameters and forms"
RUN_ALL = "run-all safety"
INSTALL = "install cells"
PROSE = "prose"
PRIVACY = "privacy"
# Made of parts, so that no scanner takes this file for a leak.
TOKEN = "hf_" + "QmXkVtRzLpWcYdNs" + "JbHfGuAeKoTiPvBxEw"
KEY = "sk-" + "Qm7XkVtRzLp4WcYdNs2J" + "T3BlbkFJ" + "bHfG9uAeKoTi5PvBxEwZ"

CASES = [
    defect(PATHS, "a file to read", ["text = open('data/large.txt').read()"], "CO105", 0),
    defect(PATHS, "a link to a file", ["md:# T\n\nSee [the data](data/large.txt)."], "CO105", 0),
    defect(PATHS, "another owner of the repository", [
        "md:# T\n\n[code](https://github.com/lab-taem/lab/blob/v1/lab/core.py)"], "CO101", 0),
    defect(PATHS, "another owner in code", [
        "import subprocess\nURL = 'https://github.com/other/lab'\n"
        "subprocess.run(['git', 'clone', '--branch', 'v1', URL], check=True)"], "CO101", 0),
    defect(PATHS, "an anchor that no heading makes", ["md:# T\n\nGo to [training](#Train-it)."],
           "CO106", 0),

    defect(FORMS, "a default that is no option", ["size = 'big'  # @param ['small', 'base']"],
           "FM202", 0),
    defect(FORMS, "a slider out of range",
           ["x = 200  # @param {type:'slider', min:0, max:100, step:1}"], "FM202", 0),
    defect(FORMS, "a boolean that is text", ["flag = 'yes'  # @param {type:'boolean'}"],
           "FM202", 0),
    defect(FORMS, "a brace that is not closed", ["x = 1  # @param {type:'integer'"], "FM201", 0),
    defect(FORMS, "a type that is not one", ["x = 1  # @param {type:'int'}"], "FM201", 0),
    defect(FORMS, "a value that is computed", ["import os\nsteps = os.cpu_count() * 2",
           "print(steps)"], "FM204", 0, edit=_tagged),
    defect(FORMS, "a parameter that is bound again", ["steps = 8", "steps = 16\nprint(steps)"],
           "FM205", 1, edit=_tagged),

    defect(RUN_ALL, "a question", ["a = 1", "name = input('Name: ')"], "EX403", 1),
    defect(RUN_ALL, "an upload", ["from google.colab import files\nfiles.upload()"], "EX403", 0),
    defect(RUN_ALL, "a mount without a guard", [
        "from google.colab import drive\ndrive.mount('/content/drive')"], "EX403", 0),
    defect(RUN_ALL, "JavaScript without a timeout", [
        "from google.colab import output\noutput.eval_js('1')"], "EX403", 0),
    defect(RUN_ALL, "a background command", ["!tensorboard --logdir runs &"], "EX401", 0),
    defect(RUN_ALL, "an exit", ["import sys\nif not sys.argv:\n    sys.exit(0)"], "EX406", 0),
    defect(RUN_ALL, "a database on Drive", [
        "import sqlite3\ndb = sqlite3.connect('/content/drive/MyDrive/runs.db')"], "EX405", 0),
    defect(RUN_ALL, "a failure that is swallowed", [
        "from lab import Config, Trainer",
        "try:\n    Trainer(None, Config()).train([1])\nexcept Exception as error:\n"
        "    print(error)"], "EX409", 1),
    defect(RUN_ALL, "a cell that consumes its input", [
        "import pandas as pd\ndf = pd.DataFrame({'a': [1], 'b': [2]})",
        "df = df.drop(columns='a')"],
        "PY305", 1),
    defect(RUN_ALL, "a counter of another cell", ["step = 0", "step += 1"], "PY305", 1),
    defect(RUN_ALL, "a widget of another version", [
        "import ipywidgets as widgets\nw = widgets.TagsInput(value=['a'])"], "EX407", 0),
    defect(RUN_ALL, "a star import", ["from lab.core import *"], "PY306", 0),
    defect(RUN_ALL, "pip without a sign", ["a = 1", "pip install einops"], "PY306", 1),

    defect(INSTALL, "torch is moved", ["!pip install -U torch"], "EX402", 0),
    defect(INSTALL, "a reinstall is forced", ["%pip install --force-reinstall einops==0.8"],
           "EX402", 0),
    defect(INSTALL, "no ref is named", ["!pip install git+https://github.com/lab-team/lab"],
           "EX402", 0),

    defect(PROSE, "two titles", ["md:# One", "md:# Two"], "CO102", 1),
    defect(PROSE, "a level is skipped", ["md:# One\n\n### Three"], "CO102", 0),
    defect(PROSE, "a cell by its number", ["md:# T\n\nNow run cell 31 again."], "CO107", 0),

    defect(PRIVACY, "a token in a source", [f"token = '{TOKEN}'"], "PV501", 0),
    defect(PRIVACY, "a key in an output", ["print(1)"], "PV501", 0,
           edit=lambda content: content["cells"][0].update(outputs=[
               {"output_type": "stream", "name": "stdout", "text": [f"key {KEY}\n"]}])),
    defect(PRIVACY, "a user in the metadata", ["a = 1"], "PV502", 0,
           edit=lambda content: content["cells"][0]["metadata"].update(
               executionInfo={"user": {"displayName": "A Person", "userId": "123"}})),
]  # fmt: skip
