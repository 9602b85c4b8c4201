"""Tables of settings and parameters in Markdown, made from the schema."""

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from tools.generation.form_cell import form_lines, literal, values_of
from tools.generation.outline import Form


def parameters_table(form: Form, schema: Mapping[str, Any]) -> str:
    """The parameters of a notebook: name, default, values, meaning."""
    rows = [
        (f"`{line.name}`", f"`{literal(line.default)}`", line.values, line.help)
        for line in form_lines(form, schema)
    ]
    return markdown_table(("parameter", "default", "values", "meaning"), rows)


def settings_table(schema: Mapping[str, Any]) -> str:
    """All settings of the schema, one table for each group."""
    entries = schema.get("properties", {}).items()
    parts = []
    for group, members in groupby(entries, key=lambda item: item[1].get("group", "")):
        rows = [
            (
                f"`{name}`",
                f"`{literal(entry.get('default'))}`",
                values_of(entry) + _unit(entry),
                entry.get("description", "") + _only_if(entry),
            )
            for name, entry in members
        ]
        table = markdown_table((group or "setting", "default", "values", "meaning"), rows)
        parts.append(table)
    return "\n\n".join(parts)


def rules_table() -> str:
    """All rules of `validate`: code, claim about a sound notebook, and whether --fix mends it."""
    from tools.checking.house import load_rules, summaries

    rules = load_rules()
    rows = [
        (f"`{code}`", claim, "yes" if code in rules and rules[code].fix else "")
        for code, claim in summaries().items()
    ]
    return markdown_table(("code", "a sound notebook", "--fix"), rows)


def markdown_table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table; bars and line ends within a cell are written so that they stay within it."""
    head = list(head)
    lines = [_row(head), "|" + "---|" * len(head), *map(_row, rows)]
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _unit(entry: Mapping[str, Any]) -> str:
    return f"; {entry['unit']}" if entry.get("unit") else ""


def _only_if(entry: Mapping[str, Any]) -> str:
    """Under which values of other settings this one is read."""
    conditions = [
        f"`{name}` is {' or '.join(f'`{value}`' for value in values)}"
        for name, values in entry.get("only_if", {}).items()
    ]
    return f" Read only if {' and '.join(conditions)}." if conditions else ""
