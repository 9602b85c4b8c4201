"""Check-resume: what it changes, compares and says, and that it leaves all else alone."""

import math
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from helpers.__main__ import main
from helpers.check_resume import check_resume, ending_on_signals
from helpers.check_resume.compare import Name, compare, difference, values_of
from helpers.check_resume.process import (
    ALL_KINDS,
    FIRST_KINDS,
    Session,
    Timeline,
    draw_moments,
    run_session,
)
from helpers.check_resume.report import kills_of
from helpers.check_resume.settings import CADENCES, PLACES, RUN_NAME, bounded, in_scratch
from helpers.check_resume.target import build, name_of, text_model
from helpers.config import TrainingConfig, role_of
from helpers.engine.run_folder import RunFolder
from helpers.errors import ConfigError
from tests.faults import resume_targets

TARGETS = resume_targets.__file__


def target(name: str) -> str:
    return f"{TARGETS}:{name}"


# The whole of it


def test_the_smoke_preset_resumes_exactly_and_nothing_of_the_user_is_touched(
    texts, tmp_path, monkeypatch
):
    here, source = tmp_path / "here", tmp_path / "source.txt"
    here.mkdir()
    monkeypatch.chdir(here)
    source.write_text("\n\n".join(texts))
    settings = {
        "source": source,
        "vocab_size": 400,
        "cache_dir": tmp_path / "cache",
        "mirror_dir": here / "mirror",
    }
    given = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]

    done = CliRunner().invoke(main, ["check-resume", "--preset", "smoke", "--kills", "1", *given])

    assert done.exit_code == 0, done.output
    assert "THE SAME: killed once" in done.output
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        pytest.param(["--set", "budget=5min"], "--set max_steps=40", id="a clock ends it"),
        pytest.param(["--set", "finish_by=21:30"], "never the same twice", id="a time of day"),
        pytest.param(["--set", "nosuch=1"], "not a setting", id="unknown setting"),
        pytest.param(["--target", "nosuch:make"], "No module named 'nosuch'", id="no such target"),
        pytest.param(["--keep", TARGETS], "no folder can be made", id="keep is a file"),
        pytest.param(["--keep", str(Path(TARGETS).parent)], "empty or new", id="keep is in use"),
    ],
)
def test_wrong_settings_exit_with_2(options, wanted):
    done = CliRunner().invoke(main, ["check-resume", "--preset", "smoke", *options])

    assert done.exit_code == 2
    assert wanted in done.output


def test_a_check_that_is_interrupted_leaves_no_process_and_no_folder(tmp_path):
    code = (
        "from helpers.check_resume import check_resume\n"
        f"check_resume({target('sound')!r}, on_progress=lambda line: print(line, flush=True))"
    )
    environment = {"PYTHONPATH": str(Path(TARGETS).parents[2]), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={**environment, "PATH": "", "HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as checking:
        checking.stdout.readline()
        checking.send_signal(2)
        checking.wait(30)
    time.sleep(0.1)

    assert not list(tmp_path.glob("check-resume-*"))
    assert not [
        p for p in Path("/proc").glob("[0-9]*/cmdline") if str(tmp_path).encode() in content(p)
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_ended_by_a_signal_leaves_no_process_and_no_folder(number, tmp_path):
    command = [sys.executable, "-m", "helpers", "check-resume", "--preset", "smoke"]
    with subprocess.Popen(
        [*command, "--target", target("sound")],
        cwd=Path(TARGETS).parents[2],
        env={"TMPDIR": str(tmp_path), "PATH": "", "HOME": str(tmp_path)},
        stderr=subprocess.PIPE,
    ) as checking:
        checking.stderr.readline()
        checking.send_signal(number)
        checking.wait(30)

    assert checking.returncode == 130
    assert not list(tmp_path.glob("check-resume-*"))
    assert not [
        p for p in Path("/proc").glob("[0-9]*/cmdline") if str(tmp_path).encode() in content(p)
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_amid_the_start_of_a_session_loses_no_process(number, tmp_path, monkeypatch):
    started = []

    class Interrupted(subprocess.Popen):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            started.append(self.pid)
            signal.raise_signal(number)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt), ending_on_signals():
        run_session(tmp_path / "spec.json", tmp_path / "log")

    assert started and not Path(f"/proc/{started[0]}").exists()


@pytest.fixture
def heard():
    """Signals that came while SIGTERM had a handler of its own and SIGHUP was ignored."""
    heard = []
    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number)),
        signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    }
    yield heard
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_interrupts_once_and_handlers_are_put_back(heard):
    @ending_on_signals()
    def act():
        signal.raise_signal(signal.SIGHUP)
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            heard.append("cleaned up")

    with pytest.raises(KeyboardInterrupt):
        act()
    signal.raise_signal(signal.SIGTERM)

    assert heard == ["cleaned up", signal.SIGTERM]
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


# Settings


@pytest.mark.parametrize("kills", [1, 3, 10])
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="defaults"),
        pytest.param({"max_steps": 5, "save_every": 1, "log_every": 1}, id="short"),
        pytest.param({"epochs": 1.5, "max_steps": 0}, id="epochs"),
        pytest.param({"eval_every": 0, "save_every": 0}, id="no cadences"),
    ],
)
def test_a_check_changes_length_and_cadences_alone(settings, kills):
    config = TrainingConfig(batch_size=4, **settings)

    own = bounded(config, 40, has_val=True, steps=12, kills=kills)

    assert config.diff(own).keys() <= set(CADENCES)
    assert all(role_of(name) != "identity" for name in CADENCES)
    assert own.save_every <= max(1, 12 // (kills + 1)) and own.save_minutes == 0
    assert bool(own.eval_every) == bool(config.eval_every)
    assert own.max_steps <= 12 and own.epochs in (0.0, config.epochs)


def test_in_scratch_every_place_is_below_the_folder(tmp_path):
    config = TrainingConfig(
        mirror_dir="drive", run_name="mine", resume="must", database="postgresql://host/db"
    )

    own = in_scratch(config, tmp_path)

    assert config.diff(own).keys() <= set(PLACES)
    assert Path(own.database_url()).parent == tmp_path == Path(own.output_dir)
    assert (own.mirror_dir, own.resume, own.panel) == ("", "auto", "off")
    assert in_scratch(config.replace(database="off"), tmp_path).database == "off"


def test_a_run_that_cannot_be_killed_in_between_is_refused():
    with pytest.raises(ConfigError, match="has 3 steps, but 4 are wanted"):
        bounded(TrainingConfig(max_steps=3), 40, has_val=False, steps=40, kills=1)


# Targets


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        pytest.param("resume_targets", "path/file.py:function is wanted", id="no function named"),
        pytest.param("nosuch.py:make", "there is no file", id="no such file"),
        pytest.param("nosuch:make", "Start where it lies", id="no such module"),
        pytest.param(target("soumd"), "Did you mean sound", id="no such function"),
        pytest.param(target("N_TOKENS"), "has no function N_TOKENS", id="not a function"),
        pytest.param(target("without_config"), "def make_trainer", id="takes no config"),
        pytest.param(target("a_model_alone"), "returned Small, but", id="returns a model"),
        pytest.param(target("broken"), "ValueError in resume_targets.py, line", id="raises"),
    ],
)
def test_a_target_that_is_none_is_refused_with_the_cure(name, wanted):
    with pytest.raises(ConfigError, match=wanted):
        build(name, TrainingConfig())


def test_functions_are_named_for_other_processes():
    assert name_of(None) == name_of(text_model)
    assert name_of(resume_targets.sound) == f"{resume_targets.__name__}:sound"
    for local in (lambda config: config, resume_targets.Small().forward):
        with pytest.raises(ConfigError, match="in this process alone"):
            name_of(local)


def test_a_target_that_ignores_what_it_is_given_is_refused():
    with pytest.raises(ConfigError, match="batch_size is 4 where 8 was asked for"):
        check_resume(target("stubborn"), TrainingConfig(batch_size=8), kills=1)


def test_a_run_that_pauses_itself_is_refused_with_the_step_and_the_cure():
    with pytest.raises(ConfigError) as caught:
        check_resume(target("pausing"), kills=1, steps=12)

    message = str(caught.value)
    assert message.startswith("The run pauses itself at step 6 (enough for today), but")
    assert "without the callback that calls run.stop.set" in message


# Comparison


@pytest.fixture
def two_runs(make_trainer, data, tmp_path):
    """The output_dir of a run, and that of its copy."""
    here, there = tmp_path / "unbroken", tmp_path / "killed"
    settings = {"ema_decay": 0.9, "eval_every": 6, "database": "auto", "max_steps": 12}
    trainer = make_trainer(run_name=RUN_NAME, output_dir=str(here), **settings)
    trainer.train(data.train, data.val)
    shutil.copytree(here, there)
    return here, there


def test_a_run_equals_its_copy_in_every_part(two_runs):
    found = compare(*two_runs)

    assert found.is_same and not found.differences
    assert found.first_step is None and found.same_until == 12
    assert {part.name: part.n_values for part in found.parts}.keys() >= {
        "weights and buffers", "optimizer", "average of weights", "random states", "counters",
        "guard", "plan and identity", "metric rows", "rows in the database", "exported model",
    }  # fmt: skip
    assert found.n_values == len(dict(values_of(two_runs[0])))


def change_tensor(section):
    def change(folder, snapshot):
        tensor = next(t for t in snapshot.sections[section].values() if t.dim() == 2)
        flat = tensor.view(-1)
        (flat if flat.dtype == torch.uint8 else flat.view(torch.int32))[-1] ^= 1

    return change


def change_state(key, inner, value):
    return lambda folder, snapshot: snapshot.state[key].update({inner: value})


def change_row(folder, snapshot):
    lines = folder.metrics_file.read_text().splitlines()
    lines[5] = lines[5].replace('"train/loss": ', '"train/loss": 1')
    folder.metrics_file.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        *[(change_tensor(name), None) for name in ("model", "optimizer", "ema")],
        (change_state("run", "samples", 7), "counters"),
        (change_state("guard", "more", 1), "guard"),
        (change_state("random", "python", [3, [1, 2], None]), "random states"),
        (change_state("plan", "precision", "bf16"), "plan and identity"),
        (change_row, "metric rows"),
    ],
)
def test_one_bit_that_differs_is_found_and_named(two_runs, change, part):
    folder = RunFolder(two_runs[1] / RUN_NAME)
    store = folder.checkpoints
    taken = store.load_latest()
    shutil.rmtree(store.path(taken.step))
    change(folder, taken)
    RunFolder(two_runs[1] / RUN_NAME).checkpoints.save(taken, keep=9)

    found = compare(*two_runs)

    assert not found.is_same and len(found.differences) == 1
    assert found.differences[0].name.part == part or part is None
    assert [p.name for p in found.parts if not p.is_same] == [found.differences[0].name.part]
    if part == "metric rows":
        assert (found.first_step, found.same_until) == (6, 5)


@pytest.mark.parametrize(
    ("here", "there", "told"),
    [
        (torch.zeros(2, 3), torch.tensor([[0.0, 0, 0], [0, 2, 0]]), "x[1, 1]: 0 unbroken, 2"),
        (torch.tensor(1.0), torch.tensor(1.0 + 1e-7), "x: 1 unbroken, 1.00000012 killed (1 of 1"),
        (torch.tensor([True]), torch.tensor([False]), "x[0]: True unbroken, False killed"),
        (torch.zeros(2), torch.zeros(3), "x: torch.float32 (2,) unbroken, torch.float32 (3,)"),
        ([1, [2, 3]], [1, [2, 4]], "x[1][1]: 3 unbroken, 4 killed (off by 1)"),
        ("a", None, "x: 'a' unbroken, None killed"),
        (math.nan, 1.0, "x: nan unbroken, 1 killed"),
    ],
)
def test_a_difference_names_the_first_place_and_the_size(here, there, told):
    name = Name("part", "x")

    assert told in str(difference(name, {name: here}, {name: there}))
    assert str(difference(name, {name: 1}, {})) == "x: 1 unbroken, absent killed"


# Moments and costs


@pytest.fixture
def timeline(tmp_path):
    """A run of 20 steps of 0.1 s, validated every 5 and saved every 3."""
    events = [{"event": "ready", "t": 2.0}, {"event": "start", "t": 2.5, "step": 0}]
    events[1] |= {"resumed_from": None}
    for step in range(1, 21):
        events.append({"event": "step", "t": 2.5 + 0.1 * step, "step": step})
        for kind, every in (("evaluate", 5), ("checkpoint", 3)):
            if step % every == 0:
                events.append({"event": kind, "t": 2.55 + 0.1 * step, "step": step})
    return Timeline(Session(0.0, tmp_path, events, ended=5.0), RunFolder(tmp_path / RUN_NAME))


@pytest.mark.parametrize("seed", range(20))
def test_moments_are_of_every_kind_in_the_order_of_the_run(timeline, seed):
    moments = draw_moments(timeline, 12, seed)
    steps = [moment.step for moment in moments]

    assert {m.kind for m in draw_moments(timeline, 3, seed)} == set(FIRST_KINDS)
    assert {m.kind for m in moments} <= set(ALL_KINDS)
    assert steps == sorted(steps) and min(steps) > 3
    assert all(m.step in timeline.saved for m in moments if m.kind == "saving")
    assert all(m.step in timeline.evaluated for m in moments if m.kind == "validating")
    assert moments == draw_moments(timeline, 12, seed)


def test_a_kill_costs_start_up_restoring_and_the_steps_done_twice(timeline, tmp_path):
    events = [
        {"event": "ready", "t": 11.0},
        {"event": "start", "t": 11.5, "step": 6, "resumed_from": 6},
        *({"event": "step", "t": 11.5 + 0.1 * i, "step": 6 + i} for i in range(1, 15)),
    ]
    after = Session(10.0, tmp_path, events, ended=14.0)
    before = Session(0.0, tmp_path, timeline.session.events[:14], ended=4.0, is_killed=True)

    (kill,) = kills_of([before, after], ["step 9, training"])

    assert before.reached == 9 and kill.went_on_from == "step 6"
    assert kill.steps_again == 3
    assert (kill.startup_s, kill.restoring_s) == pytest.approx((1.0, 0.5))
    assert kill.again_s == pytest.approx(0.3) and kill.lost_s == pytest.approx(1.8)
