"""Wild text for cells: traps that real notebooks held, soups of tokens, and random programs."""

import random

TOKENS = (
    "x", "y", "f", "self", "print", "import", "from", "as", "def", "class", "return", "yield",
    "await", "async", "with", "for", "in", "while", "if", "else", "elif", "try", "except", "raise",
    "lambda", "not", "and", "or", "is", "None", "del", "global", "pass", "(", ")", "[", "]", "{",
    "}", ":", ";", ",", ".", "=", "==", "!=", ":=", "+", "-", "*", "**", "/", "%", "@", "|", "~",
    "<", "->", "...", "\\", "#", "'", '"', "'''", '"""', "`", "$", "0", "1.5", "0x", "1_", "1e999",
    "f'{x!r:>{y}}'", "rb'\\x00'", "'\\d'", "?", "!", "%%", "%time", "!ls", "%%bash", "x?", "??",
    "é", "\U0001d518", "\u2028", "\x0c", "\t", "\r", "\x00", "\ufeff", "\xa0",
)  # fmt: skip
SOURCES = (
    "", "\n", " ", "%%", "%%bash\nls | grep x\n", "%%capture out\n!pip install q\nx = out",
    "%%time\n%%html\n<b>", "!pip install torch &", "if x:\n    !ls\nelse:\n    %cd ..",
    "files = !ls -la \\\n  /tmp", "%time x = f(y)", "x = (1,\n  %b)", "'''\n!ls\n%x\n'''\n!pwd",
    "obj?", "?obj", "np.*load*?", "ls", "await f()", "return 1", "yield", "def f(:\n  pass",
    "x = 1\r\ny = 2\r", "\x0c\nx = 1", "    x = 1\n    y = 2", "\tif x:\n        y",
    "# ipython-line: x", "a\u2028b = 1", "s = 'é\U0001f600'", "x = " + "(" * 300,
    "x = " + "[" * 150 + "]" * 150,
    "x = " + "-" * 3000 + "1", "1 + " * 600 + "1", "9" * 5000, "x = '" + "a" * 20000,
    "from x import *\nls -la\nf(a, b=1, **c)", "# @title T {\n# @param {type:\n",
    'x = 1  # @param {type:"slider", min:0, max:"a", step:0}', "x = 'a'  # @param [\"a\", 'b', ]",
    'x = 5 #@param {type:"integer"} @param', "# Title\n\n### Deep\n[a](#b) ![i](data:x) <a href=>",
    "[" * 200 + "](" * 200, "```\n# no\n", "import os; os.environ['A'] = 'hf_" + "a" * 34 + "'",
    "exec('x')\nglobals()['y'] = 1\ndel x\nprint(x)", "match x:\n    case {'a': [*_, b]}: pass",
    "type X = int\nasync def f():\n    async for i in x: yield i", "\\\n\\\n",
    "class A:\n    x = [x for _ in x]",
    "lambda: (yield)", "def f():\n    return g()\nf()\ndef g(): ...", "x = \\", "%time \\",
)  # fmt: skip
EXPRESSIONS = {
    "E": ("N", "N", "0", "'s'", "E+E", "E(E)", "E.x", "E[E]", "(E)", "[E for N in E]", "-E",
          "lambda N: E", "E if E else E", "{E: E}", "f'{E}'", "N(N=E)", "not E", "(yield E)",
          "await E", "E == E", "*E", "(N := E)", "...", "%time E"),
    "N": ("x", "y", "trainer", "config", "_", "print", "é"),
    "S": ("N = E", "N: E = E", "E", "del N", "import N", "from N import N", "N += E",
          "if E:\n  S", "for N in E:\n  S", "def N(N, *, y=E):\n  S", "try:\n  S\nexcept E:\n  S",
          "with E as N:\n  S", "return E", "!ls {E}", "%cd E", "N = !ls", "class N(E):\n  S",
          "global N", "raise E", "assert E, E", "S\nS", "S; S"),
}  # fmt: skip


def wild_source(rng: random.Random) -> str:
    """Something to stand in a cell: a known trap, a soup of tokens, or a random program."""
    kind = rng.randrange(3)
    if kind == 0:
        return rng.choice(SOURCES)
    if kind == 1:
        glue = ("", " ", " ", "\n")
        return "".join(rng.choice(TOKENS) + rng.choice(glue) for _ in range(rng.randrange(60)))
    return "\n".join(_grown(rng, "S", 4) for _ in range(rng.randrange(1, 5)))


def _grown(rng: random.Random, symbol: str, depth: int) -> str:
    """Expand a symbol of EXPRESSIONS at random."""
    options = EXPRESSIONS[symbol]
    text = options[0] if depth <= 0 else rng.choice(options)
    pieces = []
    for character in text:
        grown = _grown(rng, character, depth - 1) if character in EXPRESSIONS else character
        pieces.append(grown)
    return "".join(pieces)
