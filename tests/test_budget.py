"""A run whose time is limited cools down and ends before, by a clock that nobody can set."""

import dataclasses
import datetime
import json
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.config import TrainingConfig
from helpers.engine.budget import Budget, duration, seconds, seconds_until
from helpers.engine.callbacks import Callback
from helpers.engine.extend import aside
from helpers.engine.metrics import read_rows
from helpers.engine.plan import RunPlan
from helpers.engine.run_folder import RunFolder
from helpers.errors import CheckpointError, ConfigError

PEAK = 0.01
PLAIN = {"run_name": "r", "max_steps": 0, "learning_rate": PEAK, "save_minutes": 0.0}


class Clock:
    """A clock that is set by hand."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Hand(Callback):
    """Give a run a clock of its own, which each step and each validation moves on."""

    def __init__(self, step_s=1.0, validation_s=0.0, slow=(), stop_at=None, act=None):
        self.clock, self.step_s, self.validation_s = Clock(), step_s, validation_s
        self.slow, self.stop_at, self.act = dict(slow), stop_at, act
        self.shares, self.left_s = [], None

    def on_start(self, run):
        self.run, self.begun = run, self.clock.now
        run.budget = dataclasses.replace(run.budget, clock=self.clock)
        run.saver.clock = self.clock
        run.model.register_forward_pre_hook(self.before_forward)

    def before_forward(self, model, inputs):
        self.clock.now += self.step_s if model.training else self.validation_s

    def on_log(self, run, row):
        self.clock.now += self.slow.get(row["step"], 0.0)
        self.shares.append(run.state.time_share)
        if row["step"] == self.stop_at:
            run.stop.set("test")
        if self.act is not None:
            self.act(run, row["step"])

    def on_end(self, run, status):
        if run.budget.limit_s is not None:
            self.left_s = run.budget.limit_s - run.budget.elapsed_s


@pytest.fixture
def make(make_trainer):
    """Make a trainer of the run `r` with a hand on its clock."""

    def make(hand=None, **changes):
        return make_trainer(callbacks=[hand or Hand()], **(PLAIN | changes))

    return make


def rates(result) -> list[float]:
    """The learning rate of each step over its peak."""
    return (result.history["learning_rate"] / PEAK).tolist()


def told(result, kind="time") -> list[str]:
    return [message for _, k, message in result.events if k == kind]


def weights(trainer) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in trainer.model.state_dict().items()}


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def falls(values) -> bool:
    return values == sorted(values, reverse=True)


# The texts and the arithmetic


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("45min", 2700), ("1h30min", 5400), ("2h", 7200), ("90s", 90), ("1h1min1s", 3661)],
)
def test_a_budget_is_read_in_its_units(text, wanted):
    assert seconds(text) == wanted
    assert seconds(TrainingConfig(budget=text).budget) == wanted


@pytest.mark.parametrize(
    ("now", "wanted_s"),
    [
        pytest.param((2026, 1, 1, 21, 0), 1800, id="today"),
        pytest.param((2026, 1, 1, 22, 0), 23.5 * 3600, id="tomorrow"),
        pytest.param((2026, 1, 1, 21, 30), 24 * 3600, id="now is tomorrow"),
        pytest.param((2026, 12, 31, 23, 0), 22.5 * 3600, id="next year"),
    ],
)
def test_a_time_of_day_is_the_next_one(now, wanted_s):
    assert seconds_until("21:30", datetime.datetime(*now)) == wanted_s


def test_a_night_with_an_hour_less_counts_it(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        found = seconds_until("06:00", datetime.datetime(2026, 3, 28, 22, 0))
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()

    assert found == 7 * 3600


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (89, "89 s"), (90, "2 min"), (5400, "1.5 h")]
)
def test_durations_are_shown_in_their_unit(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"budget": "45"}, id="no unit"),
        pytest.param({"budget": "1.5h"}, id="a fraction"),
        pytest.param({"budget": "0min"}, id="nothing"),
        pytest.param({"finish_by": "24:00"}, id="no time of day"),
        pytest.param({"finish_by": "9:30"}, id="one digit"),
        pytest.param({"budget": "1h", "finish_by": "21:30"}, id="both"),
    ],
)
def test_what_is_no_time_is_refused(changes):
    with pytest.raises(ConfigError, match="|".join(changes)):
        TrainingConfig(**changes)


@given(
    limit=st.floats(1, 1e5),
    begun=st.floats(0, 1),
    saving=st.none() | st.floats(0, 100),
    moves=st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 50)), max_size=20),
)
def test_what_is_left_at_the_end_of_training_is_what_the_end_takes(limit, begun, saving, moves):
    """The share reaches 1 just when no more is left, however steps and time went."""
    clock = Clock()
    budget = Budget(limit, clock=clock, begun_at=begun, saving_s=saving)
    for elapsed, step in moves:
        clock.now += elapsed
        budget.note_step(step)
        left = limit - budget.elapsed_s

        assert 0 <= budget.share <= 1
        if begun < 1 - 1e-6 and abs(left - budget.closing_s) > 1e-6 * limit:
            assert (budget.share >= 1 - 1e-12) == (left <= budget.closing_s)


def test_a_budget_without_a_limit_is_never_used_up():
    clock = Clock()
    budget = Budget(clock=clock)
    clock.now += 1e9

    assert (budget.share, budget.used_s) == (0.0, 1e9)


def test_one_slow_validation_does_not_tell_how_long_the_last_one_takes():
    budget = Budget(1000.0)
    for rate in (0.01, 0.9, 0.02):
        budget.note_validation(rate, 100, 0.0)

    assert budget.validation_s == pytest.approx(2.0)


# Runs


@pytest.mark.parametrize(
    ("changes", "hand"),
    [
        pytest.param({"budget": "1min"}, {}, id="budget"),
        pytest.param(
            {"budget": "1min", "scheduler": "cosine", "decay_fraction": 0.6}, {}, id="cos"
        ),
        pytest.param({"budget": "10min"}, {"step_s": 20.0}, id="long steps"),
        pytest.param({"budget": "2min", "eval_every": 5}, {"validation_s": 0.3}, id="validations"),
        pytest.param({"budget": "2min"}, {"slow": {10: 30.0}}, id="a step that hangs"),
        pytest.param({"budget": "1min", "epochs": 100.0}, {}, id="with epochs"),
        pytest.param({"budget": "1min", "max_steps": 10**6}, {}, id="with steps that do not fit"),
        pytest.param({"budget": "1min", "save_every": 3}, {}, id="saving often"),
        pytest.param({"budget": "1min", "num_workers": 2}, {}, id="reading ahead"),
    ],
)
def test_a_run_cools_down_and_ends_before_its_limit(make, data, changes, hand):
    hand = Hand(**hand)
    result = make(hand, **changes).train(data.train, data.val)
    factors = rates(result)
    top = factors.index(max(factors))

    assert result.status == "completed"
    assert hand.left_s >= 0
    assert max(factors) > 0.9
    assert falls(factors[top:])
    # How long a save took beside the steps is the one thing here that no hand sets.
    assert factors[-1] < 0.3 or result.steps < 40


def test_without_what_is_kept_for_the_end_a_run_is_late(make, data, monkeypatch):
    monkeypatch.setattr(Budget, "closing_s", 0.0)
    hand = Hand(validation_s=1.0)
    result = make(hand, budget="1min").train(data.train, data.val)

    assert hand.left_s < 0
    assert "longer than it had" in told(result)[-1]


def test_the_time_is_used(make, data):
    """The last validation takes 17 of the 300 seconds here, and saving next to nothing."""
    hand = Hand(validation_s=1.0)
    result = make(hand, budget="5min", eval_sequences=8).train(data.train, data.val)

    assert result.status == "completed"
    assert 0 <= hand.left_s < 0.05 * 300


def test_the_learning_rate_reaches_its_least(make, data):
    result = make(Hand(step_s=0.25), budget="1min", min_lr_ratio=0.02).train(data.train, data.val)
    last = rates(result)[-1]

    # As with a schedule in steps, the last update is one step before the end of the way.
    assert 0.02 <= last <= 0.02 + 2 / (0.6 * result.steps)


def test_a_budget_that_is_not_reached_changes_no_bit(make, data):
    plain = make(max_steps=12, run_name="plain", dropout=0.1)
    plain.train(data.train, data.val)
    limited = make(max_steps=12, budget="9h", dropout=0.1, eval_every=5)
    result = limited.train(data.train, data.val)

    assert (result.status, result.steps) == ("completed", 12)
    assert same(weights(plain), weights(limited))


@pytest.mark.parametrize(
    ("clock", "steps"),
    [
        pytest.param(None, 12, id="as it is"),
        pytest.param(lambda: time.time(), 5, id="with a clock that can be set, the test is red"),
    ],
)
def test_a_clock_that_jumps_changes_nothing(make_trainer, data, monkeypatch, clock, steps):
    class Jump(Callback):
        def on_start(self, run):
            if clock is not None:
                run.budget = dataclasses.replace(run.budget, clock=clock)

        def on_log(self, run, row):
            if row["step"] == 5:
                now = time.time()
                monkeypatch.setattr(time, "time", lambda: now + 86400)

    settings = PLAIN | {"max_steps": 12, "budget": "9h"}
    result = make_trainer(callbacks=[Jump()], **settings).train(data.train)

    assert (result.status, result.steps) == ("completed", steps)


def test_a_time_of_day_is_read_once(make, data, monkeypatch):
    """The system's clock says what is left at the start, and is not looked at again."""
    calls = []

    def once(clock_time):
        calls.append(clock_time)
        return 30.0

    monkeypatch.setattr("helpers.engine.budget.seconds_until", once)
    hand = Hand()
    result = make(hand, finish_by="21:30").train(data.train, data.val)

    assert calls == ["21:30"]
    assert (result.status, hand.left_s >= 0) == ("completed", True)
    assert told(result) == ["finish_by is 21:30: the run ends in 30 s at the latest"]


# Several sessions


def test_a_budget_counts_over_all_sessions(make, data):
    paused = Hand(stop_at=20)
    first = make(paused, budget="1min").train(data.train, data.val)
    used = RunFolder(first.run_dir).checkpoints.load_latest().state["run"]["wall_s"]
    hand = Hand()
    result = make(hand, budget="1min").train(data.train, data.val)

    assert (first.status, result.status) == ("paused", "completed")
    assert used == pytest.approx(paused.clock.now - paused.begun, abs=0.5)
    assert used + hand.clock.now - hand.begun <= 60
    assert 50 < result.steps < 60


def test_a_kill_gives_no_time_back(make, data):
    class Killed(BaseException):
        pass

    def kill(run, row):
        if row["step"] == 40:
            raise Killed

    killed, hand = Hand(), Hand()
    killed.on_log = kill
    trainer = make(killed, budget="1min", log_every=1, save_every=0)
    with pytest.raises(Killed):
        trainer.train(data.train)
    path = RunFolder(Path(trainer.training_config.output_dir) / "r")
    rows = [{**row, "elapsed_s": float(row["step"])} for row in read_rows(path.metrics_file)]
    path.metrics_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = make(hand, budget="1min", log_every=1).train(data.train)

    assert result.resumed_from == 0
    assert hand.clock.now - hand.begun <= 60 - 40


def test_the_learning_rate_goes_on_from_where_it_was(make, data):
    first = make(Hand(stop_at=40), budget="1min").train(data.train, data.val)
    second = make(Hand(), budget="1min").train(data.train, data.val)

    assert rates(first)[-1] < 0.7
    assert falls(rates(second)[25:])


def test_a_new_time_of_day_continues_the_schedule_from_where_it_stands(make, data, monkeypatch):
    lefts = iter([60.0, 600.0])
    monkeypatch.setattr("helpers.engine.budget.seconds_until", lambda _: next(lefts))
    first = make(Hand(stop_at=40), finish_by="21:30").train(data.train, data.val)
    hand = Hand(step_s=5.0)
    result = make(hand, finish_by="23:30").train(data.train, data.val)

    assert first.status == "paused"
    assert falls(rates(result)[25:])
    assert hand.left_s >= 0
    assert result.steps - 40 == pytest.approx(600 / 5, abs=6)


def test_a_run_whose_time_is_used_up_ends_at_once(make, data):
    """As one that was killed in its last validation."""
    trainer = make(budget="1min")
    done = trainer.train(data.train, data.val)
    folder = RunFolder(done.run_dir)
    folder.result_file.unlink()
    folder.model_file.unlink()
    again = make(budget="1min")
    result = again.train(data.train, data.val)

    assert (result.status, result.steps) == ("completed", done.steps)
    assert result.final_metrics == done.final_metrics
    assert "budget is '1min': the run is at its end" in told(result)[-1]
    assert folder.model_file.exists()


def test_without_a_limit_the_steps_decide_again(make, data, monkeypatch):
    monkeypatch.setattr("helpers.engine.budget.seconds_until", lambda _: 60.0)
    settings = {"max_steps": 100, "scheduler": "linear", "decay_fraction": 0.6}
    make(Hand(stop_at=20), finish_by="21:30", **settings).train(data.train)
    result = make(Hand(), **settings).train(data.train)

    assert result.steps == 100
    assert rates(result)[20] == pytest.approx(1 - 0.98 * (20 - 3) / 97)


# Too little time


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"budget": "30s"}, id="budget"),
        pytest.param({"finish_by": "21:30"}, id="time of day"),
    ],
)
def test_time_that_the_end_alone_takes_is_refused_before_the_first_step(
    make, data, tmp_path, changes, monkeypatch
):
    monkeypatch.setattr("helpers.engine.budget.seconds_until", lambda _: 30.0)
    with pytest.raises(ConfigError, match=r"which leaves .* s, but the last validation and saving"):
        make(Hand(validation_s=10.0), **changes).train(data.train, data.val)

    assert RunFolder(tmp_path / "runs" / "r").checkpoints.steps() == [0]


def test_a_paused_run_that_cannot_end_in_time_stays_as_it_is(make, data, monkeypatch):
    lefts = iter([1000.0, 10.0, 1000.0])
    monkeypatch.setattr("helpers.engine.budget.seconds_until", lambda _: next(lefts))
    settings = {"finish_by": "21:30"}
    make(Hand(stop_at=5), **settings).train(data.train, data.val)
    with pytest.raises(ConfigError, match=r"finish_by is 21:30, which leaves"):
        make(Hand(validation_s=10.0), **settings).train(data.train, data.val)
    hand = Hand(stop_at=10)
    result = make(hand, **settings).train(data.train, data.val)

    assert (result.resumed_from, result.status, hand.shares[0] < 0.1) == (5, "paused", True)


def test_a_step_that_is_longer_than_the_time_is_told(make, data):
    """Nobody can know it before; the run has its step, and ends."""
    result = make(Hand(step_s=100.0), budget="30s").train(data.train, data.val)

    assert (result.status, result.steps) == ("completed", 1)
    assert "longer than it had" in told(result)[-1]


def test_a_warm_up_is_a_share_of_the_time(make, data):
    """Also where it would be longer than the run in steps."""
    settings = {"max_steps": 10**6, "warmup_fraction": 0.2, "decay_fraction": 0.5}
    result = make(Hand(), budget="2min", **settings).train(data.train, data.val)
    factors = rates(result)
    top = factors.index(max(factors))

    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert top == pytest.approx(0.2 * result.steps, abs=3)
    assert falls(factors[top:])


# What is shown


def test_the_plan_estimates_the_steps_and_shows_the_limit(make, data):
    trainer = make(budget="20s", eval_every=10, eval_sequences=64)
    plan = trainer.plan(data.train, data.val)

    assert isinstance(plan, RunPlan)
    assert 1 < plan.steps < 10**7
    assert 0.5 * 20 < plan.total_s <= 20
    assert "20 s at the most" in repr(plan)


def test_the_plan_of_steps_that_fit_is_theirs(make, data):
    assert make(budget="9h", max_steps=12).plan(data.train, data.val).steps == 12


def test_the_expected_end_nears_the_end(make, data):
    found = []
    hand = Hand(act=lambda run, step: found.append(run.expected_steps))
    result = make(hand, budget="1min").train(data.train, data.val)

    assert all(abs(n - result.steps) <= 0.2 * result.steps for n in found[5:])
    assert found[-1] == result.steps


def test_a_resumed_run_expects_its_end_from_this_session(make, data):
    found = []
    make(Hand(stop_at=10), budget="1min").train(data.train, data.val)
    hand = Hand(step_s=5.0, act=lambda run, step: found.append(run.expected_steps))
    result = make(hand, budget="1min").train(data.train, data.val)

    assert found[-2] == pytest.approx(result.steps, abs=2)


# Extending


def test_a_budget_is_extended_from_before_the_way_down(make, data):
    settings = {"decay_fraction": 0.5, "save_every": 5}
    short = make(Hand(), budget="1min", **settings).train(data.train, data.val)
    hand = Hand()
    trainer = make(hand, budget="1min", **settings)
    result = trainer.extend(data.train, data.val, budget="2min")
    factors, start = rates(result), result.resumed_from

    assert 20 <= start <= 32
    assert result.status == "completed"
    assert 1.7 * short.steps < result.steps <= 120
    assert hand.left_s >= 0
    assert set(factors[start : start + 20]) == {1.0}
    assert falls(factors[start:])
    assert "budget 1min -> 2min" in told(result, "extended")[0]
    assert "with 1 of its peak" in told(result, "extended")[0]
    assert (aside(RunFolder(result.run_dir), 1) / "final_model.pt").exists()


def test_asking_for_the_same_budget_again_continues(make, data):
    make(budget="1min").train(data.train)
    paused = make(Hand(stop_at=70), budget="1min").extend(data.train, budget="2min")
    result = make(budget="1min").extend(data.train, budget="2min")

    assert (paused.status, result.status, result.resumed_from) == ("paused", "completed", 70)
    assert len(RunFolder(result.run_dir).read_identity()["extensions"]) == 1


@pytest.mark.parametrize(
    ("before", "change"),
    [
        pytest.param({"max_steps": 40}, {"max_steps": 0, "budget": "3min"}, id="steps to time"),
        pytest.param({"budget": "40s"}, {"max_steps": 100, "budget": ""}, id="time to steps"),
    ],
)
def test_a_schedule_changes_between_steps_and_time(make, data, before, change):
    settings = {"decay_fraction": 0.5, "save_every": 5}
    make(Hand(), **before, **settings).train(data.train)
    result = make(Hand(), **before, **settings).extend(data.train, **change)
    factors = rates(result)[result.resumed_from :]

    assert result.status == "completed"
    assert result.steps > 90
    assert falls(factors)
    assert factors[0] == 1.0


def test_a_run_that_ended_at_a_time_of_day_goes_on_by_a_budget(make, data, monkeypatch):
    monkeypatch.setattr("helpers.engine.budget.seconds_until", lambda _: 60.0)
    make(Hand(), finish_by="21:30").train(data.train)
    trainer = make(Hand(), finish_by="21:30")
    result = trainer.extend(data.train, budget="3min")

    assert (result.status, trainer.training_config.finish_by) == ("completed", "")
    assert result.steps > 100


def test_a_time_of_day_need_not_be_given_any_more_to_go_on(make, data, monkeypatch):
    monkeypatch.setattr("helpers.engine.budget.seconds_until", lambda _: 30.0)
    short = make(Hand(), finish_by="21:30").train(data.train)
    result = make(Hand(), max_steps=60).extend(data.train, max_steps=60)

    assert (short.steps < 60, result.steps) == (True, 60)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param({"budget": "20s"}, "has used .* its budget would be 20s", id="too little"),
        pytest.param({"budget": "x"}, "budget is 'x'", id="no time"),
        pytest.param({"finish_by": "21:30"}, "finish_by was to be changed", id="no schedule"),
    ],
)
def test_what_cannot_be_extended_is_refused(make, data, change, says):
    make(Hand(), budget="1min").train(data.train)
    with pytest.raises((CheckpointError, ConfigError), match=says):
        make(Hand(), budget="1min").extend(data.train, **change)


def test_another_budget_is_refused_with_the_call_to_make(make, data):
    make(Hand(stop_at=5), budget="1min").train(data.train)
    with pytest.raises(CheckpointError, match=r"extend\(\.\.\., run_id='r', budget='2min'\)"):
        make(budget="2min").train(data.train)


def test_another_time_of_day_is_free(tiny_config):
    config = tiny_config(finish_by="21:30", max_steps=0)

    assert config.fingerprint() == config.replace(finish_by="23:00").fingerprint()
    assert config.fingerprint() != config.replace(finish_by="", budget="1h").fingerprint()


def test_metrics_of_a_limited_run_are_on_record(make, data):
    result = make(Hand(), budget="30s").train(data.train, data.val)
    rows = [r for r in read_rows(Path(result.run_dir) / "metrics.jsonl") if "learning_rate" in r]

    assert [row["step"] for row in rows] == list(range(1, result.steps + 1))
