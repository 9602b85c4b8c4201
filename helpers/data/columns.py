"""Which column of a table is its text."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from helpers.data.check import FileFault, is_missing


def choose_column(
    source: str,
    names: Sequence[str],
    rows: Sequence[dict[str, Any]],
    wanted: str,
    *,
    from_text: bool = False,
) -> str:
    """The column that is named, else `text`, else the only one that holds text.

    With `from_text` numbers are written as text, so that a column of them is none of text.
    Raises: FileFault with all columns.
    """
    listed = ", ".join(names[:20]) or "none"
    if wanted:
        if wanted in names:
            return wanted
        near = difflib.get_close_matches(wanted, names, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        says = f"has the columns {listed}, but text_column is {wanted!r}{hint}"
        raise FileFault("columns", source, says)
    if "text" in names or len(names) == 1:
        return "text" if "text" in names else names[0]
    textual = [name for name in names if _is_textual([row.get(name) for row in rows], from_text)]
    if len(textual) == 1:
        return textual[0]
    says = f"has the columns {listed}, and {len(textual)} of them hold text, but one must be chosen"
    raise FileFault("columns", source, says)


def _is_textual(values: Iterable[Any], from_text: bool) -> bool:
    known = [v for v in values if not is_missing(v) and v != ""]
    is_text = bool(known) and all(isinstance(value, str) for value in known)
    return is_text and not (from_text and all(map(_is_number, known)))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
