"""Checkpoints that fault tests write and read: small, and known by their step."""

import torch

from helpers.engine.checkpoint import Snapshot


def snapshot_of(step: int, width: int = 30) -> Snapshot:
    """A snapshot whose every number follows from its step."""
    rng = torch.Generator().manual_seed(step)
    sections = {
        "model": {"weight": torch.randn(40, width, generator=rng), "empty": torch.empty(0, 3)},
        "optimizer": {"momentum": torch.randn(40, width, generator=rng)},
    }
    return Snapshot(step, sections, {"run": {"step": step}, "note": "é", "none": None})


def is_as_saved(snapshot: Snapshot, width: int = 30) -> bool:
    """Whether a snapshot is bit for bit the one of its step."""
    saved = snapshot_of(snapshot.step, width)
    if snapshot.state != saved.state or snapshot.sections.keys() != saved.sections.keys():
        return False
    return all(
        snapshot.sections[section].keys() == tensors.keys()
        and all(torch.equal(snapshot.sections[section][name], t) for name, t in tensors.items())
        for section, tensors in saved.sections.items()
    )
