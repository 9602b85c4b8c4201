"""What may happen beside the loop: callbacks are told of logs, validations and checkpoints.

A callback overrides the methods it needs. What it must remember across a resume it returns from
`state_dict`. How it asks for the end of a run is in `helpers.engine.run.Run`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from helpers.models.generate import complete_text

if TYPE_CHECKING:
    from helpers.engine.checkpoint import CheckpointInfo
    from helpers.engine.run import Run


class Callback:
    """Base of all callbacks; every method does nothing."""

    def on_start(self, run: Run) -> None:
        """Before the first step of a session, after a resume."""

    def on_found_complete(self, run: Run, status: str) -> None:
        """Instead of all that follows, where the run had ended before and nothing is trained."""

    def on_log(self, run: Run, row: dict[str, Any]) -> None:
        """After a row of training was recorded."""

    def on_evaluate(self, run: Run, row: dict[str, Any]) -> None:
        """After a validation."""

    def on_checkpoint(self, run: Run, info: CheckpointInfo) -> None:
        """After a checkpoint is durable."""

    def on_event(self, run: Run, kind: str, message: str) -> None:
        """After something worth telling happened."""

    def on_end(self, run: Run, status: str) -> None:
        """After the last step of a session, whatever ended it."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of the callback, as plain JSON types."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""


class EarlyStopping(Callback):
    """Stop a run whose validation loss has not fallen for `patience` validations."""

    def __init__(self, patience: int, min_delta: float = 0.0) -> None:
        self.patience, self.min_delta = patience, min_delta
        self.best, self.waited = math.inf, 0

    def on_evaluate(self, run: Run, row: dict[str, Any]) -> None:
        loss = row["val/loss"]
        if loss < self.best - self.min_delta:
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            run.stop_early(
                f"validation loss has not fallen by more than {self.min_delta} nats below "
                f"{self.best:.4f} in {self.waited} validations"
            )

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.waited = state["best"], state["waited"]


class TextSamples(Callback):
    """Continue a prompt at each validation, and keep the texts in `run.samples`."""

    def __init__(self, tokenizer: Any, prompt: str, n_tokens: int, context: int, seed: int) -> None:
        self.tokenizer, self.prompt, self.n_tokens = tokenizer, prompt, n_tokens
        self.options = {"context": context, "seed": seed}

    def on_evaluate(self, run: Run, row: dict[str, Any]) -> None:
        if not self.n_tokens:
            return
        try:
            text = complete_text(
                run.model, self.tokenizer, self.prompt, self.n_tokens, **self.options
            )
        except (TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
            # A sample is for the eye; a model that cannot be sampled from is trained all the same.
            self.n_tokens = 0
            run.tell("no samples", f"the model cannot continue a text: {error}")
            return
        run.samples.append((row["step"], text))
