"""The size of a model, in all and part by part."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    import pandas as pd


def count_parameters(model: nn.Module, *, trainable_only: bool = False) -> int:
    """Number of parameters; one that is shared counts once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable_only)


def summarize(model: nn.Module) -> pd.DataFrame:
    """Parameters of each direct part of a model, with its share in percent.

    A parameter that two parts share is counted where it comes first.
    """
    import pandas as pd

    seen: set[int] = set()
    rows = []
    for name, child in model.named_children():
        fresh = [p for p in child.parameters() if id(p) not in seen]
        seen.update(map(id, fresh))
        rows.append((name, type(child).__name__, sum(p.numel() for p in fresh)))
    own = sum(p.numel() for p in model.parameters() if id(p) not in seen)
    rows += [("(its own)", type(model).__name__, own)] if own else []
    rows.append(("all", type(model).__name__, sum(n for *_, n in rows)))
    table = pd.DataFrame(rows, columns=["part", "type", "parameters"]).set_index("part")
    table["share (%)"] = (100 * table["parameters"] / max(1, rows[-1][2])).round(1)
    return table
