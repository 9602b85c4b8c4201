"""What must not be flagged, though it looks like a defect."""

from tests.defects.cases import Content, lookalike


def _reversed(content: Content) -> None:
    content["cells"] = [dict(reversed(cell.items())) for cell in content["cells"]]


def _string(content: Content) -> None:
    for cell in content["cells"]:
        cell["source"] = "".join(cell["source"])


TABLE = "for name in []:\n    print(name)"

CASES = [
    lookalike("fields in another order", "of cells", "a = 1", "md:Text.", edit=_reversed),
    lookalike("fields in another order", "of the file", "a = 1", edit=lambda content: [
        content.update({key: content.pop(key)}) for key in ("cells", "metadata")]),
    lookalike("an import that fails on purpose", "with a reason",
              "try:\n    import lab\nexcept ImportError as error:\n"
              "    raise RuntimeError('Run the first cell.') from error"),
    lookalike("an import that fails on purpose", "of a name",
              "try:\n    from lab import Trainer\nexcept ImportError:\n    raise", "Trainer"),
    lookalike("names guarded by globals", "in a test",
              "a = 1", "if 'recovered' in globals():\n    print(recovered)"),
    lookalike("names guarded by globals", "in an expression",
              "n = total if 'total' in globals() else 0\nprint(n)"),
    lookalike("magics and shell lines", "in a line",
              "%matplotlib inline\n!ls -la\nx = !pwd\nprint(x)"),
    lookalike("magics and shell lines", "of a cell",
              "%%bash\nls | wc -l", "%%time\na = 1", "print(a)"),
    lookalike("magics and shell lines", "in a block",
              "import os\nif os.name == 'nt':\n    !dir\nelse:\n    %cd .\nprint(os.name)"),
    lookalike("names used only inside functions", "bound later, called later",
              "def show():\n    return limit", "limit = 1", "show()"),
    lookalike("names used only inside functions", "of a class",
              "class A:\n    def f(self):\n        return B()", "class B:\n    pass", "A().f()"),
    lookalike("source as one string", "code", "a = 1\nb = a", edit=_string),
    lookalike("source as one string", "text", "md:# Title\n\nText.", edit=_string),
    lookalike("a form title without cellView", "with a display mode",
              "# @title Set up {display-mode: \"form\"}\na = 1"),
    lookalike("a form title without cellView", "with options",
              "#@title Set up { run: \"auto\", display-mode: \"form\" }\na = 1"),
    lookalike("legacy names outside code", "in markdown",
              "md:# T\n\nOnce `test_fine_tuning()` of `utils.training` did this."),
    lookalike("legacy names outside code", "in comments and strings",
              "# from utils.training import run_training\nprint('test_fine_tuning is gone')"),
    lookalike("google.colab", "at the top",
              "import os\nif 'COLAB_RELEASE_TAG' in os.environ:\n"
              "    from google.colab import drive\n    drive.mount('/content/drive')"),
    lookalike("google.colab", "a secret with a fallback",
              "import os\ntoken = os.environ.get('HF_TOKEN')\n"
              "if token is None and 'COLAB_RELEASE_TAG' in os.environ:\n"
              "    from google.colab import userdata\n    token = userdata.get('HF_TOKEN')"),
    lookalike("optional imports", "that become None",
              "try:\n    import wandb\nexcept ImportError:\n    wandb = None\n"
              "if wandb is not None:\n    wandb.init()"),
    lookalike("optional imports", "that set a flag",
              "try:\n    import bitsandbytes\n    HAS_BNB = True\nexcept ImportError:\n"
              "    HAS_BNB = False\nprint(HAS_BNB)"),
    lookalike("names that IPython gives", "display and get_ipython",
              "display(1)\nget_ipython().run_line_magic('pwd', '')"),
    lookalike("names that IPython gives", "results", "1 + 1", "print(_, __, In, Out)"),
    lookalike("HTML anchors", "by name", 'md:# T\n\n<a name="top"></a>\n\n[up](#top)'),
    lookalike("HTML anchors", "by id", 'md:# T\n\n<div id="part"></div>\n\n[part](#part)'),
    lookalike("None first and a dict later", "in cells", "results = None", "results = {'a': 1}",
              "print(results['a'])"),
    lookalike("None first and a dict later", "in a branch",
              "import os\nfound = None\nif os.name:\n    found = {'a': 1}\n"
              "if found:\n    print(found['a'])"),
    lookalike("attributes of classes with external bases", "of an object",
              "from lab.external import Network\nnet = Network()", "net.to('cpu')\nnet.weights"),
    lookalike("attributes of classes with external bases", "in the notebook",
              "from lab.external import Network\nclass Big(Network):\n    pass\nBig().anything()"),
    lookalike("modules with __getattr__", "an attribute",
              "import lab.dynamic\nlab.dynamic.anything"),
    lookalike("modules with __getattr__", "an import",
              "from lab.dynamic import whatever\nprint(whatever)"),
    lookalike("attributes guarded by hasattr", "in a test",
              "from lab import Config\nc = Config()\nif hasattr(c, 'name'):\n    print(c.name)"),
    lookalike("attributes guarded by hasattr", "by getattr",
              "from lab import Config\nprint(getattr(Config(), 'name', ''))"),
    lookalike("everything in order", "training in three steps",
              "md:# T\n\nTrain.",
              "from lab import Builder, Config, Trainer, fit",
              "config = Builder().with_steps(3).build()\ntrainer = Trainer(None, config)",
              "results = trainer.train([1, 2], epochs=2)\nresults['final_loss']",
              "fit(None, epochs=1)['metrics']"),
    lookalike("everything in order", "top-level await and lambdas",
              "import asyncio\nawait asyncio.sleep(0)",
              "double = lambda n: n * 2\nprint([double(i) for i in range(3)])"),
]  # fmt: skip
