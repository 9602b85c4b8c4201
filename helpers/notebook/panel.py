"""Live progress of a run: one HTML display that is updated in place, or plain lines.

The HTML is drawn from rows of metrics alone, so that it can be drawn again from a run's folder. It
needs no widget, holds a bounded number of points, and is updated at most twice a second.
"""

from __future__ import annotations

import html
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from helpers.engine.callbacks import Callback
from helpers.engine.checkpoint import CheckpointInfo
from helpers.engine.metrics import read_rows
from helpers.engine.plan import UNLIMITED
from helpers.engine.run import Run
from helpers.engine.run_folder import read_json

FOUND = "Nothing was trained now; extend() goes on with it, and resume='never' trains it again."
PAUSED = "All is saved; run the same again to go on."
MIN_REFRESH_S = 0.5
LINE_EVERY_S = 5.0
MAX_POINTS = 240
MAX_SAMPLE_CHARACTERS = 400
# A loss beyond belongs to a run that diverges; drawn, it would flatten all others.
MAX_LOSS = 1e6
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 640, 220, 52, 36, 10
TRAIN_COLOR, VAL_COLOR = "#4c8eda", "#e07b39"


@dataclass
class PanelView:
    """All that a panel shows, as plain values."""

    run_id: str
    status: str
    total_steps: int
    rows: Sequence[dict[str, Any]]
    step: int = 0
    notes: Sequence[str] = ()
    sample: str = ""
    best: tuple[int, float] | None = None

    def _repr_html_(self) -> str:
        return render(self)

    def line(self) -> str:
        """Where the run stands, in one line."""
        words = [f"{self.run_id} {self.status}, {place(self.step, self.total_steps)}"]
        rows = [row for row in self.rows if "train/loss" in row]
        if rows:
            words.append(f"loss {rows[-1]['train/loss']:.4f}")
            if self.status == "training":
                words.append(f"{clock(seconds_left(rows[-1], self.total_steps))} left")
        return ", ".join([*words, *self.notes[-1:]] if self.status == "paused" else words)

    def __repr__(self) -> str:
        return "\n".join(filter(None, [f"{self.run_id}: {self.status}", *map(line_of, self.rows)]))


def progress_callbacks(mode: str) -> list[Callback]:
    """The callback for a `panel` setting; auto is html in a notebook and lines elsewhere."""
    if mode == "auto":
        mode = "html" if in_notebook() else "lines"
    return {"html": [HtmlPanel()], "lines": [LinePanel()], "off": []}[mode]


def in_notebook() -> bool:
    """Whether a Jupyter or Colab kernel shows what this process displays."""
    if "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return getattr(shell, "kernel", None) is not None


def view_run(run_dir: str | Path) -> PanelView:
    """The panel of a run from its folder: while it runs elsewhere, or long after.

    Raises: FileNotFoundError if the folder holds no run.
    """
    folder = Path(run_dir).expanduser()
    if not (folder / "run.json").exists():
        raise FileNotFoundError(f"{folder} has no run.json, so it is not the folder of a run.")
    rows = read_rows(folder / "metrics.jsonl") if (folder / "metrics.jsonl").exists() else []
    result = read_json(folder / "result.json") or {"status": "not ended", "steps": 0}
    steps = max((row["step"] for row in rows), default=0)
    losses = [(row["step"], row["val/loss"]) for row in rows if "val/loss" in row]
    best = min(losses, key=lambda pair: pair[1], default=None)
    steps = max(steps, result["steps"])
    return PanelView(folder.name, result["status"], steps, rows, steps, best=best)


@dataclass
class HtmlPanel(Callback):
    """The panel in a notebook's output."""

    status: str = "training"
    _notes: list[str] = field(default_factory=list)
    _saved: str = ""
    _handle: Any = None
    _shown_at: float = 0.0

    def on_start(self, run: Run) -> None:
        if run.resumed_from is not None:
            self._note(run, f"continued from step {run.resumed_from:,}")
        self._show(run, force=True)

    def on_found_complete(self, run: Run, status: str) -> None:
        self.status = f"{status} before"
        self._notes = [FOUND]
        self._show(run, force=True)

    def on_log(self, run: Run, row: dict[str, Any]) -> None:
        self._show(run, force=row["step"] == 1)

    def on_evaluate(self, run: Run, row: dict[str, Any]) -> None:
        self._show(run)

    def on_checkpoint(self, run: Run, info: CheckpointInfo) -> None:
        self._saved = f"step {info.step:,}: checkpoint of {info.n_bytes / 2**20:.1f} MiB is durable"

    def on_event(self, run: Run, kind: str, message: str) -> None:
        self._note(run, f"{kind}: {message}")
        self._show(run, force=True)

    def on_end(self, run: Run, status: str) -> None:
        self.status = status
        if status == "paused":
            self._note(run, PAUSED)
        self._show(run, force=True)

    def _note(self, run: Run, text: str) -> None:
        self._notes = [*self._notes[-2:], f"step {run.state.step:,}: {text}"]

    def _show(self, run: Run, *, force: bool = False) -> None:
        if not force and time.monotonic() - self._shown_at < MIN_REFRESH_S:
            return
        from IPython.display import display

        state = run.state
        view = PanelView(
            run_id=run.run_id,
            status=self.status,
            step=state.step,
            total_steps=run.expected_steps,
            rows=run.tracker.rows,
            notes=[*self._notes, *filter(None, [self._saved, run.mirror and run.mirror.note])],
            sample=run.samples[-1][1] if run.samples else "",
            best=None if state.best_step is None else (state.best_step, state.best_loss),
        )
        both = {"text/html": render(view), "text/plain": view.line()}
        if self._handle is None:
            self._handle = display(both, raw=True, display_id=True)
        else:
            self._handle.update(both, raw=True)
        self._shown_at = time.monotonic()


@dataclass
class LinePanel(Callback):
    """A line each few seconds, at each validation and for each event."""

    stream: TextIO | None = None
    _written_at: float = -math.inf

    def on_start(self, run: Run) -> None:
        start = f"continued from step {run.resumed_from:,}" if run.resumed_from else "started"
        length = f"{run.total_steps:,} steps" if run.total_steps < UNLIMITED else "as time allows"
        self._write(f"run {run.run_id} {start}, {length}, in {run.folder.path}")

    def on_log(self, run: Run, row: dict[str, Any]) -> None:
        if time.monotonic() - self._written_at >= LINE_EVERY_S:
            left = seconds_left(row, run.expected_steps)
            self._write(f"{line_of(row)}  {clock(left)} left")
            self._written_at = time.monotonic()

    def on_evaluate(self, run: Run, row: dict[str, Any]) -> None:
        self._write(line_of(row))

    def on_event(self, run: Run, kind: str, message: str) -> None:
        self._write(f"step {run.state.step:,}  {kind}: {message}")

    def on_found_complete(self, run: Run, status: str) -> None:
        self._write(f"run {run.run_id} {status} before, at step {run.state.step:,}. {FOUND}")

    def on_end(self, run: Run, status: str) -> None:
        hint = f". {PAUSED}" if status == "paused" else ""
        self._write(f"run {run.run_id} {status} at step {run.state.step:,}{hint}")

    def _write(self, text: str) -> None:
        stream = self.stream or sys.stderr
        stream.write(text + "\n")
        stream.flush()


def line_of(row: dict[str, Any]) -> str:
    """One row of metrics as text."""
    words = [f"step {row['step']:>6,}", f"epoch {row['epoch']:.2f}"]
    if "train/loss" in row:
        words.append(f"loss {row['train/loss']:.4f}")
        words.append(f"{row['tokens_per_s']:,.0f} tokens/s")
    if "val/loss" in row:
        words.append(f"validation loss {row['val/loss']:.4f}")
    if "val/bits_per_byte" in row:
        words.append(f"{row['val/bits_per_byte']:.3f} bits/byte")
    return "  ".join(words)


def place(step: int, total_steps: int) -> str:
    """A step, and of how many where that is known."""
    return f"step {step:,} of {total_steps:,}" if total_steps else f"step {step:,}"


def seconds_left(row: dict[str, Any], total_steps: int) -> float:
    """Time to the last step at the mean speed so far, in seconds of training."""
    return row["elapsed_s"] / row["step"] * (total_steps - row["step"])


def clock(seconds: float) -> str:
    """A duration as minutes and seconds, or hours and minutes.

    >>> clock(75), clock(7500)
    ('1:15 min', '2:05 h')
    """
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"


def render(view: PanelView) -> str:
    """The panel as self-contained HTML without scripts."""
    train = [row for row in view.rows if "train/loss" in row]
    val = [row for row in view.rows if "val/loss" in row]
    step = max([view.step, *(row["step"] for row in view.rows)])
    share = 100 * step / max(1, view.total_steps)
    parts = [
        "<div style='font:13px/1.5 system-ui,sans-serif;max-width:660px'>",
        f"<div><b>{html.escape(view.run_id)}</b> &middot; {html.escape(view.status)} &middot; "
        f"{place(step, view.total_steps)}</div>",
        "<div style='background:#8883;border-radius:3px;height:6px;margin:4px 0 6px'>"
        f"<div style='background:{TRAIN_COLOR};border-radius:3px;height:6px;width:{share:.1f}%'>"
        "</div></div>",
        _figures(view, train, val),
        chart(train, val, view.total_steps),
    ]
    if view.sample:
        text = html.escape(view.sample[:MAX_SAMPLE_CHARACTERS])
        parts.append(
            "<div style='opacity:.7'>sample at the last validation</div><pre style='margin:2px 0 "
            "6px;padding:6px;background:#8881;white-space:pre-wrap;font-family:monospace'>"
            f"{text}</pre>"
        )
    parts += [f"<div style='opacity:.7'>{html.escape(note)}</div>" for note in view.notes]
    return "".join([*parts, "</div>"])


def _figures(view: PanelView, train: list[dict], val: list[dict]) -> str:
    """The numbers of now, each under its name and unit."""
    cells = []
    if train:
        row = train[-1]
        cells += [
            ("training loss (nats)", f"{row['train/loss']:.4f}"),
            ("learning rate", f"{row['learning_rate']:.2e}"),
            ("gradient norm", f"{row['gradient_norm']:.2f}"),
            ("tokens per s", f"{row['tokens_per_s']:,.0f}"),
            ("training time", clock(row["elapsed_s"])),
        ]
        if view.status == "training":
            cells.append(("left", clock(seconds_left(row, view.total_steps))))
    if val:
        cells.insert(1, ("validation loss (nats)", f"{val[-1]['val/loss']:.4f}"))
    if view.best:
        cells.insert(2, (f"best, at step {view.best[0]:,}", f"{view.best[1]:.4f}"))
    inner = "".join(
        f"<div><div style='opacity:.7;font-size:11px'>{name}</div><b>{value}</b></div>"
        for name, value in cells
    )
    return f"<div style='display:flex;flex-wrap:wrap;gap:4px 18px'>{inner}</div>"


def chart(train: list[dict], val: list[dict], total_steps: int) -> str:
    """Both losses over steps as an SVG with axes and units; nothing before the first loss."""
    points = [(r["step"], r["train/loss"]) for r in train if abs(r["train/loss"]) < MAX_LOSS]
    marks = [(r["step"], r["val/loss"]) for r in val if abs(r["val/loss"]) < MAX_LOSS]
    if not points:
        return ""
    points, marks = _thinned(points), _thinned(marks)
    losses = [loss for _, loss in points + marks]
    low, high = min(losses), max(losses)
    is_flat = high - low < 1e-6 * max(1, abs(high))
    low, high = (low - 0.5, high + 0.5) if is_flat else (low - 0.05 * (high - low), high)

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - 10) * step / max(1, total_steps)

    def y(loss: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - loss) / (high - low)

    path = " ".join(f"{x(step):.1f},{y(loss):.1f}" for step, loss in points)
    dots = "".join(
        f"<circle cx='{x(step):.1f}' cy='{y(loss):.1f}' r='3' fill='{VAL_COLOR}'/>"
        for step, loss in marks
    )
    grid = "".join(
        f"<line x1='{LEFT}' x2='{WIDTH - 10}' y1='{y(v):.1f}' y2='{y(v):.1f}' opacity='.15' "
        f"stroke='currentColor'/><text x='{LEFT - 6}' y='{y(v) + 4:.1f}' text-anchor='end'>"
        f"{v:.3g}</text>"
        for v in _ticks(low, high)
    )
    steps = "".join(
        f"<text x='{x(v):.1f}' y='{HEIGHT - BOTTOM + 16}' text-anchor='middle'>{v:,.0f}</text>"
        for v in _ticks(0, max(1, total_steps))
        if v == int(v)
    )
    middle = (LEFT + WIDTH) / 2
    return (
        f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' style='width:100%;max-width:{WIDTH}px' "
        f"font-size='11' fill='currentColor'>{grid}{steps}"
        f"<polyline points='{path}' fill='none' stroke='{TRAIN_COLOR}' stroke-width='1.5'/>{dots}"
        f"<text x='{middle}' y='{HEIGHT - 4}' text-anchor='middle'>optimizer step</text>"
        f"<text transform='translate(12 {HEIGHT / 2 - 10}) rotate(-90)' text-anchor='middle'>"
        "loss (nats per token)</text>"
        f"<g transform='translate({WIDTH - 130} {TOP + 8})'><line x2='16' y1='-3' y2='-3' "
        f"stroke='{TRAIN_COLOR}' stroke-width='2'/><text x='22'>training</text>"
        f"<circle cx='8' cy='13' r='3' fill='{VAL_COLOR}'/><text x='22' y='17'>validation</text>"
        "</g></svg>"
    )


def _thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most MAX_POINTS points, each the mean of its neighbours; the last one stays."""
    if len(points) <= MAX_POINTS:
        return points
    size = math.ceil(len(points) / MAX_POINTS)
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(g[-1][0], sum(loss for _, loss in g) / len(g)) for g in groups]


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers between two bounds."""
    raw = (high - low) / 6
    power = 10 ** math.floor(math.log10(raw))
    size = next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
    first = math.ceil(low / size)
    return [round(i * size, 10) for i in range(first, math.floor(high / size) + 1)]
