"""RELIABILITY.md: every promise with the figures of one run of its tests.

    python -m tests.faults.report            run all in full, and write the page
    python -m tests.faults.report --again    run what did not hold the last time, once more
    python -m tests.faults.report --quick    run all but benchmarks in their quick form; a table
    python -m tests.faults.report --page     write the page again from RELIABILITY.json

Names of promises as further arguments choose among them, and then nothing is written. A promise
that has no figures of this very run is shown as not run, and one whose tests fail as failed; then
the command fails too. What was run again is marked as that on the page.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.faults.promises import ALONE, LIMITS, LONG, PROMISES, Promise

ROOT = Path(__file__).resolve().parents[2]
PAGE, DATA = ROOT / "RELIABILITY.md", ROOT / "RELIABILITY.json"
N_AT_ONCE = 2
HELD, FAILED, NOT_RUN = "held", "failed", "not run"
LIBRARIES = ("torch", "numpy", "ipython", "ipykernel")


def run(promises: Iterable[Promise], form: str) -> dict[str, Any]:
    """Run the files of all promises, and return the data of the page."""
    began, promises = time.monotonic(), list(promises)
    files = list(dict.fromkeys(promise.file for promise in promises))
    with tempfile.TemporaryDirectory() as folder:
        with ThreadPoolExecutor(N_AT_ONCE) as pool:
            beside = [name for name in files if name not in ALONE]
            beside.sort(key=lambda name: name not in LONG)
            started = {name: pool.submit(run_file, name, form, folder) for name in beside}
        codes = {name: future.result() for name, future in started.items()}
        codes |= {name: run_file(name, form, folder) for name in files if name in ALONE}
        records = {path.stem: json.loads(path.read_text()) for path in Path(folder).glob("*.json")}
    results = {p.key: result_of(records.get(p.key), codes[p.file], form) for p in promises}
    return {
        "form": form,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "seconds": round(time.monotonic() - began),
        "results": results,
    }


def run_file(name: str, form: str, folder: str) -> int:
    """Run a file of tests or a benchmark in a process of its own; return its exit code."""
    started, environment = time.monotonic(), {**os.environ, "OMP_NUM_THREADS": "1"}
    environment |= {"TRAINBOOK_FAULTS": form, "TRAINBOOK_RELIABILITY_DIR": folder}
    pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "timeout=3600"]
    how = [] if name.startswith("benchmarks/") else pytest
    done = subprocess.run(
        [sys.executable, *how, name], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    verdict = "passed" if done.returncode == 0 else "FAILED"
    print(f"{name}: {verdict} in {time.monotonic() - started:.0f} s", flush=True)
    if done.returncode:
        print("\n".join((done.stdout + done.stderr).splitlines()[-60:]), flush=True)
    return done.returncode


def result_of(record: dict[str, Any] | None, code: int, form: str) -> dict[str, Any]:
    """What a promise came to: figures only where all tests of its file passed in this run."""
    if code:
        return {"outcome": FAILED}
    if record is None or record["form"] != form:
        return {"outcome": NOT_RUN}
    return {"outcome": HELD, **{k: record[k] for k in record if k not in ("promise", "form")}}


def machine() -> dict[str, Any]:
    """Facts that figures depend on, and that identify nobody."""
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "CPUs": len(os.sched_getaffinity(0)),
        "Python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def again(data: dict[str, Any]) -> dict[str, Any]:
    """The data of a run, with those promises run once more that did not hold in it."""
    failed = [p for p in PROMISES if data["results"].get(p.key, {}).get("outcome") != HELD]
    later = run(failed, data["form"])
    if later["machine"] != data["machine"]:
        raise SystemExit("The machine is another one than that of RELIABILITY.json: run all anew.")
    marked = {key: {**found, "again": later["date"]} for key, found in later["results"].items()}
    return {**data, "results": {**data["results"], **marked}}


def is_whole(data: dict[str, Any], promises: Iterable[Promise] = PROMISES) -> bool:
    """Whether every promise held, but for those that this machine lacks something for."""
    outcomes = {p: data["results"].get(p.key, {"outcome": NOT_RUN})["outcome"] for p in promises}
    return all(o == HELD or (o == NOT_RUN and p.is_optional) for p, o in outcomes.items())


def page(data: dict[str, Any]) -> str:
    """The page as Markdown."""
    facts = ", ".join(f"{name} {value}" for name, value in data["machine"].items())
    n_controls = len({control for promise in PROMISES for control in promise.controls})
    return "\n".join(
        [
            "# Reliability",
            "",
            "What is promised of a run, the tests that show it, and what they found the last time.",
            "This page is written by `make reliability`, from one run of all tests in their "
            f"{data['form']} form; what that run did not measure has no figure here.",
            "",
            f"Run on {data['date']} in {minutes(data['seconds'])}: {facts}. "
            f"{n_controls} tests are negative controls: they take a protection away, and see that "
            "the same check fails.",
            "",
            *table(data),
            "",
            *(line for promise in PROMISES for line in section(promise, data)),
            "## Known limits",
            "",
            *(f"- {limit}" for limit in LIMITS),
            "",
        ]
    )


def table(data: dict[str, Any]) -> list[str]:
    """All promises in a line each."""
    lines = ["| Promise | Outcome | Time | Test |", "|---|---|---|---|"]
    for promise in PROMISES:
        found = data["results"].get(promise.key, {"outcome": NOT_RUN})
        took = minutes(found["seconds"]) if "seconds" in found else ""
        outcome = found["outcome"] if found["outcome"] != FAILED else "**failed**"
        outcome += ", run again" if "again" in found else ""
        lines.append(f"| {promise.title} | {outcome} | {took} | [{promise.file}]({promise.file}) |")
    return lines


def section(promise: Promise, data: dict[str, Any]) -> list[str]:
    """One promise: its claim and figures, or that there are none."""
    found = data["results"].get(promise.key, {"outcome": NOT_RUN})
    lines = [f"## {promise.title}", ""]
    if found["outcome"] == FAILED:
        return [*lines, f"Failed: [{promise.file}]({promise.file}) found a fault in this run.", ""]
    if found["outcome"] == NOT_RUN:
        need = f" It needs {promise.needs}." if promise.needs else ""
        return [*lines, f"Not run.{need}", ""]
    lines += [found["claim"], "", "| Figure | Value |", "|---|---|"]
    lines += [f"| {name} | {shown(value)} |" for name, value in found["figures"].items()]
    lines += ["", f"`{found['command']}`, seed {found['seed']}.", ""]
    for control in promise.controls:
        file, _, name = control.partition("::")
        lines += [f"Negative control: `{name}` in [{file}]({file}).", ""]
    return lines


def shown(value: Any) -> str:
    """A figure as a reader wants it."""
    if isinstance(value, dict):
        return "; ".join(f"{name}: {shown(part)}" for name, part in value.items())
    if isinstance(value, list):
        return "; ".join(map(shown, value))
    return f"{value:,}" if isinstance(value, int) else f"{value}"


def minutes(seconds: float) -> str:
    """A time with its unit."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the quick form; writes nothing")
    parser.add_argument("--again", action="store_true", help="what did not hold, once more")
    parser.add_argument("--page", action="store_true", help="write the page from its data again")
    parser.add_argument("promises", nargs="*", help="only these; writes nothing")
    options = parser.parse_args()
    known = {promise.key: promise for promise in PROMISES}
    unknown = sorted(set(options.promises) - known.keys())
    if unknown:
        parser.error(f"{', '.join(unknown)} is not promised; these are: {', '.join(known)}")
    if options.page:
        PAGE.write_text(page(json.loads(DATA.read_text())), encoding="utf-8")
        return 0
    every = [p for p in PROMISES if not options.quick or p.file not in ALONE]
    chosen = [known[key] for key in options.promises] or every
    if options.again:
        data = again(json.loads(DATA.read_text()))
    else:
        data = run(chosen, "quick" if options.quick else "full")
    if options.quick or options.promises:
        print("\n".join(["", *table(data)]))
    else:
        DATA.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
        PAGE.write_text(page(data), encoding="utf-8")
    print(f"\n{len(chosen)} promises in {minutes(data['seconds'])}.")
    return 0 if is_whole(data, chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
