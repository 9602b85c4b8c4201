"""Run the tools on odd notebooks, and count what they must never do: break down, or harm a file."""

import functools
import importlib.util
import random
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.document.json_text import parse
from tools.errors import ToolsError
from tools.fuzzing.mutants import mutant, wild_source
from tools.notebook import Notebook, read
from tools.program import Program
from tools.settings import Settings

Operation = Callable[[Path, random.Random], None]


@dataclass
class Tally:
    """What one operation did with all cases."""

    name: str
    accepted: int = 0
    refused: int = 0
    tracebacks: int = 0
    changed: int = 0
    """Files that were other bytes afterwards."""
    slowest_s: float = 0.0


@dataclass
class Outcome:
    """The tallies of a run, and the folder or the names of what went wrong."""

    tallies: list[Tally]
    failures: list[str] = field(default_factory=list)
    """One line for each failing case that was kept."""

    @property
    def is_sound(self) -> bool:
        """Whether nothing broke down and no file was changed."""
        return not any(tally.tracebacks or tally.changed for tally in self.tallies)

    def table(self) -> str:
        """One line for each operation."""
        head = f"{'operation':<10}{'accepted':>10}{'refused':>9}{'tracebacks':>12}"
        lines = [f"{head}{'changed files':>15}{'slowest':>11}"]
        for t in self.tallies:
            counts = f"{t.accepted:>10}{t.refused:>9}{t.tracebacks:>12}{t.changed:>15}"
            lines.append(f"{t.name:<10}{counts}{t.slowest_s * 1000:>8.0f} ms")
        return "\n".join(lines)


def operations(settings: Settings) -> dict[str, Operation]:
    """What can be done with a notebook here, by name."""
    known: dict[str, Operation] = {"read": _read, "text": _text, "edit": _edit}
    if importlib.util.find_spec("tools.validate"):
        known["validate"] = functools.partial(_validate, settings)
    if settings.migrations and importlib.util.find_spec("tools.migrate"):
        known["migrate"] = functools.partial(_migrate, settings)
    return known


def fuzz(
    count: int,
    seed: int,
    chosen: dict[str, Operation],
    given: Sequence[Path] = (),
    keep: Path | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Outcome:
    """Run operations on `count` odd notebooks; a case depends on the seed and its number alone.

    Failing cases are kept in the folder `keep`.
    """
    outcome = Outcome([Tally(name) for name in chosen])
    seeds = [path.read_bytes() for path in given]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        path = Path(folder, "case.ipynb")
        for number in range(count):
            raw = mutant(random.Random(f"{seed}:{number}"), seeds)
            path.write_bytes(raw)
            for tally, operation in zip(outcome.tallies, chosen.values(), strict=True):
                fault = _run(tally, operation, path, raw, random.Random(number))
                if fault:
                    name = f"{tally.name}-{seed}-{number}"
                    outcome.failures.append(f"{name}: {_kept(keep, name, raw, fault)}")
            progress(number + 1)
    return outcome


def _run(tally: Tally, operation: Operation, path: Path, raw: bytes, rng: random.Random) -> str:
    """Run one operation on one case; the traceback or the harm that it did, or nothing."""
    fault, start = "", time.perf_counter()
    try:
        operation(path, rng)
        tally.accepted += 1
    except ToolsError as error:
        tally.refused += 1
        if "\n" in str(error) and operation is _read:
            fault = f"the refusal has several lines: {error}"
            tally.tracebacks += 1
    except Exception:  # noqa: BLE001 any other exception is what is looked for
        tally.tracebacks += 1
        fault = traceback.format_exc()
    tally.slowest_s = max(tally.slowest_s, time.perf_counter() - start)
    if path.read_bytes() != raw:
        tally.changed += 1
        fault += "\nthe file was changed"
        path.write_bytes(raw)
    return fault


def _kept(keep: Path | None, name: str, raw: bytes, fault: str) -> str:
    """Keep a case with its traceback; where it is and the last line of the traceback."""
    last = fault.strip().rsplit("\n", 1)[-1]
    if keep is None:
        return last
    keep.mkdir(parents=True, exist_ok=True)
    path = keep / f"{name}.ipynb"
    path.write_bytes(raw)
    path.with_suffix(".txt").write_text(fault, encoding="utf-8", errors="replace")
    return f"{path}: {last}"


def _read(path: Path, rng: random.Random) -> None:
    """Read it, and look at all that a rule looks at."""
    notebook = read(path)
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    n_lines = notebook.raw.count(b"\n") + 1
    for cell in notebook.cells:
        assert (cell.title, cell.tags, cell.lost_newlines()) is not None
        assert 1 <= notebook.file_line(cell.index, 1 + cell.source.count("\n")) <= n_lines
    program = Program(notebook)
    assert all(cell.tree is None or cell.error is None for cell in program.cells)
    assert program.names_in_broken_cells is not None


def _text(path: Path, rng: random.Random) -> None:
    notebook = read(path)
    assert notebook.text().encode() == notebook.raw


def _edit(path: Path, rng: random.Random) -> None:
    """Edit it in memory: what would be written says what the edit says."""
    notebook = read(path)
    for _ in range(rng.randrange(1, 4)):
        rng.choice(EDITS)(notebook, rng)
    assert parse(notebook.text()) == notebook.content


def _validate(settings: Settings, path: Path, rng: random.Random) -> None:
    """Run every rule bare: `validate` itself would tell a rule that breaks down as a finding."""
    from tools.checking.house import load_rules
    from tools.rules import Subject

    subject = Subject(read(path), settings, settings.root)
    for rule in load_rules().values():
        for _ in rule.check(subject):
            pass


def _migrate(settings: Settings, path: Path, rng: random.Random) -> None:
    """Plan and apply to a copy, which is verified."""
    from tools.migrate import plan

    assert plan(read(path), settings).result is not None


def _insert(notebook: Notebook, rng: random.Random) -> None:
    index = rng.randrange(len(notebook.nodes) + 1)
    notebook.insert(index, rng.choice(("code", "markdown")), wild_source(rng))


def _remove(notebook: Notebook, rng: random.Random) -> None:
    if notebook.nodes:
        notebook.remove(rng.choice(notebook.cells).id)


def _retext(notebook: Notebook, rng: random.Random) -> None:
    for cell in _some(notebook, rng):
        cell.source = wild_source(rng)
        assert cell.source == notebook.cells[cell.index].source


def _tag(notebook: Notebook, rng: random.Random) -> None:
    for cell in _some(notebook, rng):
        cell.metadata["tags"] = [*cell.tags, "é"]
        notebook.metadata["a"] = {"b": [1, 2.5, None]}


def _some(notebook: Notebook, rng: random.Random) -> Iterator[object]:
    if notebook.nodes:
        yield rng.choice(notebook.cells)


EDITS = (_insert, _remove, _retext, _tag)
