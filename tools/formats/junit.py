"""The report as JUnit's XML: a suite with a case for each notebook."""

from xml.etree import ElementTree

from tools.checking.finding import Finding, shown
from tools.validate import Report


def render(report: Report) -> str:
    """A failure for each file with errors or warnings; what is only info is its output."""
    files = dict.fromkeys([*report.paths, *(finding.path for finding in report.findings)])
    by_file = {path: [f for f in report.findings if f.path == path] for path in files}
    failed = [path for path in files if any(f.severity != "info" for f in by_file[path])]
    root = ElementTree.Element("testsuites")
    counts = {"tests": str(len(files)), "failures": str(len(failed)), "errors": "0"}
    suite = ElementTree.SubElement(root, "testsuite", {"name": "notebooks", **counts})
    for path, findings in by_file.items():
        name = {"classname": "validate", "name": shown(path), "time": "0"}
        case = ElementTree.SubElement(suite, "testcase", name)
        _fill(case, findings)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True)


def _fill(case: ElementTree.Element, findings: list[Finding]) -> None:
    faults = [finding for finding in findings if finding.severity != "info"]
    notes = [finding for finding in findings if finding.severity == "info"]
    if faults:
        codes = ", ".join(sorted({finding.code for finding in faults}))
        failure = ElementTree.SubElement(case, "failure", {"type": "finding", "message": codes})
        failure.text = "\n".join(map(_line, faults))
    if notes:
        ElementTree.SubElement(case, "system-out").text = "\n".join(map(_line, notes))


def _line(finding: Finding) -> str:
    head = f"{shown(finding.path)}:{finding.file_line or 1}: {finding.severity} {finding.code}"
    place = f" {finding.place}" if finding.place else ""
    return _printable(f"{head}{place}: {finding.message} {finding.cure}")


def _printable(text: str) -> str:
    """The text with a mark for each character that XML cannot hold."""
    return "".join(c if _is_printable(ord(c)) else "\N{REPLACEMENT CHARACTER}" for c in text)


def _is_printable(code: int) -> bool:
    return code in (9, 10) or 32 <= code < 0xD800 or 0xE000 <= code < 0xFFFE or code > 0xFFFF
