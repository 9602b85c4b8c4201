"""The report as workflow commands, which GitHub shows beside the lines of a pull request."""

from tools.checking.finding import Finding, shown
from tools.validate import Report

LEVELS = {"error": "error", "warning": "warning", "info": "notice"}


def render(report: Report) -> str:
    """One command for each finding."""
    return "\n".join(map(_command, report.findings))


def _command(finding: Finding) -> str:
    title = f"{finding.code} {finding.place}".strip()
    properties = {"file": shown(finding.path), "line": finding.file_line or 1, "title": title}
    words = ",".join(f"{name}={_property(str(value))}" for name, value in properties.items())
    return f"::{LEVELS[finding.severity]} {words}::{_data(f'{finding.message} {finding.cure}')}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
