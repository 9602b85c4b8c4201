"""Which names hold a trainer, a config, a result: followed through assignments, across cells."""

import libcst as cst

from tools.codemod.draft import Draft
from tools.codemod.names import Names
from tools.migrations.legacy import DATA_MODULE
from tools.migrations.symbols import symbol

MADE_BY = {
    "Trainer": "trainer",
    "TrainingConfig": "config",
    "TrainingConfigBuilder": "builder",
    "TaskSpec": "task",
    "UniversalDataModule": "data",
    DATA_MODULE: "data",
    "run_search": "search",
}
"""Kind of what a call of a known name returns."""

METHODS = {
    ("trainer", "train"): "result",
    ("builder", "build"): "config",
    ("config", "replace"): "config",
    ("result", "copy"): "result",
}
MEMBERS = {("result", "metrics_summary"): "summary", ("search", "trial_results"): "trials"}
CONSTRUCTORS = {"TrainingConfig": "config", "TrainingConfigBuilder": "builder", "TaskSpec": "task"}
NEUTRAL = ("None", "{}", "[]", "dict()", "list()")
"""What a name may hold before it is given its real value."""
MAX_DEPTH = 20


def kind(names: Names, node: cst.BaseExpression | None, depth: int = 0) -> str | None:
    """What an expression holds, if that can be proved; nothing for one that goes in a circle."""
    if node is None or depth > MAX_DEPTH:
        return None
    if node not in names.kinds:
        names.kinds[node] = None
        names.kinds[node] = _kind(names, node, depth)
    return names.kinds[node]


def _kind(names: Names, node: cst.BaseExpression, depth: int) -> str | None:
    if isinstance(node, cst.Name):
        return kind_of_name(names, node, depth)
    if isinstance(node, cst.NamedExpr):
        return kind(names, node.value, depth + 1)
    if isinstance(node, cst.Call):
        return _kind_of_call(names, node, depth)
    owner, member = member_of(node)
    return MEMBERS.get((kind(names, owner, depth + 1), member)) if member else None


def kind_of_name(names: Names, name: cst.Name, depth: int = 0) -> str | None:
    """What a name holds where it is read, if all that may have bound it agree."""
    found = set()
    for binding in names.reaching(name):
        value = names.value(binding)
        if value is not None and names.code(value) in NEUTRAL:
            continue
        found.add(kind(names, value, depth + 1))
    return found.pop() if len(found) == 1 else None


def _kind_of_call(names: Names, call: cst.Call, depth: int) -> str | None:
    what = symbol(names, call.func)
    if what is not None:
        return MADE_BY.get(what.name)
    if isinstance(call.func, cst.Attribute):
        method, owner = call.func.attr.value, symbol(names, call.func.value)
        if owner is not None:
            return CONSTRUCTORS.get(owner.name)
        held = kind(names, call.func.value, depth + 1)
        if held == "builder" and method.startswith("with_"):
            return "builder"
        if held == "result" and method == "get" and call.args:
            return MEMBERS.get((held, text_of(call.args[0].value)))
        return METHODS.get((held, method))
    if isinstance(call.func, cst.Name):
        return _kind_of_return(names, call.func, depth)
    return None


def _kind_of_return(names: Names, function: cst.Name, depth: int) -> str | None:
    """What a function defined in the notebook returns."""
    bindings = [binding.node for binding in names.reaching(function)]
    if len(bindings) != 1 or not isinstance(bindings[0], cst.FunctionDef):
        return None
    definition = bindings[0]
    returns = [
        node.value
        for node in names.nodes(cst.Return)
        if names.around(node, cst.FunctionDef, cst.Lambda) is definition
    ]
    found = {kind(names, value, depth + 1) for value in returns}
    return found.pop() if len(found) == 1 else None


def member_of(node: cst.CSTNode) -> tuple[cst.BaseExpression | None, str]:
    """Owner and name of `owner.name` and `owner["name"]`; an empty name for anything else."""
    if isinstance(node, cst.Attribute):
        return node.value, node.attr.value
    if isinstance(node, cst.Subscript) and len(node.slice) == 1:
        index = node.slice[0].slice
        if isinstance(index, cst.Index):
            return node.value, text_of(index.value)
    return None, ""


def text_of(node: cst.CSTNode) -> str:
    """The value of a plain string literal; empty for anything else."""
    if isinstance(node, cst.SimpleString) and isinstance(node.evaluated_value, str):
        return node.evaluated_value
    return ""


def holders(draft: Draft, wanted: str, before: cst.CSTNode) -> list[str]:
    """Global names that hold a kind of thing at the top of cells before a node, last one first."""
    names, found = draft.names, {}
    place = names.order[before]
    for name in names.nodes(cst.Name):
        if names.order[name] >= place or names.is_read(name) or not names.is_top(name):
            continue
        bindings = [b for b in names.bindings(name) if b.node is name]
        if bindings:
            found.pop(name.value, None)
            found[name.value] = kind(names, names.value(bindings[0]))
    return [name for name, held in reversed(found.items()) if held == wanted]
