"""The arguments of an old call by name, whichever way they were given."""

from collections.abc import Sequence
from dataclasses import dataclass

import libcst as cst

from tools.codemod.names import Names


@dataclass
class Arguments:
    """What a call gives, as code by name; `refusal` says why it cannot be told."""

    given: dict[str, str]
    nodes: dict[str, cst.BaseExpression]
    refusal: str = ""

    def take(self, *names: str) -> str:
        """Take out the first of some arguments that is given; empty if none is."""
        found = [name for name in names if name in self.given]
        return self.given.pop(found[0]) if found else ""


def arguments(
    names: Names, original: cst.Call, updated: cst.Call, signature: Sequence[str]
) -> Arguments:
    """Sort the arguments of a call by a signature."""
    found = Arguments({}, {})
    positional = [arg for arg in original.args if arg.keyword is None and not arg.star]
    if len(positional) > len(signature):
        found.refusal = f"it has {len(positional)} arguments by place, more than the function took"
    for place, (before, arg) in enumerate(zip(original.args, updated.args, strict=True)):
        if arg.star:
            what = f"{arg.star}{names.code(before.value)}"
            found.refusal = f"what {what} holds is known only when it runs"
        elif arg.keyword is None and place >= len(signature):
            continue
        else:
            name = arg.keyword.value if arg.keyword else signature[place]
            found.given[name] = names.module.code_for_node(arg.value)
            found.nodes[name] = before.value
    return found
