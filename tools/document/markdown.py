"""Read the markdown of a cell: headings, links, anchors and prose, each with its line."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache
from html.parser import HTMLParser
from typing import TYPE_CHECKING

from tools.notebook import Notebook

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

HEADING_TAG = re.compile(r"h([1-6])")
HEADING_ID = re.compile(r"\s*\{#([^\s{}]+)\}\s*$")
LABEL = re.compile(r"\(([^()]+)\)=\s*$")


@dataclass(frozen=True)
class Heading:
    """A heading as a reader sees it, without its markup."""

    level: int
    text: str
    line: int


@dataclass(frozen=True)
class Link:
    """Where a link or a picture points to, as it is written."""

    target: str
    line: int


@dataclass
class Markdown:
    """What one cell says; lines count from 1."""

    headings: list[Heading] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    prose: list[tuple[int, str]] = field(default_factory=list)
    """Text by line; what stands in code is left out, a code span is one backtick."""


@lru_cache(maxsize=1024)
def parse_markdown(source: str) -> Markdown:
    """Read a markdown cell; what is fenced, indented as code or a formula says nothing."""
    found = Markdown()
    is_title, level, line = False, 0, 1
    for token in _parser().parse(source):
        line = token.map[0] + 1 if token.map else line
        if token.type == "heading_open":
            is_title, level = True, int(token.tag[1])
        elif token.type == "heading_close":
            is_title = False
        elif token.type == "html_block":
            _read_html(found, token.content, line)
        elif token.type == "inline":
            text = _read_inline(found, token.children or [], line)
            if is_title:
                _enter_heading(found, level, text, line)
    return found


@cache
def _parser() -> "MarkdownIt":
    """CommonMark with tables, and with formulas, whose brackets are no links."""
    from markdown_it import MarkdownIt
    from mdit_py_plugins.amsmath import amsmath_plugin
    from mdit_py_plugins.dollarmath import dollarmath_plugin

    parser = MarkdownIt("commonmark").enable("table")
    # The plugins render formulas, which is not wanted here; a link is kept as it is written.
    parser.normalizeLink = str
    parser.validateLink = lambda target: True
    return parser.use(dollarmath_plugin, allow_digits=False, allow_space=False).use(amsmath_plugin)


def _read_inline(found: Markdown, children: "list[Token]", line: int) -> str:
    """Enter the links and the prose of a run of text; return what a reader sees of it."""
    seen, prose, at = [], [""], line
    for child in children:
        if child.type in ("softbreak", "hardbreak"):
            at += 1
            seen.append(" ")
            prose.append("")
        elif child.type in ("link_open", "image"):
            target = child.attrGet("href" if child.type == "link_open" else "src")
            found.links.append(Link(str(target or ""), at))
        elif child.type == "html_inline":
            _read_html(found, child.content, at)
        elif child.type in ("text", "code_inline", "text_special"):
            seen.append(child.content)
            prose[-1] += "`" if child.type == "code_inline" else child.content
    found.prose.extend((line + i, text) for i, text in enumerate(prose) if text)
    found.anchors.update(match[1] for text in prose if (match := LABEL.match(text)))
    return "".join(seen)


def _enter_heading(found: Markdown, level: int, text: str, line: int) -> None:
    if named := HEADING_ID.search(text):
        found.anchors.add(named[1])
        text = text[: named.start()]
    found.headings.append(Heading(level, text.strip(), line))


def _read_html(found: Markdown, html: str, line: int) -> None:
    parser = _HtmlReader(found, line)
    try:
        parser.feed(html)
        parser.close()
    except AssertionError:
        # html.parser gives up on a declaration such as `<![x`; what was read until then counts.
        return


class _HtmlReader(HTMLParser):
    """Enters links, anchors, headings and text of HTML."""

    def __init__(self, found: Markdown, line: int) -> None:
        super().__init__()
        self.found, self.first = found, line
        self.heading: tuple[int, int, list[str]] | None = None

    @property
    def line(self) -> int:
        return self.first + self.getpos()[0] - 1

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Enter what a tag names or points to."""
        for name, value in attrs:
            if value and name in ("id", "name"):
                self.found.anchors.add(value)
            elif value and name in ("href", "src"):
                self.found.links.append(Link(value, self.line))
        if level := HEADING_TAG.fullmatch(tag):
            self.heading = (int(level[1]), self.line, [])

    def handle_endtag(self, tag: str) -> None:
        """Enter a heading when it is complete."""
        if self.heading and HEADING_TAG.fullmatch(tag):
            level, line, text = self.heading
            self.found.headings.append(Heading(level, " ".join("".join(text).split()), line))
            self.heading = None

    def handle_data(self, data: str) -> None:
        """Enter text, by line."""
        for i, text in enumerate(data.splitlines()):
            if text.strip():
                self.found.prose.append((self.line + i, text))
        if self.heading:
            self.heading[2].append(data)


def outline(notebook: Notebook) -> Iterator[tuple[int, Heading]]:
    """All headings of a notebook in order, each with the index of its cell."""
    for cell in notebook.cells:
        if cell.kind == "markdown":
            yield from ((cell.index, heading) for heading in parse_markdown(cell.source).headings)
        elif cell.kind == "heading":
            level = cell.node.get("level")
            yield cell.index, Heading(level if isinstance(level, int) else 1, cell.source, 1)


def slugs(heading: str, count: int) -> Iterator[str]:
    """The anchors that front ends make of a heading seen `count` times before.

    Source: JupyterLab and nbconvert hyphenate spaces and keep the rest; GitHub and VS Code
    also lower the case, drop punctuation, and number what they have seen before.
    """
    yield heading.replace(" ", "-")
    plain = "".join(c for c in heading.lower() if c.isalnum() or c in "_- ")
    slug = plain.strip().replace(" ", "-")
    yield slug
    yield plain.replace(" ", "-")
    if count:
        yield f"{slug}-{count}"
        yield f"{heading.replace(' ', '-')}-{count}"
