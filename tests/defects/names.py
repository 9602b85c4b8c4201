"""Defects of names, calls and keys."""

from tests.defects.cases import defect

KEYWORD = "wrong keyword"
IMPORT = "import of what does not exist"
UNDEFINED = "undefined name in run order"
ATTRIBUTE = "attribute that does not exist"
PACKAGE = "undefined names and imports inside the package"
SYNTAX = "syntax error left by an edit"
ORDER = "use before definition, guard that always raises"
KEY = "key that a returned dict does not have"
VALUES = "key missing in a dict, unhashable, truth value of a table"
WORKFLOW = "names undefined in a declared workflow"

CASES = [
    defect(KEYWORD, "to a function", ["from lab import fit", "fit(None, n_epochs=3)"], "PY302", 1),
    defect(KEYWORD, "to a dataclass", ["from lab import Config\nc = Config(lr=0.1)"], "PY302", 0),
    defect(KEYWORD, "to a method", [
        "from lab import Config, Trainer\ntrainer = Trainer(None, Config())",
        "trainer.train([1], num_epochs=2)"], "PY302", 1),
    defect(KEYWORD, "an argument that is missing", ["from lab import Trainer",
           "trainer = Trainer(None)"], "PY302", 1),
    defect(KEYWORD, "through an alias", ["import lab as laboratory",
           "laboratory.fit(None, epoch=3)"], "PY302", 1),

    defect(IMPORT, "a name of the package", ["from lab import Trainer, Coordinator"], "PY302", 0),
    defect(IMPORT, "a module of the package", ["x = 1", "from lab.engine import Trainer"],
           "PY302", 1),
    defect(IMPORT, "a name through the chain of init", ["from lab.core import Summaries"],
           "PY302", 0),
    defect(IMPORT, "a deleted module", ["import lab.training.core as core\ncore.run()"],
           "PY302", 0),
    defect(IMPORT, "a name of an installed package", ["from torch.nn import Transformerz"],
           "PY302", 0),
    defect(IMPORT, "in the middle of a cell", ["x = 1\nif x:\n    from lab.results import Report"],
           "PY302", 0),

    defect(UNDEFINED, "never bound", ["a = 1", "print(a + undefined_thing)"], "PY301 PY302", 1),
    defect(UNDEFINED, "an import that was removed", ["import os", "path = Path(os.getcwd())"],
           "PY301 PY302", 1),
    defect(UNDEFINED, "after del", ["model = 1", "del model", "print(model)"], "PY301 PY302", 2),
    defect(UNDEFINED, "bound only in dead code",
           ["if False:\n    processor = 1", "print(processor)"], "PY301 PY302", 1),
    defect(UNDEFINED, "in a cell that looks like a magic", ["a = 1", "config"],
           "PY301 PY302 PY306", 1),
    defect(UNDEFINED, "in an f-string", ["a = 1", "print(f'{a} of {total}')"], "PY301 PY302", 1),

    defect(ATTRIBUTE, "of an object", [
        "from lab import Config, Trainer\ntrainer = Trainer(None, Config())",
        "trainer.model_adapter"], "PY302", 1),
    defect(ATTRIBUTE, "of a class", ["from lab import Builder",
           "builder = Builder.from_config(None)"], "PY302", 1),
    defect(ATTRIBUTE, "of a config", ["from lab import Config\nconfig = Config()",
           "print(config.run_name)"], "PY302", 1),
    defect(ATTRIBUTE, "of a module", ["import lab", "lab.run_training()"], "PY302", 1),

    defect(PACKAGE, "an undefined name", ["import lab_undefined"], "PY301", None,
           file="lab_undefined/__init__.py"),
    defect(PACKAGE, "an import of a deleted module", ["import lab_lost"], "PY302", None,
           file="lab_lost/__init__.py"),

    defect(SYNTAX, "a bracket that is not closed", ["a = 1", "b = (1 +\nprint(b)"], "PY300", 1),
    defect(SYNTAX, "an indent that is wrong", ["a = 1\n  b = 2"], "PY300", 0),
    defect(SYNTAX, "a string that does not end", ["x = 'abc", "y = x"], "PY300", 0),
    defect(SYNTAX, "a line left by a merge", ["a = 1\n<<<<<<< ours\nb = 2"], "PY300", 0),

    defect(ORDER, "a name before its cell", ["print(later)", "later = 1"], "PY301 PY302", 0),
    defect(ORDER, "a function before the cell of what it reads", [
        "def show():\n    return limit + 1", "show()", "limit = 3"], "PY304", 1),
    defect(ORDER, "through another function", [
        "def outer():\n    return inner()", "outer()", "def inner():\n    return 1"], "PY304", 1),
    defect(ORDER, "a guard that always raises", [
        "if 'model' not in globals():\n    raise RuntimeError('run the next cell')", "model = 1"],
        "PY307", 0),
    defect(ORDER, "an assertion that always fails", [
        "a = 1", "assert 'results' in globals(), 'train first'", "results = {}"], "PY307", 1),

    defect(KEY, "of a result", ["from lab import fit\nresults = fit(None)",
           "print(results['loss_history'])"], "PY302", 1),
    defect(KEY, "of a method's result", [
        "from lab import Config, Trainer\nresults = Trainer(None, Config()).train([1])",
        "best = results['best_loss']\nprint(best)"], "PY302", 1),

    defect(VALUES, "a key that the callee wants", ["from lab import describe",
           "describe({'name': 'a'})"], "PY302", 1),
    defect(VALUES, "a key that the callee does not know", ["from lab import describe",
           "describe({'name': 'a', 'size': 1, 'colour': 'red'})"], "PY302", 1),
    defect(VALUES, "an unhashable key", ["table = {[1, 2]: 'a'}"], "PY302 PY301", 0),
    defect(VALUES, "an unhashable member", ["a = 1", "seen = {{'a': 1}, {'b': 2}}"],
           "PY302 PY301", 1),
    defect(VALUES, "truth value of a DataFrame", [
        "import pandas as pd\ndf = pd.DataFrame({'a': [1]})", "if df:\n    print(df)"],
        "PY302 PY309", 1),

    defect(WORKFLOW, "a cell that sets the name is left out", [
        "import json", "results = {}", "print(json.dumps(results))"], "WF601", 2,
        workflow={"only": ["cell-0", "cell-2"]}),
    defect(WORKFLOW, "a skipped import", ["import json", "a = 1", "print(json.dumps(a))"],
           "WF601", 2, workflow={"skip": ["cell-0"]}),
    defect(WORKFLOW, "a cell that is not there", ["a = 1"], "WF602", None,
           workflow={"only": ["train-run"]}),
]  # fmt: skip
