"""Read the bytes of a notebook file, and refuse in one line whatever is not a sound notebook."""

import codecs
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.document.json_text import parse
from tools.document.replace import shown
from tools.errors import NotebookError

MAJORS = (3, 4)
# The longer mark first: that of UTF-32 begins with that of UTF-16.
MARKS = {
    codecs.BOM_UTF8: "UTF-8 with a byte order mark",
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def load(path: Path) -> tuple[bytes, dict[str, Any]]:
    """The bytes of a notebook file, and what they say.

    Raises: NotebookError in one line; the file is never touched.
    """
    raw = _bytes_of(path)
    try:
        content = parse(_decoded(path, raw))
    except ValueError as error:
        if isinstance(error, NotebookError):
            raise
        raise refusal(
            path, f"is not sound JSON ({error})", "Restore it, or save it anew with Jupyter"
        ) from error
    fault = next(faults_of(content), "")
    if fault:
        raise refusal(path, fault, "Repair it, or save it anew with Jupyter")
    return raw, content


def refusal(path: Path, got: str, do: str) -> NotebookError:
    """The error for a file that is no sound notebook."""
    line = f"{shown(path)} {got}, but a notebook of nbformat 3 or 4 is wanted. {do}."
    return NotebookError(" ".join(line.split()))


def nodes_of(content: dict[str, Any]) -> Any:
    """The list of cells: of the only worksheet in nbformat 3."""
    if content.get("nbformat") == 3:
        return content["worksheets"][0]["cells"]
    return content["cells"]


def faults_of(content: Any) -> Iterator[str]:
    """What keeps a value from being a notebook that can be read cell by cell."""
    if not isinstance(content, dict):
        yield f"holds {_kind(content)} of JSON"
        return
    yield from _version_faults(content)
    if not isinstance(content.get("metadata", {}), dict):
        yield f"has {_kind(content['metadata'])} as metadata"
    is_old = content["nbformat"] == 3
    sheets = content.get("worksheets") if is_old else [content]
    if not isinstance(sheets, list) or len(sheets) != 1 or not isinstance(sheets[0], dict):
        yield "has not exactly one worksheet"
        return
    nodes = sheets[0].get("cells")
    if not isinstance(nodes, list):
        yield "has no list of cells"
        return
    for number, node in enumerate(nodes, 1):
        for fault in _cell_faults(node, is_old):
            yield f"has {fault} in cell {number}"


def _version_faults(content: dict[str, Any]) -> Iterator[str]:
    for key in ("nbformat", "nbformat_minor"):
        version = content.get(key, 0 if key == "nbformat_minor" else None)
        if type(version) is not int:
            yield f"has no whole number as {key}"
    if content.get("nbformat") not in MAJORS:
        yield f"is of nbformat {str(content['nbformat'])[:12]}"


def _cell_faults(node: Any, is_old: bool) -> Iterator[str]:
    if not isinstance(node, dict):
        yield f"{_kind(node)} instead of an object"
        return
    if not isinstance(node.get("cell_type"), str):
        yield "no cell_type that is text"
    key = "input" if is_old and node.get("cell_type") == "code" else "source"
    source = node.get(key)
    is_lines = isinstance(source, list) and all(isinstance(line, str) for line in source)
    if not is_lines and not isinstance(source, str):
        yield f"no {key} that is text or a list of lines"
    if not isinstance(node.get("metadata", {}), dict):
        yield f"{_kind(node['metadata'])} as metadata"
    outputs = node.get("outputs", [])
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        yield "outputs that are no list of objects"


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "an array", str: "a text", bool: "a truth value"}
    return "null" if value is None else kinds.get(type(value), "a number")


def _bytes_of(path: Path) -> bytes:
    """The content of a regular file; a pipe or a device would be waited for without end."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise refusal(path, "is not a regular file", "Give the path of an .ipynb file")
            return file.read()
    except OSError as error:
        reason = error.strerror or str(error)
    except NotebookError:
        raise
    except ValueError as error:
        reason = str(error)
    raise refusal(path, f"cannot be read ({reason})", "Give the path of an .ipynb file")


def _decoded(path: Path, raw: bytes) -> str:
    save = "Save it as UTF-8 without a byte order mark"
    if not raw:
        raise refusal(path, "is empty", "Restore it, or give another file")
    for mark, name in MARKS.items():
        if raw.startswith(mark):
            raise refusal(path, f"is {name}", save)
    if b"\0" in raw[:4]:
        raise refusal(path, "is UTF-16 or UTF-32", save)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        where = f"byte {error.start} is 0x{raw[error.start]:02x}"
        raise refusal(path, f"is not UTF-8 ({where})", save) from error
