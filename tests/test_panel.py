"""The panel draws any run, within bounds, in HTML that says what its numbers are."""

import io
import json
import math
import xml.dom.minidom
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from helpers.engine.callbacks import Callback
from helpers.notebook.panel import (
    MAX_POINTS,
    LinePanel,
    PanelView,
    clock,
    line_of,
    progress_callbacks,
    render,
    view_run,
)

EVIL = "<script>alert('x')</script>&\"'</pre><img src=x onerror=y>"
ODD = [math.nan, math.inf, -math.inf, 0.0, 1e-300, 1e20, 1e300, 1.7e308]


def train_row(step: int, loss: float = 2.0, **values: float) -> dict:
    row = {
        "step": step,
        "epoch": step / 100,
        "train/loss": loss,
        "train/perplexity": 7.4,
        "gradient_norm": 0.5,
        "tokens_per_s": 12_345.6,
        "elapsed_s": step / 10,
        "learning_rate": 3e-4,
    }
    return row | values


def val_row(step: int, loss: float = 2.5) -> dict:
    return {"step": step, "epoch": step / 100, "val/loss": loss, "val/bits_per_byte": 3.6}


def view(rows=(), **changes) -> PanelView:
    settings = {"run_id": "r", "status": "training", "total_steps": 100, "rows": list(rows)}
    return PanelView(**settings | changes)


def check_html(text: str) -> None:
    """Raise an error unless the text is well-formed and all numbers in the drawing are finite."""
    tree = xml.dom.minidom.parseString(text.replace("&middot;", "-"))
    for kind in ("polyline", "circle", "line", "text"):
        for element in tree.getElementsByTagName(kind):
            values = " ".join(value for _, value in element.attributes.items())
            assert "nan" not in values
            assert "inf" not in values


def test_a_hundred_thousand_rows_give_a_page_of_bounded_size():
    rows = [train_row(step, 5 / step) for step in range(1, 100_001)]
    rows += [val_row(step, 6 / step) for step in range(10, 100_001, 10)]
    text = render(view(rows, total_steps=100_000))

    check_html(text)
    assert len(text) < 60_000
    assert text.count("<circle") <= MAX_POINTS + 1
    assert len(text.partition("points='")[2].partition("'")[0].split()) <= MAX_POINTS


def test_the_first_and_the_last_step_are_drawn_at_the_two_ends():
    rows = [train_row(step, 5 / step) for step in range(1, 1001)]
    points = render(view(rows, total_steps=1000)).partition("points='")[2].partition("'")[0]
    x = [float(point.partition(",")[0]) for point in points.split()]

    assert x == sorted(x)
    assert x[0] < 60
    assert x[-1] == 630


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"run_id": EVIL}, id="run"),
        pytest.param({"status": EVIL}, id="status"),
        pytest.param({"notes": [EVIL, EVIL]}, id="notes"),
        pytest.param({"sample": EVIL}, id="sample"),
        pytest.param({"sample": "\x00\x1b[31m\ufffe" + EVIL}, id="control characters"),
    ],
)
def test_every_string_is_escaped(changes):
    text = render(view([train_row(1)], **changes))

    assert "<script" not in text
    assert "<img" not in text
    assert "&lt;script&gt;" in text


def test_axes_figures_and_lines_have_names_and_units():
    text = render(view([train_row(1), val_row(2)], best=(2, 2.5)))

    for label in (
        "optimizer step",
        "loss (nats per token)",
        "training loss (nats)",
        "validation loss (nats)",
        "tokens per s",
        "learning rate",
        "gradient norm",
        "best, at step 2",
        ">training<",
        ">validation<",
    ):
        assert label in text


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([], id="no row"),
        pytest.param([train_row(1)], id="one row"),
        pytest.param([val_row(1)], id="validation only"),
        pytest.param([train_row(s) for s in range(1, 9)], id="a constant loss"),
        pytest.param([train_row(1), train_row(2, math.nan)], id="not a number at the end"),
        pytest.param([train_row(s, math.nan) for s in (1, 2)], id="not a number only"),
        pytest.param([train_row(1), val_row(1, math.nan)], id="validation not a number"),
        pytest.param([train_row(1, gradient_norm=math.inf)], id="infinite gradient"),
        pytest.param([train_row(200)], id="beyond the last step"),
    ],
)
def test_any_rows_can_be_drawn(rows):
    text = render(view(rows))

    check_html(text)
    assert "step" in text


@given(
    st.lists(st.sampled_from(ODD) | st.floats(0, 1e3), max_size=400),
    st.lists(st.sampled_from(ODD) | st.floats(0, 1e3), max_size=8),
)
@example([1e20], [])
@example([1e-300, 0.0], [])
@example([1.7e308] * 300, [])
def test_losses_of_any_size_can_be_drawn(losses, val_losses):
    rows = [train_row(i, loss) for i, loss in enumerate(losses, 1)]
    rows += [val_row(i, loss) for i, loss in enumerate(val_losses, 1)]

    check_html(render(view(rows)))


def test_a_long_sample_is_cut():
    assert len(render(view(sample="x" * 100_000))) < 3000


def test_a_view_shows_itself_as_html_and_as_lines():
    rows = view([train_row(1), val_row(2)])

    assert rows._repr_html_() == render(rows)
    assert repr(rows).splitlines()[1:] == [line_of(train_row(1)), line_of(val_row(2))]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        pytest.param(0, "0:00 min", id="none"),
        pytest.param(59.6, "1:00 min", id="rounded up to a minute"),
        pytest.param(3599, "59:59 min", id="just below an hour"),
        pytest.param(3600, "1:00 h", id="an hour"),
        pytest.param(90_000, "25:00 h", id="more than a day"),
    ],
)
def test_a_clock_has_its_unit(seconds, text):
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("row", "text"),
    [
        pytest.param(
            train_row(1200, 1.5),
            "step  1,200  epoch 12.00  loss 1.5000  12,346 tokens/s",
            id="training",
        ),
        pytest.param(
            val_row(50),
            "step     50  epoch 0.50  validation loss 2.5000  3.600 bits/byte",
            id="validation",
        ),
    ],
)
def test_a_row_is_a_line(row, text):
    assert line_of(row) == text


def test_lines_tell_start_progress_validations_events_and_the_end(make_trainer, data):
    class Stop(Callback):
        def on_log(self, run, row):
            if row["step"] == 7:
                run.tell("note", "half of it")

    stream = io.StringIO()
    callbacks = [LinePanel(stream), Stop()]
    result = make_trainer(callbacks=callbacks, eval_every=6).train(data.train, data.val)

    lines = stream.getvalue().splitlines()
    assert lines[0] == f"run {result.run_id} started, 12 steps, in {lines[0].rpartition(' ')[2]}"
    assert lines[1].endswith(" left")
    assert sum("validation loss" in line for line in lines) == 2
    assert "step 7  note: half of it" in lines
    assert lines[-1] == f"run {result.run_id} completed at step 12"


def test_lines_do_not_flood_a_log(make_trainer, data):
    stream = io.StringIO()
    make_trainer(callbacks=[LinePanel(stream)], max_steps=60).train(data.train)

    assert len(stream.getvalue().splitlines()) < 6


@pytest.mark.parametrize(
    ("mode", "kinds"),
    [("html", ["HtmlPanel"]), ("lines", ["LinePanel"]), ("off", []), ("auto", ["LinePanel"])],
)
def test_the_setting_panel_picks_the_face(mode, kinds, monkeypatch):
    monkeypatch.delitem(__import__("sys").modules, "IPython", raising=False)

    assert [type(callback).__name__ for callback in progress_callbacks(mode)] == kinds


def test_a_run_can_be_drawn_again_from_its_folder(make_trainer, data):
    result = make_trainer(eval_every=4).train(data.train, data.val)
    drawn = view_run(result.run_dir)

    assert (drawn.run_id, drawn.status, drawn.total_steps) == (result.run_id, "completed", 12)
    assert drawn.best == (result.best_step, result.best_loss)
    assert [row["step"] for row in drawn.rows if "val/loss" in row] == [4, 8, 12]
    check_html(drawn._repr_html_())


def test_a_run_that_has_not_ended_can_be_drawn(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "metrics.jsonl").write_text(json.dumps(train_row(3)) + '\n{"step": 4, "tr')
    drawn = view_run(tmp_path)

    assert (drawn.status, drawn.total_steps, len(drawn.rows)) == ("not ended", 3, 1)
    check_html(render(drawn))


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="not the folder of a run"):
        view_run(tmp_path)


def test_a_panel_with_no_clock_yet_can_show_what_is_left():
    run = SimpleNamespace(expected_steps=10)
    panel = LinePanel(io.StringIO())
    panel.on_log(run, train_row(1, elapsed_s=0.0))

    assert panel.stream.getvalue().endswith("0:00 min left\n")
