"""What goes into a model, what it predicts, and which loss and metrics judge it: plain data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from helpers.errors import ConfigError

# Label of a position that no loss counts.
IGNORED = -100


@dataclass(frozen=True)
class TaskSpec:
    """The task of a run; `helpers.objectives` turns it into a loss for a given model.

    `inputs` are the fields of a batch that the model gets, `labels` the field that it is judged by.
    Labels of `ignore_index` do not count. Causal labels are the inputs moved by one; where a batch
    has none, they are made from the first input.
    """

    kind: str = "causal_lm"
    inputs: tuple[str, ...] = ("input_ids",)
    labels: str = "labels"
    ignore_index: int = IGNORED
    metrics: tuple[str, ...] = ("loss", "perplexity", "accuracy", "bits_per_byte")

    KINDS: ClassVar[tuple[str, ...]] = ("causal_lm",)
    METRICS: ClassVar[tuple[str, ...]] = ("loss", "perplexity", "accuracy", "bits_per_byte")

    def __post_init__(self) -> None:
        if self.kind not in self.KINDS:
            raise ConfigError(
                f"kind is {self.kind!r}, but the tasks are {', '.join(self.KINDS)}. Use one."
            )
        unknown = [name for name in self.metrics if name not in self.METRICS]
        if unknown:
            raise ConfigError(
                f"metrics has {unknown}, but the metrics are {', '.join(self.METRICS)}. "
                "Leave the others out."
            )
        if not self.inputs:
            raise ConfigError("inputs is empty, but a model needs one. Name a field of the batch.")

    @classmethod
    def causal_lm(cls, **changes: Any) -> TaskSpec:
        """Predict each next token from the tokens before it."""
        return cls(kind="causal_lm", **changes)

    def to_dict(self) -> dict[str, Any]:
        """All values as plain JSON types."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }

    def _repr_html_(self) -> str:
        cell = "<td style='text-align:left'>"
        rows = "".join(
            f"<tr>{cell}{name}</td>{cell}{', '.join(value) if isinstance(value, list) else value}"
            "</td></tr>"
            for name, value in self.to_dict().items()
        )
        return f"<table>{rows}</table>"
