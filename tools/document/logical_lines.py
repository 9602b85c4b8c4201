"""Follow Python line by line, far enough to know where a statement begins; broken code as well."""

from dataclasses import dataclass

OPENING, CLOSING = "([{", ")]}"
# Before `=` these make another operator; `:=` is one too.
COMPOUND = "=!<>+-*/%&|^@:~"


@dataclass
class LineReader:
    """What is still open after the lines that were read."""

    depth: int = 0
    """Brackets."""
    quote: str = ""
    """The quotes that will end the string."""
    is_joined: bool = False
    """Whether the last line ends in a backslash."""
    assigns: int = -1
    """Where in the last line the first `=` outside brackets stands."""
    comment: int = -1
    """Where in the last line its comment begins."""

    @property
    def is_fresh(self) -> bool:
        """Whether the next line begins a statement."""
        return not (self.depth or self.quote or self.is_joined)

    def read(self, line: str) -> None:
        """Go on to the end of a line, given without its line feed."""
        line = line.removesuffix("\r")
        self.assigns = self.comment = -1
        at = self._string_end(line, 0) if self.quote else 0
        while at < len(line):
            character = line[at]
            if character == "#":
                self.comment = at
                break
            if character in "\"'":
                is_triple = line.startswith(character * 3, at)
                self.quote = character * 3 if is_triple else character
                at = self._string_end(line, at + len(self.quote))
                continue
            self._operator(line, at)
            at += 1
        goes_on = self.comment < 0 and _backslashes(line, len(line)) % 2 == 1
        if len(self.quote) == 1 and not goes_on:
            self.quote = ""
        self.is_joined = goes_on and not self.quote

    def _operator(self, line: str, at: int) -> None:
        character = line[at]
        if character in OPENING:
            self.depth += 1
        elif character in CLOSING:
            self.depth = max(0, self.depth - 1)
        elif character == "=" and self.depth == 0 and self.assigns < 0:
            is_compound = at > 0 and line[at - 1] in COMPOUND
            if not is_compound and line[at + 1 : at + 2] != "=":
                self.assigns = at

    def _string_end(self, line: str, at: int) -> int:
        """Where the open string ends in this line; the line's end if it goes on."""
        while (found := line.find(self.quote, at)) >= 0:
            if _backslashes(line[at:found], found - at) % 2 == 0:
                end, self.quote = found + len(self.quote), ""
                return end
            at = found + 1
        return len(line)


def _backslashes(line: str, end: int) -> int:
    """How many backslashes stand right before `end`."""
    head = line[:end]
    return len(head) - len(head.rstrip("\\"))
