"""One cell of a notebook: a view of its JSON object, by which it is read and edited."""

import string
from dataclasses import dataclass
from typing import Any

ID_CHARACTERS = frozenset(string.ascii_letters + string.digits + "-_")
ID_LENGTH = 64
TITLE_CHARACTERS = 60
PARAMETERS_TAG = "parameters"


@dataclass
class Cell:
    """One cell: a view of its JSON object, by which it is read and edited."""

    node: dict[str, Any]
    index: int
    """Place among all cells of the file, from 0."""
    id: str
    """The file's own id, else Colab's, else one derived from the content: valid and unique."""

    @property
    def kind(self) -> str:
        """`code`, `markdown`, `raw` (or `heading` in nbformat 3)."""
        return self.node.get("cell_type", "")

    @property
    def source(self) -> str:
        """The text; setting it keeps the form that the file uses (list of lines, or one string)."""
        return source_text(self.node)

    @source.setter
    def source(self, text: str) -> None:
        key = source_key(self.node)
        if key in self.node and text == self.source:
            return
        is_list = isinstance(self.node.get(key, []), list)
        self.node[key] = split_lines(text) if is_list else text

    @property
    def metadata(self) -> dict[str, Any]:
        """The cell's metadata; what is changed in it is changed in the file."""
        return self.node.setdefault("metadata", {})

    @property
    def tags(self) -> list[str]:
        """The tags; empty if there are none."""
        tags = self.node.get("metadata", {}).get("tags", [])
        return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """The outputs of a code cell; empty for any other."""
        return self.node.get("outputs", [])

    @property
    def title(self) -> str:
        """The form's title if the cell has one, else its first line that is not empty."""
        return title_of_source(self.source)

    def lost_newlines(self) -> list[int]:
        """Indices of the items of a list source that run into the next for want of a newline."""
        value = self.node.get(source_key(self.node), "")
        items = value[:-1] if isinstance(value, list) else []
        lost = [
            index
            for index, item in enumerate(items)
            if not item.endswith("\n") and not value[index + 1].startswith("\n")
        ]
        # An empty item joins nothing, but among lines without newline it was an empty line.
        return lost if any(items[index] for index in lost) else []


def source_key(node: dict[str, Any]) -> str:
    """The key of the text: `input` for code of nbformat 3, else `source`."""
    return "input" if "input" in node and "source" not in node else "source"


def source_text(node: dict[str, Any]) -> str:
    """The text of a cell's JSON object."""
    value = node.get(source_key(node), "")
    return "".join(value) if isinstance(value, list) else value


def own_ids(nodes: list[dict[str, Any]]) -> list[str]:
    """Each cell's own id, or Colab's; empty without one that is valid and not an earlier cell's."""
    ids: list[str] = []
    seen: set[str] = set()
    for node in nodes:
        names = (node.get("id"), node.get("metadata", {}).get("id"))
        own = next((name for name in names if is_valid_id(name) and name not in seen), "")
        seen.add(own)
        ids.append(own)
    return ids


def is_valid_id(name: object) -> bool:
    """Whether nbformat 4.5 takes a value as a cell's id."""
    return isinstance(name, str) and 0 < len(name) <= ID_LENGTH and ID_CHARACTERS.issuperset(name)


def split_lines(text: str) -> list[str]:
    """A text as the list that nbformat keeps: all lines but the last end in a newline.

    Only a line feed ends a line; `str.splitlines` also cuts at form feeds and U+2028.

    >>> split_lines("a\\nb\\x0cc")
    ['a\\n', 'b\\x0cc']
    """
    *lines, last = text.split("\n")
    return [line + "\n" for line in lines] + ([last] if last else [])


def title_of_source(source: str) -> str:
    """The form's title, else the first line that is not empty, cut short."""
    line = next((line.strip() for line in source.split("\n") if line.strip()), "")
    title = form_title(line) or line
    return title if len(title) <= TITLE_CHARACTERS else title[: TITLE_CHARACTERS - 3] + "..."


def form_title(line: str) -> str:
    """The text of a `# @title` line; empty for any other line.

    >>> form_title('# @title Train the model { display-mode: "form" }')
    'Train the model'
    """
    text = line.lstrip("#").lstrip()
    if not line.startswith("#") or not text.startswith("@title"):
        return ""
    return text.removeprefix("@title").partition("{")[0].strip()
