"""The learning rate is a pure function of applied updates."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.engine.schedule import Cooldown, Schedule, SchedulerFactory

KINDS = ("wsd", "cosine", "linear", "constant")


@st.composite
def schedules(draw):
    total = draw(st.integers(1, 10_000))
    warmup = draw(st.integers(0, total // 2))
    kind = draw(st.sampled_from(KINDS))
    decay = draw(st.integers(1, total - warmup)) if kind == "wsd" else 0
    return Schedule(kind, total, warmup, decay, draw(st.floats(0, 1)))


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        pytest.param(Schedule("constant", 4), [1, 1, 1, 1], id="constant"),
        pytest.param(Schedule("constant", 4, 2), [0.5, 1, 1, 1], id="constant after warm-up"),
        pytest.param(Schedule("constant", 2, min_ratio=0.5), [1, 1, 1], id="constant has no end"),
        pytest.param(Schedule("linear", 4), [1, 0.75, 0.5, 0.25, 0], id="linear"),
        pytest.param(Schedule("linear", 4, min_ratio=0.2), [1, 0.8, 0.6, 0.4, 0.2], id="ratio"),
        pytest.param(Schedule("linear", 6, 2), [0.5, 1, 1, 0.75, 0.5, 0.25, 0], id="warm-up"),
        pytest.param(Schedule("cosine", 4), [1, 0.8536, 0.5, 0.1464, 0], id="cosine"),
        pytest.param(Schedule("cosine", 2, min_ratio=0.5), [1, 0.75, 0.5], id="cosine and ratio"),
        pytest.param(Schedule("wsd", 6, 1, 2), [1, 1, 1, 1, 1, 0.5, 0], id="wsd"),
        pytest.param(Schedule("wsd", 5, 2, 2, 0.2), [0.5, 1, 1, 1, 0.6, 0.2], id="wsd and ratio"),
        pytest.param(Schedule("linear", 2), [1, 0.5, 0, 0, 0], id="stays at its end"),
        pytest.param(Schedule("linear", 1), [1, 0], id="a run of one update"),
    ],
)
def test_factors_are_as_the_papers_say(schedule, factors):
    assert [schedule(u) for u in range(len(factors))] == pytest.approx(factors, abs=1e-4)


@given(schedules())
def test_factors_stay_between_zero_and_one(schedule):
    total, warmup = schedule.total_updates, schedule.warmup_updates
    points = {0, max(0, warmup - 1), warmup, total // 2, total - 1, total, total + 1, 10 * total}

    assert all(0 <= schedule(u) <= 1 for u in points)


@given(schedules())
def test_a_schedule_rises_to_its_peak_and_then_never_rises_again(schedule):
    warmup = schedule.warmup_updates
    rising = [schedule(u) for u in range(warmup + 1)]
    falling = [schedule(u) for u in range(warmup, min(warmup + 300, schedule.total_updates + 2))]

    assert rising == sorted(rising)
    assert schedule(warmup) == pytest.approx(1)
    assert falling == sorted(falling, reverse=True)


@given(schedules())
def test_a_schedule_ends_at_its_least_ratio(schedule):
    end = 1.0 if schedule.kind == "constant" else schedule.min_ratio

    assert schedule(schedule.total_updates) == pytest.approx(end)


@given(schedules(), st.randoms(use_true_random=False))
def test_factors_do_not_depend_on_the_order_of_calls(schedule, rng: random.Random):
    updates = list(range(0, schedule.total_updates + 2, max(1, schedule.total_updates // 50)))
    in_order = {u: schedule(u) for u in updates}
    rng.shuffle(updates)

    assert {u: schedule(u) for u in updates} == in_order


@pytest.mark.parametrize(
    ("changes", "total", "wanted"),
    [
        pytest.param(
            {"scheduler": "wsd", "warmup_fraction": 0.1, "decay_fraction": 0.5},
            100,
            Schedule("wsd", 100, 10, 50, 0.02),
            id="shares of the run",
        ),
        pytest.param(
            {"scheduler": "wsd", "warmup_fraction": 0.01, "decay_fraction": 0.01},
            10,
            Schedule("wsd", 10, 1, 1, 0.02),
            id="rounded up",
        ),
        pytest.param(
            {"scheduler": "cosine", "warmup_fraction": 0.0, "min_lr_ratio": 0.5},
            10,
            Schedule("cosine", 10, 0, 0, 0.5),
            id="no warm-up and no decay phase",
        ),
    ],
)
def test_the_factory_counts_updates_from_the_shares_of_a_config(
    tiny_config, changes, total, wanted
):
    assert SchedulerFactory.create(tiny_config(**changes), total) == wanted


# The way down of a run that is asked to finish


@st.composite
def cooldowns(draw):
    """A schedule, and a cool-down that begins somewhere on it."""
    schedule = draw(schedules())
    start = draw(st.integers(0, schedule.total_updates))
    ceiling = schedule(max(0, start - 1)) if start else 1.0
    return schedule, Cooldown(start, draw(st.integers(1, 200)), schedule.min_ratio, ceiling)


@given(cooldowns())
def test_a_cool_down_never_rises_whatever_the_schedule_does(pair):
    schedule, down = pair
    updates = range(down.start, down.start + down.updates + 2)
    factors = [down(u, schedule(u)) for u in updates]

    assert factors == sorted(factors, reverse=True)
    assert factors[0] <= down.ceiling


@given(cooldowns())
def test_a_cool_down_ends_at_the_least_ratio_or_below(pair):
    schedule, down = pair
    end = down.start + down.updates

    assert down(end, schedule(end)) <= schedule.min_ratio + 1e-12


@given(cooldowns())
def test_a_cool_down_is_never_above_its_schedule(pair):
    schedule, down = pair

    assert all(down(u, schedule(u)) <= schedule(u) for u in range(down.start, down.start + 50))


@pytest.mark.parametrize(
    ("down", "schedule", "factors"),
    [
        pytest.param(Cooldown(2, 4), 1.0, [1, 0.75, 0.5, 0.25, 0, 0], id="from the peak"),
        pytest.param(Cooldown(2, 4, 0.2), 1.0, [1, 0.8, 0.6, 0.4, 0.2, 0.2], id="to a ratio"),
        pytest.param(Cooldown(2, 4, 0.0, 0.5), 1.0, [0.5, 0.375, 0.25, 0.125, 0], id="ceiling"),
        pytest.param(Cooldown(2, 4, 0.5), 0.1, [0.1, 0.1, 0.1], id="below the ratio already"),
        pytest.param(Cooldown(2, 1), 1.0, [1, 0], id="one update"),
    ],
)
def test_a_cool_down_is_a_line(down, schedule, factors):
    found = [down(down.start + k, schedule) for k in range(len(factors))]

    assert found == pytest.approx(factors)
