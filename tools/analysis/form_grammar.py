"""Read the JavaScript lists and objects of a form's comment, token by token, faults in place."""

import re
from dataclasses import dataclass
from typing import Any, Literal

TOKEN = re.compile(
    r"""(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    |(?P<word>[^\W\d][\w$-]*)
    |(?P<space>\s+)
    |(?P<mark>.)""",
    re.VERBOSE,
)
ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)")
ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}
# What follows a `@param` and looks like a form that lost its brackets: `(type: "x")`, `type="x"`.
BARE_FORM = re.compile(r"""[("'\]}]|(?:["']?)(?:type|allow-input|min|max|step)(?:["']?)\s*[:=]""")
WORDS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}


@dataclass(frozen=True)
class FormFault:
    """What is wrong in a comment, and where."""

    column: int
    """From 1, in the comment."""
    message: str
    cure: str
    severity: Literal["error", "warning"] = "error"


class Broken(Exception):
    """The comment cannot be read on from here."""

    def __init__(self, column: int, message: str, cure: str):
        super().__init__(message)
        self.fault = FormFault(column, message, cure)


@dataclass(frozen=True)
class Token:
    """One piece of a comment; its kind is a group of TOKEN, or `end`."""

    kind: str
    text: str
    column: int


class Reader:
    """Reads the lists and objects of a comment from a given place."""

    def __init__(self, comment: str, start: int):
        self.comment = comment
        self.tokens = [
            Token(match.lastgroup or "mark", match.group(), match.start() + 1)
            for match in TOKEN.finditer(comment, start)
            if match.lastgroup != "space"
        ]
        self.tokens.append(Token("end", "", len(comment.rstrip()) + 1))
        self.at = 0
        self.has_object = False
        self.columns: dict[str, int] = {}
        """Where the value of each property stands."""
        self.faults: list[FormFault] = []

    @property
    def token(self) -> Token:
        """The next one."""
        return self.tokens[self.at]

    def sees(self, *marks: str) -> bool:
        """Whether one of these marks comes next."""
        return self.token.kind == "mark" and self.token.text in marks

    def next(self) -> Token:
        """Take the next token; the end stays."""
        token = self.token
        self.at = min(self.at + 1, len(self.tokens) - 1)
        return token

    def once(self, is_first: bool, what: str) -> None:
        """Refuse a second list or object."""
        if not is_first:
            raise Broken(self.token.column, f"A second {what} stands here.", "Keep one of them.")

    def end(self, is_empty: bool) -> None:
        """Accept a remark behind the form, unless it looks like a piece of one."""
        rest = self.comment[self.token.column - 1 :]
        if is_empty and BARE_FORM.match(rest):
            raise Broken(
                self.token.column,
                f"`{_shown(rest)}` is neither a list of options nor an object.",
                'Write options as ["a", "b"] and properties as {type:"string"}.',
            )
        if not is_empty and self.sees("]", "}"):
            raise Broken(self.token.column, f"`{rest[0]}` has no beginning.", "Delete it.")

    def read_list(self, options: list[Any]) -> None:
        """Read `["a", 1, True]`."""
        opening = self.next()
        while not self.sees("]"):
            options.append(self.value("]", opening))
            self.comma("]", opening)
        self.next()
        if not options:
            self.faults.append(
                FormFault(opening.column, "The list of options is empty.", "Name the options.")
            )

    def read_object(self, properties: dict[str, Any]) -> None:
        """Read `{type: "slider", min: 0}`."""
        opening = self.next()
        self.has_object = True
        while not self.sees("}"):
            name = self.key(opening)
            self.columns[name] = self.token.column
            properties[name] = self.value("}", opening)
            self.comma("}", opening)
        self.next()

    def key(self, opening: Token) -> str:
        """Read `name:`."""
        token = self.next()
        if token.kind not in ("word", "string"):
            raise self.unexpected(token, "the name of a property", "}", opening)
        name = _text(token.text) if token.kind == "string" else token.text
        if name in self.columns:
            raise Broken(token.column, f"`{name}` is given twice.", "Keep one of the two.")
        if not self.sees(":"):
            raise self.unexpected(self.token, f"a colon behind `{name}`", "}", opening)
        self.next()
        return name

    def value(self, closing: str, opening: Token) -> Any:
        """Read a text, a number, or one of WORDS."""
        token = self.next()
        if token.kind == "string":
            return _text(token.text)
        if token.kind == "number":
            return _number(token.text)
        if token.kind == "word" and token.text in WORDS:
            if closing == "}" and token.text[0].isupper():
                self.faults.append(_capital(token))
            return WORDS[token.text]
        if token.kind == "word":
            message = f"`{token.text}` is text without quotes."
            raise Broken(token.column, message, f'Write "{token.text}".')
        raise self.unexpected(token, "a value", closing, opening)

    def comma(self, closing: str, opening: Token) -> None:
        """Read a comma, which the last entry may have as well."""
        if self.sees(","):
            self.next()
        elif not self.sees(closing):
            raise self.unexpected(self.token, f"a comma or `{closing}`", closing, opening)

    def unexpected(self, token: Token, wanted: str, closing: str, opening: Token) -> Broken:
        """The fault of a token that does not belong here."""
        if token.kind == "end":
            return Broken(
                opening.column, f"`{opening.text}` is not closed.", f"Add `{closing}` at the end."
            )
        if token.text in ("'", '"'):
            return Broken(token.column, "A quote is not closed.", "Add the closing quote.")
        got = f"`{token.text}` stands where {wanted} is wanted."
        return Broken(token.column, got, "Correct it, or delete it.")


def _capital(token: Token) -> FormFault:
    if token.text == "None":
        return FormFault(token.column, "`None` is no value of a property.", "Drop the property.")
    return FormFault(
        token.column,
        f"`{token.text}` is Python, but Colab reads JavaScript here.",
        f"Write {token.text.lower()}.",
        "warning",
    )


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("+-").isdigit() and len(text) < 1000 else float(text)


def _text(quoted: str) -> str:
    """The text between quotes; a backslash that begins no escape stands for itself."""
    text = ESCAPE.sub(_unescaped, quoted[1:-1])
    # JavaScript escapes what lies beyond U+FFFF as two halves.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _unescaped(match: re.Match[str]) -> str:
    code = match.group(1)
    if len(code) == 5:
        return chr(int(code[1:], 16))
    return code if code in "\"'\\/" else ESCAPES.get(code, match.group())


def _shown(text: str) -> str:
    return text if len(text) <= 30 else text[:27] + "..."
