"""Widgets: only what both ipywidgets 7.7.1, which Colab has, and ipywidgets 8 know.

The tables are the difference of the traits and methods of 7.7.1 and 8.1.9, read from the classes.
"""

import ast
from collections.abc import Iterator

from tools.analysis.reach import Site, reach_of
from tools.analysis.scopes import Names
from tools.rules import Problem, Subject, rule

NEW_CLASSES = {
    "ColorsInput", "DatetimePicker", "FloatsInput", "IntsInput", "NaiveDatetimePicker", "Stack",
    "TagsInput", "TimePicker",
}  # fmt: skip
HAVE_TOOLTIP = {"Button", "ToggleButton"}
STYLES = {"Layout", "ButtonStyle", "SliderStyle", "DescriptionStyle", "ProgressStyle"}
BORDERS = {"border_left", "border_right", "border_top", "border_bottom"}
NEW_TRAITS = {
    "Tab": {"titles"},
    "Accordion": {"titles"},
    "ButtonStyle": {"font_family", "font_size", "font_style", "font_variant", "text_color"}
    | {"text_decoration"},
    "DatePicker": {"min", "max", "step"},
    "Layout": BORDERS,
    "Play": {"playing", "repeat"},
    "RadioButtons": {"orientation"},
}
GONE = {"Layout": {"overflow_x", "overflow_y"}, "FileUpload": {"data", "metadata"}}
CURES = {
    "titles": "Call set_title(index, title) for each child; both versions have it.",
    "tooltip": "Use description_tooltip; both versions have it.",
    "border": "Use Layout(border=...); both versions have it.",
    "overflow": "Use Layout(overflow=...); both versions have it.",
}


@rule("EX407")
def widget_api(subject: Subject) -> Iterator[Problem]:
    """Widgets use only what ipywidgets 7.7.1 and 8 have in common."""
    reach = reach_of(subject.program)
    for site in reach.sites:
        kind = _kind(site.function)
        for name in _unshared_words(kind, site):
            yield _problem(kind, name, site.code.index, site.node)
        if kind in NEW_CLASSES:
            yield Problem(
                f"`{kind}` is new in ipywidgets 8; Colab has 7.7.1.",
                "Use a widget that both versions have.",
                site.code.index,
                site.node.lineno,
            )
    for code in reach.cells:
        for node in ast.walk(code.tree):
            if isinstance(node, ast.Attribute):
                kind = _kind_of(node.value, reach.names)
                if node.attr in _unshared(kind) | GONE.get(kind, set()):
                    yield _problem(kind, node.attr, code.index, node)
            elif isinstance(node, ast.Subscript) and _is_upload(node.value, reach.names):
                yield Problem(
                    "`FileUpload.value` is a dict in ipywidgets 7 and a tuple in 8.",
                    "Take the data from a path in the parameters cell.",
                    code.index,
                    node.lineno,
                )


def _kind(function: str) -> str:
    """The class of ipywidgets that a dotted name means; empty for anything else."""
    return function.rpartition(".")[2] if function.startswith("ipywidgets.") else ""


def _kind_of(node: ast.expr, names: Names) -> str:
    """The class of the widget that an expression holds, as far as it is known."""
    if isinstance(node, ast.Attribute) and node.attr in ("layout", "style"):
        owner = _kind_of(node.value, names)
        styles = {"layout": "Layout", "style": "ButtonStyle" if owner == "Button" else ""}
        return styles[node.attr] if owner else ""
    value = names.value(node.id) if isinstance(node, ast.Name) else node
    return _kind(names.dotted(value.func)) if isinstance(value, ast.Call) else ""


def _unshared(kind: str) -> set[str]:
    """Traits and methods of a class that 7.7.1 does not have."""
    if not kind or not kind[0].isupper() or kind in NEW_CLASSES:
        return set()
    own = NEW_TRAITS.get(kind, {"behavior"} if kind.endswith("Slider") else set())
    if kind in STYLES:
        return own
    return own | {"tabbable"} | ({"tooltip"} if kind not in HAVE_TOOLTIP else set())


def _unshared_words(kind: str, site: Site) -> list[str]:
    unshared = _unshared(kind) | GONE.get(kind, set())
    found = [word.arg for word in site.node.keywords if word.arg in unshared]
    for word in site.node.keywords:
        if kind and word.arg == "layout" and isinstance(word.value, ast.Dict):
            keys = [getattr(key, "value", None) for key in word.value.keys]
            found += [key for key in keys if key in BORDERS | GONE["Layout"]]
    return found


def _is_upload(node: ast.expr, names: Names) -> bool:
    if not isinstance(node, ast.Attribute) or node.attr != "value":
        return False
    return _kind_of(node.value, names) == "FileUpload"


def _problem(kind: str, name: str, cell: int, node: ast.AST) -> Problem:
    is_gone = name in GONE.get(kind, set()) | GONE["Layout"]
    where = "is gone in ipywidgets 8" if is_gone else "is new in ipywidgets 8; Colab has 7.7.1"
    cure = CURES.get(name) or CURES.get(name.partition("_")[0])
    return Problem(
        f"`{name}` of {kind} {where}.",
        cure or "Leave it out, or set it only where the version has it.",
        cell,
        node.lineno,
    )
