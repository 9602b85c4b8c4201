"""Write all cases into one tree, validate them in one go, and compare."""

import json
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from tests.defects import lookalikes, names, running, structure
from tests.defects.cases import TREE, Case, content_of
from tools.settings import load_settings
from tools.validate import validate

CASES: list[Case] = [*structure.CASES, *names.CASES, *running.CASES, *lookalikes.CASES]
COUNTED = ("error", "warning")


@dataclass(frozen=True)
class Result:
    """A case with what was said about it: code, cell and message of each finding."""

    case: Case
    found: tuple[tuple[str, int | None, str], ...]

    @property
    def is_right(self) -> bool:
        """Whether a defect is seen at its cell, or a lookalike draws nothing."""
        if not self.case.codes:
            return not self.found
        return any(code in self.case.codes and at == self.case.place for code, at, _ in self.found)

    def why(self) -> str:
        """What was wanted and what was got."""
        wanted = f"{' or '.join(sorted(self.case.codes)) or 'nothing'} at {self.case.place}"
        return f"wanted {wanted}, got {list(self.found) or 'nothing'}"


def check_all(folder: Path) -> list[Result]:
    """Validate every case; findings of severity info do not count."""
    for name, text in TREE.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for case in CASES:
        text = json.dumps(content_of(case), indent=1, ensure_ascii=False) + "\n"
        (folder / case.file_name).write_bytes(case.raw(text))
    workflows = {case.file_name: {"w": case.workflow} for case in CASES if case.workflow}
    settings = replace(load_settings(folder), workflows=workflows)
    paths = [folder / case.file_name for case in CASES]
    report = validate(paths, settings, root=folder)
    found = defaultdict(list)
    for finding in report.findings:
        if finding.severity in COUNTED:
            name = Path(finding.path).resolve().relative_to(folder.resolve()).as_posix()
            found[name].append((finding.code, finding.cell_index, finding.message))
    return [Result(case, tuple(found[case.file or case.file_name])) for case in CASES]
