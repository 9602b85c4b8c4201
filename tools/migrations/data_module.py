"""Make data with `UniversalDataModule`, and say which of its arguments are not what they were.

-data = SimpleDataModule(texts, batch_size=4)
+# SimpleDataModule took batch_size; UniversalDataModule does not.
+data = UniversalDataModule(texts, batch_size=4)
"""

import libcst as cst

from tools.codemod.build import add_imports, local_name, with_comment
from tools.codemod.draft import Draft
from tools.codemod.names import dotted
from tools.migrations.legacy import DATA_MODULE, TARGET
from tools.migrations.symbols import calls, uses

NEW = "UniversalDataModule"
TAKEN = {"source", "tokenizer", "vocab_size", "sequence_length", "val_fraction", "cache_dir"}


def migrate(draft: Draft) -> None:
    """Flag the arguments that are gone, then rename what is not an alias of the reader's own."""
    names, edits = draft.names, {}
    for call, what in calls(draft, DATA_MODULE, NEW):
        gone = [
            arg.keyword.value for arg in call.args if arg.keyword and arg.keyword.value not in TAKEN
        ]
        more = sum(arg.keyword is None and not arg.star for arg in call.args) > 1
        if what.is_legacy and (gone or more):
            note = _note(gone)
            edits[names.line_of(call)] = lambda node, note=note: with_comment(node, note)
            draft.say("left", names.cell_of(call), f"{names.code(call)}: {note}")
    draft.edit(edits)
    _rename(draft)


def _note(gone: list[str]) -> str:
    if not gone:
        return f"{NEW} takes its source by place, and everything else by name."
    return f"{NEW} takes no {', '.join(gone)}: it has {', '.join(sorted(TAKEN))}."


def _rename(draft: Draft) -> None:
    """Write the new name where the old one stands, and import it there."""
    while True:
        found = [
            use
            for use in uses(draft)
            if use.symbol.name == DATA_MODULE
            and dotted(use.node).rpartition(".")[2] == DATA_MODULE
            and not draft.is_fixed(use.node)
        ]
        if not found:
            return
        cell = draft.names.cell_of(found[0].node)
        name = local_name(draft, TARGET, NEW, found[0].node)
        own = [use.node for use in found if draft.names.cell_of(use.node) is cell]
        if not draft.edit({node: lambda _, name=name: cst.parse_expression(name) for node in own}):
            return
        add_imports(draft, TARGET, cell, [name])
