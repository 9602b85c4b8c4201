"""Plots of a run: what was learned, at which learning rate, and against what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from helpers.engine.result import TrainingResult
from helpers.engine.schedule import SchedulerFactory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from helpers.config import TrainingConfig

LABELS = {"trigram": "3-gram", "fivegram": "5-gram"}
TRAIN_COLOR, VAL_COLOR, OTHER_COLOR = "#4c8eda", "#e07b39", "#9aa5b1"


def plot_losses(result: TrainingResult) -> Figure:
    """Training and validation loss over steps.

    The training loss is the mean of each logged window; the best validation is marked.
    """
    fig, ax = _figure()
    history = result.history
    ax.plot(history["step"], history["train/loss"], color=TRAIN_COLOR, lw=1, label="training")
    if "val/loss" in history:
        val = history[history["val/loss"].notna()]
        ax.plot(val["step"], val["val/loss"], "o-", color=VAL_COLOR, ms=4, label="validation")
        best = val.loc[val["val/loss"].idxmin()]
        label = f"best {best['val/loss']:.3f}"
        ax.annotate(
            label,
            (best["step"], best["val/loss"]),
            xytext=(0, 12),
            textcoords="offset points",
            ha="right",
        )
    ax.set(xlabel="optimizer step", ylabel="loss (nats per token)")
    ax.legend(frameon=False)
    return fig


def plot_schedule(config: TrainingConfig, total_steps: int) -> Figure:
    """Learning rate of each update of a run."""
    schedule = SchedulerFactory.create(config, total_steps)
    fig, ax = _figure(height=2.2)
    rates = [config.learning_rate * schedule(update) for update in range(total_steps)]
    ax.plot(range(1, total_steps + 1), rates, color=TRAIN_COLOR)
    ax.set(xlabel="optimizer step", ylabel="learning rate", ylim=(0, None))
    return fig


def plot_comparison(bits_per_byte: Mapping[str, float], ours: str = "this model") -> Figure:
    """Bits per byte as bars, the best on top; lower is better."""
    ranked = sorted(bits_per_byte.items(), key=lambda pair: -pair[1])
    ranked = [(LABELS.get(name, name), value) for name, value in ranked]
    names, values = [name for name, _ in ranked], [value for _, value in ranked]
    fig, ax = _figure(height=0.5 + 0.36 * len(names))
    colors = [TRAIN_COLOR if name == ours else OTHER_COLOR for name in names]
    bars = ax.barh(names, values, color=colors)
    ax.bar_label(bars, fmt="%.2f", padding=4)
    ax.set(xlabel="bits per byte of validation text (lower is better)")
    ax.margins(x=0.12)
    return fig


def _figure(height: float = 3.4) -> tuple[Figure, Axes]:
    """A figure that is shown once, by the value of its cell."""
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(7, height), layout="constrained")
    ax.spines[["top", "right"]].set_visible(False)
    plt.close(fig)
    return fig, ax
