"""The report as SARIF 2.1.0, with the real line of the .ipynb file and the cell by its id."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tools.checking.finding import Finding, shown
from tools.checking.house import load_rules, summaries
from tools.validate import Report

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
LEVELS = {"error": "error", "warning": "warning", "info": "note"}


def render(report: Report) -> str:
    """One run with every rule and every finding."""
    codes = list(summaries())
    driver = {"name": "notebook-tools", "rules": [_rule(code) for code in codes]}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "originalUriBaseIds": {"SRCROOT": {"uri": Path.cwd().as_uri() + "/"}},
        "results": [_result(finding, codes) for finding in report.findings],
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1)


def _rule(code: str) -> dict[str, Any]:
    summary = summaries()[code]
    rule = load_rules().get(code)
    level = LEVELS[rule.severity] if rule else "warning"
    return {
        "id": code,
        "shortDescription": {"text": summary},
        "help": {"text": f"{summary} Each finding says what to do."},
        "defaultConfiguration": {"level": level},
    }


def _result(finding: Finding, codes: list[str]) -> dict[str, Any]:
    region: dict[str, Any] = {"startLine": finding.file_line or 1}
    if finding.excerpt:
        region["snippet"] = {"text": finding.excerpt}
    location: dict[str, Any] = {
        "physicalLocation": {"artifactLocation": _artifact(finding.path), "region": region}
    }
    if finding.cell_id is not None:
        name = f"{shown(finding.path)}#{finding.cell_id}"
        location["logicalLocations"] = [
            {"name": finding.cell_id, "fullyQualifiedName": name, "kind": "cell"}
        ]
    return {
        "ruleId": finding.code,
        "ruleIndex": codes.index(finding.code),
        "level": LEVELS[finding.severity],
        "message": {"text": f"{finding.message} {finding.cure}"},
        "locations": [location],
        "partialFingerprints": {"finding/v1": finding.fingerprint},
    }


def _artifact(path: Path) -> dict[str, str]:
    name = shown(path)
    if Path(name).is_absolute():
        return {"uri": Path(name).as_uri()}
    return {"uri": quote(name), "uriBaseId": "SRCROOT"}
