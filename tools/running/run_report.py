"""The reports of runs: lines for people, JSON and JUnit for programs, annotations for GitHub.

The JSON file is one object:

    {"schema": 1, "runs": [{
        "notebook": path as given, "workflow": name or null,
        "status": "completed" | "failed" | "interrupted",
        "cause": "" or "error", "exit", "shell", "timeout", "out of memory", "dead kernel",
                 "left running", "not run", "expectation", "interrupted",
        "reason": in words, "traceback": its last lines,
        "cell": null, or the cell to blame: {"number": place in the file from 1, "id", "title",
                "line": of the cell, "file_line": of the .ipynb file},
        "cells": [{"number", "id", "title", "tags", "skipped", "seconds", "memory_mib", "gpu_mib"}],
                 numbers are null where a cell did not run to its end,
        "elapsed_s", "peak_memory_mib", "limits": {"cell_s", "total_s", "memory_mib", "tags"},
        "parameters": {name: value}, "versions": of the kernel {package: version},
        "summary": what the notebook told of its run, or null,
        "notebook_path", "html_path": of what was executed, or null}]}

Memory is resident memory of the kernel and all processes started from it, sampled five times a
second; a page that two processes share counts twice. `gpu_mib` is the most that torch has
allocated since the kernel started, read when the cell had ended; null without a GPU in use.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tools.errors import NotebookError
from tools.run import RunReport
from tools.running.output import write_whole
from tools.running.verdict import CellRecord, Verdict, plain

SLOWEST, WORTH_SHOWING_S = 5, 0.1


def table(reports: Sequence[RunReport]) -> str:
    """One line for each notebook: verdict, time, memory, and the page or the cell to blame."""
    width = max((len(report.label) for report in reports), default=0)
    lines = []
    for report in reports:
        verdict, peak = report.verdict, report.peak_cell
        blamed = f"{verdict.cause}, {verdict.cell}" if verdict.cell else verdict.cause
        note = str(report.html_path) if verdict.status == "completed" else blamed
        memory = f"{peak.memory_mib:>6.0f} MiB" if peak else " " * 10
        head = f"{report.label:<{width}}  {verdict.status:<11}"
        lines.append(f"{head}  {report.elapsed_s:>6.1f} s  {memory}  {note}")
    return "\n".join(lines)


def slowest(report: RunReport) -> str:
    """The slowest cells with their times and memory, and where memory had its peak."""
    ran = [c for c in report.cells if c.seconds is not None and c.seconds >= WORTH_SHOWING_S]
    shown = sorted(ran, key=lambda cell: -cell.seconds)[:SLOWEST]
    lines = [f"{_time(cell.seconds):>10}  {_memory(cell):>10}  {cell}" for cell in shown]
    peak = report.peak_cell
    if peak:
        gpu = max((c.gpu_mib for c in report.cells if c.gpu_mib), default=None)
        also = f", {gpu:.0f} MiB of GPU memory" if gpu else ""
        name = peak.id or peak.title
        lines.append(
            f"{_time(report.elapsed_s):>10}  {_memory(peak):>10}  in all; "
            f"peak in cell {peak.number} ({plain(name)}){also}"
        )
    return "\n".join(lines)


def failure(report: RunReport) -> str:
    """The verdict of a run that did not complete, and the page that shows it."""
    shown = report.html_path
    return f"{report.verdict}" + (f"\nThe notebook as far as it ran: {shown}" if shown else "")


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 600 else f"{seconds / 60:.1f} min"


def _memory(cell: CellRecord) -> str:
    return f"{cell.memory_mib:.0f} MiB" if cell.memory_mib else ""


def annotations(reports: Sequence[RunReport]) -> list[str]:
    """A GitHub annotation for each run that did not complete, at its line of the file."""
    lines = []
    for report in reports:
        verdict = report.verdict
        if verdict.status == "completed":
            continue
        path = report.notebook.absolute()  # GitHub wants it from the root, where CI works
        is_below = path.is_relative_to(Path.cwd())
        path = path.relative_to(Path.cwd()) if is_below else report.notebook
        place = f"file={_property(path.as_posix())},line={file_line(report)}"
        title = _property(f"{report.label} {verdict.status}: {verdict.cause}")
        lines.append(f"::error {place},title={title}::{_data(str(verdict))}")
    return lines


def file_line(report: RunReport) -> int:
    """The line of the .ipynb file to blame; 1 if there is no cell or no file any more."""
    from tools.notebook import read

    verdict = report.verdict
    if verdict.cell is None:
        return 1
    try:
        return read(report.notebook).file_line(verdict.cell.number - 1, verdict.line)
    except NotebookError:
        return 1


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def to_json(report: RunReport) -> dict[str, Any]:
    """A run as plain values; the module's docstring says what they mean."""
    verdict, peak = report.verdict, report.peak_cell
    return {
        "notebook": str(report.notebook),
        "workflow": report.workflow,
        "status": verdict.status,
        "cause": verdict.cause,
        "reason": plain(verdict.reason),
        "traceback": verdict.traceback,
        "cell": _blamed(report, verdict),
        "cells": [_cell(cell) for cell in report.cells],
        "elapsed_s": report.elapsed_s,
        "peak_memory_mib": peak and peak.memory_mib,
        "limits": report.limits.to_dict(),
        "parameters": report.parameters,
        "versions": report.versions,
        "summary": report.summary,
        "notebook_path": report.notebook_path and str(report.notebook_path),
        "html_path": report.html_path and str(report.html_path),
    }


def _blamed(report: RunReport, verdict: Verdict) -> dict[str, Any] | None:
    if verdict.cell is None:
        return None
    names = {"number": verdict.cell.number, "id": verdict.cell.id, "title": verdict.cell.title}
    return {**names, "line": verdict.line, "file_line": file_line(report)}


def _cell(cell: CellRecord) -> dict[str, Any]:
    return {
        "number": cell.number,
        "id": cell.id,
        "title": cell.title,
        "tags": list(cell.tags),
        "skipped": cell.is_skipped,
        "seconds": cell.seconds,
        "memory_mib": cell.memory_mib,
        "gpu_mib": cell.gpu_mib,
    }


def to_junit(reports: Sequence[RunReport]) -> str:
    """A suite for each run, with a case for each code cell."""
    root = ElementTree.Element("testsuites")
    for report in reports:
        verdict = report.verdict
        suite = ElementTree.SubElement(root, "testsuite", name=str(report.notebook))
        if report.workflow:
            suite.set("name", f"{report.notebook} ({report.workflow})")
        for cell in report.cells:
            case = _case(suite, report, str(cell), cell.seconds)
            if verdict.cell is cell:
                _add_fault(case, verdict)
            elif cell.reply is None:
                ElementTree.SubElement(case, "skipped", message="did not run")
        if verdict.cell is None and verdict.status != "completed":
            _add_fault(_case(suite, report, "the notebook", None), verdict)
        counts = {"tests": "testcase", "failures": "testcase/failure", "errors": "testcase/error"}
        for name, path in {**counts, "skipped": "testcase/skipped"}.items():
            suite.set(name, str(len(suite.findall(path))))
        suite.set("time", f"{report.elapsed_s:.3f}")
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _case(
    suite: ElementTree.Element, report: RunReport, name: str, seconds: float | None
) -> ElementTree.Element:
    group = report.notebook.with_suffix("").as_posix().strip("/").replace("/", ".")
    time = {} if seconds is None else {"time": f"{seconds:.3f}"}
    return ElementTree.SubElement(suite, "testcase", classname=group, name=name, **time)


def _add_fault(case: ElementTree.Element, verdict: Verdict) -> None:
    kind = "failure" if verdict.status == "failed" else "error"
    fault = ElementTree.SubElement(case, kind, type=verdict.cause, message=plain(verdict.reason))
    fault.text = plain(verdict.traceback)


def write_reports(reports: Sequence[RunReport], junit: Path | None, json_path: Path | None) -> None:
    """Write the files that are asked for."""
    content = {"schema": 1, "runs": [to_json(report) for report in reports]}
    texts = {junit: to_junit(reports), json_path: json.dumps(_finite(content), indent=2) + "\n"}
    for path, text in texts.items():
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, text)


def _finite(value: Any) -> Any:
    """The same value as JSON knows it: no NaN, no infinity, keys of text."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    is_plain = value is None or isinstance(value, str | int)
    is_plain = is_plain or (isinstance(value, float) and math.isfinite(value))
    return value if is_plain else str(value)
