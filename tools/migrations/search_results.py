"""Read the result of a search by the names it has today.

-print(hp_results["best_params"], hp_results["trials_df"])
+print(hp_results.best_params, hp_results.trial_results)
"""

import libcst as cst

from tools.codemod.build import is_noted, with_comment
from tools.codemod.draft import Draft
from tools.codemod.names import Names
from tools.migrations.flow import kind, member_of, text_of

SAME = {"best_params", "best_value", "n_trials", "all_trials", "trial_results"}
RENAMED = {
    "trials_df": "trial_results",
    "best_loss": "best_value",
    "best_val_loss": "best_value",
}
GONE = {"error": "a search that fails raises; a trial that fails says so in trial_results"}


def migrate(draft: Draft) -> None:
    """Rewrite and flag each use, in the order of the text."""
    names, edits, notes = draft.names, {}, {}
    for node in names.nodes(cst.Subscript, cst.Attribute, cst.Call):
        owner, key = _read(names, node)
        if not key or kind(names, owner) != "search" or not names.is_read(node):
            continue
        if key in GONE:
            text = f"{names.code(node)} is left: there is no {key}; {GONE[key]}."
            draft.say("left", names.cell_of(node), text)
            note = f"No {key} any more: {GONE[key]}."
            if not is_noted(draft, node, note):
                notes.setdefault(names.line_of(node), []).append(note)
        elif key in RENAMED or (key in SAME and not isinstance(node, cst.Attribute)):
            edits[node] = _edit(RENAMED.get(key, key))
    for line, texts in notes.items():
        edits[line] = _noted(texts)
    draft.edit(edits)


def _read(names: Names, node: cst.CSTNode) -> tuple[cst.BaseExpression | None, str]:
    """Owner and key of `r["k"]`, `r.k` and `r.get("k")`."""
    if not isinstance(node, cst.Call):
        return member_of(node)
    is_get = isinstance(node.func, cst.Attribute) and node.func.attr.value == "get" and node.args
    return (node.func.value, text_of(node.args[0].value)) if is_get else (None, "")


def _edit(name: str):
    def edit(node):
        owner = node.func.value if isinstance(node, cst.Call) else node.value
        return cst.Attribute(owner, cst.Name(name))

    return edit


def _noted(texts: list[str]):
    def edit(node):
        for text in dict.fromkeys(texts):
            node = with_comment(node, text)
        return node

    return edit
