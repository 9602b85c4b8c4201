"""Give settings the names that they have today, where configs are made and where they are read.

-training_config = TrainingConfig(epochs=3, random_seed=7, use_amp=True)
-print(training_config.checkpoint_dir)
+training_config = TrainingConfig(epochs=3, seed=7, precision="auto", optimizer="adamw")
+print(training_config.output_dir)
"""

import libcst as cst

from tools.codemod.build import call_text, expression, quote
from tools.codemod.draft import Draft, Edit
from tools.codemod.names import Names
from tools.migrations.fields import (
    ACCUMULATION,
    CHOICES,
    DROPPED,
    OPTIMIZER,
    RENAMED,
    WANDB,
    converted,
    group_of,
)
from tools.migrations.flow import kind
from tools.migrations.symbols import calls, symbol

WHOLE = (cst.If, cst.While, cst.Arg, cst.Assign, cst.FormattedStringExpression, cst.Expr)
"""Where a comparison needs no parentheses."""

OLD = {*RENAMED, *CHOICES, *DROPPED, ACCUMULATION, "use_wandb"}


def migrate(draft: Draft) -> None:
    """Convert constructors first, then builders, then what is read of a config."""
    _constructors(draft)
    _builders(draft)
    _attributes(draft)


def _constructors(draft: Draft) -> None:
    edits: dict[cst.CSTNode, Edit] = {}
    for call, what in calls(draft, "TrainingConfig"):
        given = _keywords(draft.names, call)
        if given is None:
            _say_left(draft, call, what.is_legacy)
            continue
        settings = _settings(draft, call, given, what.is_legacy)
        if settings is not None and settings != list(given.items()):
            code = call_text(draft.names.code(call.func), settings)
            edits[call] = lambda _, code=code: expression(code)
    draft.edit(edits)


def _settings(
    draft: Draft, call: cst.Call, given: dict[str, str], is_legacy: bool
) -> list[tuple[str, str]] | None:
    """The settings that a constructor takes today; None if nothing of it is old."""
    if not is_legacy and not OLD & given.keys():
        return None
    cell = draft.names.cell_of(call)
    result = converted(draft, given)
    for text in result.dropped:
        draft.say("dropped", cell, text)
    if result.unknown:
        text = f"TrainingConfig has no {', '.join(result.unknown)}; they are left."
        draft.say("left", cell, text)
    settings = {**result.settings, **{name: given[name] for name in result.unknown}}
    if is_legacy and "learning_rate" in settings:
        settings = {**settings, **OPTIMIZER} if "optimizer" not in settings else settings
    return list(settings.items())


def _builders(draft: Draft) -> None:
    """Give each setting to the method of its group; `**values` to one that takes any."""
    names, edits = draft.names, {}
    for call in names.nodes(cst.Call):
        if not isinstance(call.func, cst.Attribute) or not _is_with(names, call):
            continue
        given, is_legacy = _keywords(names, call), _is_legacy_builder(names, call)
        method = call.func.attr.value
        if given is None:
            if is_legacy:
                edits[call] = lambda n: n.with_changes(
                    func=n.func.with_changes(attr=cst.Name("with_settings"))
                )
            continue
        if not (is_legacy or OLD & given.keys()):
            continue
        result = converted(draft, given)
        for text in result.dropped:
            draft.say("dropped", names.cell_of(call), text)
        if result.unknown:
            text = (
                f"{method}({', '.join(result.unknown)}=...) sets nothing that there is; it stays."
            )
            draft.say("left", names.cell_of(call), text)
            continue
        edits[call] = _regrouped(draft, result.settings)
    draft.edit(edits)


def _regrouped(draft: Draft, settings: dict[str, str]) -> Edit:
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, code in settings.items():
        groups.setdefault(group_of(draft, name), []).append((name, code))

    def edit(node: cst.Call) -> cst.BaseExpression:
        chain = node.func.value
        for group, parts in groups.items():
            arguments = expression(call_text("f", parts)).args
            func = node.func.with_changes(value=chain, attr=cst.Name(f"with_{group}"))
            chain = node.with_changes(func=func, args=arguments)
        return chain

    return edit


def _is_with(names: Names, call: cst.Call) -> bool:
    is_method = call.func.attr.value.startswith("with_")
    return is_method and kind(names, call.func.value) == "builder"


def _is_legacy_builder(names: Names, node: cst.BaseExpression) -> bool:
    """Whether a chain of calls starts with the old builder."""
    while isinstance(node, cst.Call | cst.Attribute):
        what = symbol(names, node) if isinstance(node, cst.Attribute) else symbol(names, node.func)
        if what is not None:
            return what.is_legacy
        node = node.func if isinstance(node, cst.Call) else node.value
    if not isinstance(node, cst.Name):
        return False
    what = symbol(names, node)
    if what is not None:
        return what.is_legacy
    values = [names.value(binding) for binding in names.reaching(node)]
    return len(values) == 1 and values[0] is not None and _is_legacy_builder(names, values[0])


def _keywords(names: Names, call: cst.Call) -> dict[str, str] | None:
    """What a call gives by keyword; None if it gives anything in another way."""
    if any(arg.keyword is None for arg in call.args):
        return None
    return {arg.keyword.value: names.code(arg.value) for arg in call.args}


def _say_left(draft: Draft, call: cst.Call, is_legacy: bool) -> None:
    if is_legacy:
        text = f"{draft.names.code(call)} is left: its settings are not all given by keyword."
        draft.say("left", draft.names.cell_of(call), text)


def _attributes(draft: Draft) -> None:
    """Settings that are read of a config."""
    names, edits = draft.names, {}
    for node in names.nodes(cst.Attribute):
        name = node.attr.value
        if name not in OLD or not names.is_read(node) or kind(names, node.value) != "config":
            continue
        cell = names.cell_of(node)
        if name in RENAMED:
            edits[node] = lambda n, name=name: n.with_changes(attr=cst.Name(RENAMED[name]))
        elif name in CHOICES:
            edits[node] = _choice(names, node, *CHOICES[name])
        elif name == "use_wandb" and "loggers" in draft.fields:
            edits[node] = _in_loggers(names, quote(names, node))
        else:
            reason = WANDB if name == "use_wandb" else "batch_size counts a whole update"
            why = DROPPED.get(name, reason)
            draft.say("left", cell, f"{names.code(node)} is left: there is no {name}; {why}.")
    draft.edit(edits)


def _choice(names: Names, node: cst.Attribute, setting: str, _yes: str, no: str) -> Edit:
    mark = quote(names, node)

    def edit(n: cst.Attribute) -> cst.BaseExpression:
        owner = names.module.code_for_node(n.value)
        code = f"{owner}.{setting} != {mark}{no}{mark}"
        return expression(code if isinstance(names.parents[node], WHOLE) else f"({code})")

    return edit


def _in_loggers(names: Names, mark: str) -> Edit:
    def edit(n: cst.Attribute) -> cst.BaseExpression:
        owner = names.module.code_for_node(n.value)
        return expression(f"({mark}wandb{mark} in {owner}.loggers)")

    return edit
