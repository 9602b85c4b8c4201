"""Take out a `TrainingCoordinator` that is built and never used; flag one that is.

-coordinator = TrainingCoordinator(model, config)
 trainer = Trainer(model, config, training_config)
"""

import libcst as cst

from tools.codemod.build import is_noted, with_comment
from tools.codemod.draft import Draft
from tools.codemod.names import Names
from tools.migrations.legacy import COORDINATOR, TARGET
from tools.migrations.symbols import calls

PLAIN = (cst.Name, cst.Attribute, cst.BaseNumber, cst.SimpleString, cst.Subscript)
NOTE = f"{COORDINATOR} is gone: build a Trainer of {TARGET}, and call its train."


def migrate(draft: Draft) -> None:
    """Remove or flag each one."""
    names, edits = draft.names, {}
    for call, _ in calls(draft, COORDINATOR):
        line = names.line_of(call)
        if _is_unused(names, call, line):
            edits[line] = _removed(names, line)
            text = f"{names.code(line.body[0])} is taken out: nothing reads it."
            draft.say("dropped", names.cell_of(call), text)
        else:
            if not is_noted(draft, call, NOTE):
                edits[line] = lambda node: with_comment(node, NOTE)
            text = f"{names.code(call)} is left, since it is used. Build a Trainer in its place."
            draft.say("left", names.cell_of(call), text)
    draft.edit(edits)


def _is_unused(names: Names, call: cst.Call, line: cst.CSTNode) -> bool:
    """Whether a statement does nothing but build one that no cell reads."""
    if not isinstance(line, cst.SimpleStatementLine) or len(line.body) != 1:
        return False
    if not all(isinstance(arg.value, PLAIN) for arg in call.args):
        return False
    part = line.body[0]
    if isinstance(part, cst.Expr):
        return part.value is call
    if not isinstance(part, cst.Assign) or part.value is not call:
        return False
    targets = [target.target for target in part.targets]
    if not all(isinstance(target, cst.Name) for target in targets):
        return False
    scope = names.scope(targets[0])
    reads = [access for t in targets for a in scope[t.value] for access in a.references]
    return not reads and not any(t.value in names.hidden for t in targets)


def _removed(names: Names, line: cst.SimpleStatementLine):
    """Take a line out; comments above it go with it, and an empty block gets a `pass`."""
    block = names.parents[line]
    if isinstance(block, cst.IndentedBlock) and len(block.body) == 1:
        return lambda node: node.with_changes(body=[cst.Pass()])
    return lambda _: cst.RemoveFromParent()
