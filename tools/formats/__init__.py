"""The report of `validate` in the formats that people and other programs read."""

import importlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tools.validate import Report

FORMATS = ("text", "json", "sarif", "github", "junit")


def render(report: "Report", name: str) -> str:
    """The whole report as text, without a line end after the last line."""
    if name == "json":
        rows = [finding.to_dict() for finding in report.findings]
        return json.dumps(rows, indent=1, ensure_ascii=False)
    return importlib.import_module(f"tools.formats.{name}").render(report)
