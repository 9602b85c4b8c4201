"""Check-resume finds every state that no checkpoint holds, and nothing where there is none."""

import time
from collections import Counter

import pytest

from helpers.check_resume import check_resume
from helpers.config import TrainingConfig
from tests.faults import resume_targets
from tests.faults.scale import FULL, n, record

PLANTED = ("counting", "unregistered", "own_generator", "forgetful_callback")
CONFIG = TrainingConfig(batch_size=4, max_steps=24, eval_every=8, eval_sequences=4)


def check(name: str, *, kills: int, seed: int, **settings):
    target = f"{resume_targets.__file__}:{name}"
    return check_resume(target, CONFIG.replace(**settings), kills=kills, seed=seed)


def test_every_planted_state_is_found_and_a_sound_run_is_the_same():
    began, hits, n_planted, n_sound = time.monotonic(), Counter(), 0, 0
    for seed in range(n(1, 5)):
        for name in PLANTED[: n(1, len(PLANTED))]:
            found = check(name, kills=n(1, 3), seed=seed)
            n_planted += 1

            assert not found.is_same and not found.trouble, f"{name}, seed {seed}:\n{found}"
            assert found.control.is_same, f"{name}, seed {seed}:\n{found}"
            first = found.comparison.differences[0].name
            assert first.part == "metric rows" and first.step == found.first_step
            assert found.first_step > 0 and found.comparison.same_until is not None
            assert "NOT THE SAME" in repr(found) and "in no checkpoint" in repr(found)
    for seed in range(n(1, 20)):
        found = check("sound", kills=n(1, 5), seed=seed, ema_decay=0.9 * (seed % 2))
        n_sound += len(found.kills)
        hits.update(kill.hit.partition(", ")[2] or kill.hit for kill in found.kills)

        assert found.is_same and found.control is None, f"seed {seed}:\n{found}"
        assert len(found.kills) >= n(1, 3)  # a run may end before the last one can hit
    record(
        "check_resume",
        "check-resume finds a state that no checkpoint holds, names the first step it changes, "
        "and reports no difference where there is none.",
        {
            "checks of runs with a planted state": n_planted,
            "found": n_planted,
            "kills of sound runs": n_sound,
            "differences reported there": 0,
            "kills by what they hit": dict(sorted(hits.items())),
        },
        command="TRAINBOOK_FAULTS=full python -m pytest tests/faults/test_check_resume.py",
        seed=0,
        seconds=time.monotonic() - began,
    )


@pytest.mark.skipif(not FULL, reason="takes 15 s; runs in the full form")
def test_a_run_that_is_never_the_same_twice_is_told_from_one_that_resumes_wrongly():
    found = check("clocked", kills=1, seed=0)

    assert not found.is_same and not found.control.is_same
    assert "never the same twice" in " ".join(repr(found).split())


def test_a_run_that_cannot_go_on_is_told_with_its_last_words():
    found = check("lost", kills=1, seed=0)

    assert not found.is_same and len(found.kills) == 1
    assert "NOT RESUMED" in repr(found) and "this state is lost" in repr(found)


def test_a_run_that_pauses_itself_once_it_is_resumed_is_told_with_its_step():
    found = check("pausing_later", kills=1, seed=0)

    assert not found.is_same and len(found.kills) == 1
    assert "NOT RESUMED" in repr(found) and "The run pauses itself at step" in repr(found)
