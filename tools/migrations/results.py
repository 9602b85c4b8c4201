"""Read the result of a training by the names it has today, and flag what means something else.

-plt.plot(results["loss_history"])
+# Meaning changed: loss_history had one value a step; this has one a validation.
+plt.plot(results["metrics_summary"]["train/loss"].tolist())
"""

import libcst as cst

from tools.codemod.build import expression, is_noted, quote, with_comment
from tools.codemod.draft import Draft, Edit
from tools.codemod.names import Names
from tools.migrations.flow import kind, member_of, text_of
from tools.migrations.symbols import uses

SAME = {"final_loss", "metrics_summary", "best_epoch", "best_loss"}
RENAMED = {
    "training_time_seconds": "training_time",
    "best_val_loss": "best_loss",
}
REPLACED = {
    "loss_history": (
        '["metrics_summary"]["train/loss"].tolist()',
        "loss_history had one value a step; this has one a validation.",
    ),
    "initial_loss": (
        '["history"]["train/loss"].iloc[0]',
        "initial_loss was the loss of step 1; this is the first that was logged.",
    ),
    "grad_norm_history": (
        '["history"]["gradient_norm"].tolist()',
        "grad_norm_history had one value a step; this has one a log.",
    ),
}
HOMES = {
    "loss_history": "metrics_summary",
    "initial_loss": "history",
    "grad_norm_history": "history",
}
NEAREST = {
    "samples_per_second": "tokens_per_s counts tokens, not samples",
    "amp_enabled": "the precision is in training_config.precision and in the record of the run",
    "final_loss_scale": "the loss scale of fp16 is the column loss_scale of history",
    "trials_df": "a training has no trials; run_search returns trial_results",
}
LEGACY = {*RENAMED, *REPLACED, *NEAREST}
COLUMNS = {
    "train/accuracy": "val/accuracy is measured at each validation",
    "epoch_duration": "elapsed_s has the seconds since the start",
}
"""Columns of metrics_summary that are gone, and the nearest thing."""

Found = tuple[Edit | None, str] | None
"""The edit of a node, the comment above its line; None if there is nothing to do."""

DICT_METHODS = {"items": "to_dict().items()", "values": "to_dict().values()"}
CHANGING = {"update", "pop", "setdefault", "clear", "popitem"}


def migrate(draft: Draft) -> None:
    """Rewrite and flag each use of a result, in the order of the text."""
    names, edits = draft.names, {}
    comments: dict[cst.CSTNode, list[str]] = {}
    for node in names.nodes(cst.Subscript, cst.Attribute, cst.Call, cst.Comparison, cst.For):
        found = _use(draft, names, node)
        if found is None:
            continue
        edit, note = found
        if edit is not None:
            edits[node] = edit
        if note and not is_noted(draft, node, note):
            comments.setdefault(names.line_of(node), []).append(note)
    for line, notes in comments.items():
        edits[line] = _noted(edits.get(line), notes)
    draft.edit(edits)
    _flag_unproven(draft)


def _noted(edit: Edit | None, notes: list[str]) -> Edit:
    def apply(node):
        node = edit(node) if edit else node
        for note in dict.fromkeys(notes):
            node = with_comment(node, note)
        return node

    return apply


def _use(draft: Draft, names: Names, node: cst.CSTNode) -> Found:
    """How a node reads a result: its edit and its comment; None if it does not."""
    if isinstance(node, cst.Comparison):
        return _membership(names, node)
    if isinstance(node, cst.For):
        is_over = kind(names, node.iter) == "result"
        return (lambda n: n.with_changes(iter=_call_of(n.iter, "keys")), "") if is_over else None
    if isinstance(node, cst.Call):
        return _get(draft, names, node)
    owner, key = member_of(node)
    if not key or (held := kind(names, owner)) not in ("result", "summary"):
        return None
    if held == "summary":
        return _column(draft, names, node, key) if isinstance(node, cst.Subscript) else None
    if isinstance(node, cst.Attribute):
        return _method_or_key(draft, names, node, key)
    return _key(draft, names, node, key)


def _key(draft: Draft, names: Names, node: cst.Subscript, key: str) -> Found:
    """`results["key"]`."""
    if not names.is_read(node):
        text = f"{names.code(node)} is set or deleted, but a TrainingResult does not change."
        draft.say("left", names.cell_of(node), f"{text} Keep the value in a name of its own.")
        return None
    return _rewritten(draft, names, node, key, lambda n: n.value)


def _rewritten(draft: Draft, names: Names, node: cst.CSTNode, key: str, owner_of: Edit):
    """The edit and the comment for the use of one key."""
    cell = names.cell_of(node)
    if key in RENAMED:
        path = f'["{RENAMED[key]}"]'.replace('"', quote(names, node))
        return lambda n: _member(owner_of(n), path), ""
    if key in REPLACED:
        path, why = REPLACED[key]
        path = path.replace('"', quote(names, node))
        draft.say("changed", cell, f"{names.code(node)}: {why}")
        return lambda n: _member(owner_of(n), path), f"Meaning changed: {why}"
    if key in NEAREST:
        draft.say("left", cell, f"{names.code(node)} is left: {key} is gone; {NEAREST[key]}.")
        return None, f"{key} is gone: {NEAREST[key]}."
    return None


def _get(draft: Draft, names: Names, node: cst.Call) -> Found:
    """`results.get("key", default)`: the value is always there, so the default goes."""
    func = node.func
    if not isinstance(func, cst.Attribute) or func.attr.value != "get" or not node.args:
        return None
    key = text_of(node.args[0].value)
    if not key or kind(names, func.value) != "result":
        return None
    if key in SAME:
        path = f'["{key}"]'.replace('"', quote(names, node))
        return lambda n: _member(n.func.value, path), ""
    if key in LEGACY:
        return _rewritten(draft, names, node, key, lambda n: n.func.value)
    return lambda n: n.with_changes(
        func=n.func.with_changes(value=_call_of(n.func.value, "to_dict"))
    ), ""


def _method_or_key(draft: Draft, names: Names, node: cst.Attribute, key: str):
    """`results.key`, and the methods of a dict that a result no longer is."""
    cell, parent = names.cell_of(node), names.parents[node]
    is_call = isinstance(parent, cst.Call) and parent.func is node
    if is_call and key in DICT_METHODS:
        return lambda n: n.with_changes(value=_call_of(n.value, "to_dict")), ""
    if is_call and key in CHANGING:
        draft.say("left", cell, f"{names.code(parent)}: a TrainingResult does not change.")
    if is_call and key == "copy":
        return lambda n: n.with_changes(attr=cst.Name("to_dict")), ""
    if is_call or not names.is_read(node):
        return None
    return _rewritten(draft, names, node, key, lambda n: n.value)


def _membership(names: Names, node: cst.Comparison) -> Found:
    """`"key" in results`."""
    if len(node.comparisons) != 1:
        return None
    part = node.comparisons[0]
    if (
        not isinstance(part.operator, cst.In | cst.NotIn)
        or kind(names, part.comparator) != "result"
    ):
        return None
    key, mark = text_of(node.left), quote(names, node)

    def edit(n):
        name = {**RENAMED, **HOMES}.get(key)
        changed = n.comparisons[0].with_changes(
            comparator=_call_of(n.comparisons[0].comparator, "keys")
        )
        left = expression(mark + name + mark) if name else n.left
        return n.with_changes(left=left, comparisons=[changed])

    return edit, ""


def _column(draft: Draft, names: Names, node: cst.Subscript, key: str):
    """A column of metrics_summary."""
    if key not in COLUMNS or not names.is_read(node):
        return None
    text = f"{names.code(node)} is left: metrics_summary has no {key}; {COLUMNS[key]}."
    draft.say("left", names.cell_of(node), text)
    return None, f"metrics_summary has no {key}: {COLUMNS[key]}."


def _member(owner: cst.BaseExpression, path: str) -> cst.BaseExpression:
    return expression(cst.Module([]).code_for_node(owner) + path)


def _call_of(owner: cst.BaseExpression, method: str) -> cst.Call:
    return cst.Call(cst.Attribute(owner, cst.Name(method)))


def _flag_unproven(draft: Draft) -> None:
    """Name what reads like an old key of something that could not be followed."""
    if not any(use.symbol.name in ("Trainer", "test_fine_tuning") for use in uses(draft)):
        return
    names = draft.names
    for node in names.nodes(cst.Subscript):
        owner, key = member_of(node)
        if key in LEGACY and kind(names, owner) is None and names.is_read(node):
            text = f"{names.code(node)} reads like an old result, but what it reads is not proven"
            hint = RENAMED.get(key) or NEAREST.get(key) or REPLACED[key][0]
            draft.say("left", names.cell_of(node), f"{text}. The nearest thing: {hint}.")
