"""Name in texts what the code uses now, in code fences too; only names that left the code.

-Training is one call of `test_fine_tuning()`.
+Training is one call of `Trainer.train()`.
"""

import re

from tools.codemod.build import import_text
from tools.codemod.draft import Draft, DraftCell
from tools.migrations.legacy import (
    COORDINATOR,
    DATA_MODULE,
    FINE_TUNING,
    FUNCTIONS,
    KEPT,
    SEARCH,
    TARGET,
)
from tools.migrations.symbols import live, uses

NAMES = {
    FINE_TUNING: "Trainer.train",
    SEARCH: "run_search",
    DATA_MODULE: "UniversalDataModule",
    COORDINATOR: "Trainer",
    "tier3_training_utilities": TARGET,
}
MODULES = {
    "utils.tier3_training_utilities": TARGET,
    "utils/tier3_training_utilities.py": f"{TARGET}/trainer.py",
    "tier3_training_utilities.py": f"{TARGET}/trainer.py",
    **{f"{module}.{name}": f"{TARGET}.{name}" for name, module in KEPT.items()},
}
LONGEST_FIRST = sorted({**NAMES, **MODULES}, key=len, reverse=True)
MENTION = re.compile(
    r"(?P<skip>\]\([^)]*\)|https?://\S+|<[^>\n]*>)"
    rf"|(?<![\w./])(?P<name>{'|'.join(map(re.escape, LONGEST_FIRST))})(?!\w)"
)
FENCE = re.compile(
    r"^(?P<mark>```+|~~~+)[ ]*(?P<language>python|py|python3)?[ ]*\n(?P<code>.*?)^(?P=mark)[ ]*$",
    re.MULTILINE | re.DOTALL,
)
PREFIX = f"from {FUNCTIONS[0]} import {{}}\n"
NAMED = (FINE_TUNING, SEARCH)


def migrate(draft: Draft) -> None:
    """Rewrite the texts of a notebook whose code has been migrated."""
    gone = draft.live_before - live(draft)
    if not gone:
        return
    for cell in draft.cells:
        if cell.kind == "markdown" and not cell.is_removed:
            text = _rewritten(draft, cell, gone)
            if text != cell.source:
                draft.write(cell, text)


def _rewritten(draft: Draft, cell: DraftCell, gone: set[str]) -> str:
    """The text with its fences migrated as code and the rest word by word."""
    parts, end = [], 0
    for fence in FENCE.finditer(cell.source):
        parts.append(_renamed(cell.source[end : fence.start()], gone))
        code = fence["code"]
        new = _fenced(draft, cell, code) if fence["language"] else code
        start, stop = fence.start("code"), fence.end("code")
        parts.append(cell.source[fence.start() : start] + new + cell.source[stop : fence.end()])
        end = fence.end()
    parts.append(_renamed(cell.source[end:], gone))
    return "".join(parts)


def _renamed(text: str, gone: set[str]) -> str:
    """The words of a text by their new names; links and tags stay."""

    def new(match: re.Match[str]) -> str:
        name = match["name"]
        if not name:
            return match[0]
        known = {**NAMES, **MODULES}
        last = name.removesuffix(".py").replace("/", ".").rpartition(".")[2]
        return known[name] if last in gone else name

    return MENTION.sub(new, text)


def _fenced(draft: Draft, cell: DraftCell, code: str) -> str:
    """The code of a fence, migrated as a small notebook of its own."""
    from tools.migrations import migrations

    missing = [name for name in NAMED if name in code and f"import {name}" not in code]
    prefix = PREFIX.format(", ".join(missing)) if missing else ""
    whole = DraftCell(cell.id, 0, "code", prefix + code, "")
    whole.take(prefix + code)
    if whole.module is None:
        draft.say("left", cell, "A code fence with an old name does not parse, and is left.")
        return code
    small = Draft([whole], draft.fields, draft.legacy, keep_unported=True)
    for name, migration in migrations().items():
        if name != draft.step:
            small.step = name
            migration.migrate(small)
    if not small.cells[0].by:
        return code
    for remark in small.remarks:
        if remark.kind == "left":
            draft.say("left", cell, f"In a code fence: {remark.text}")
    return _without_imports(small, whole, bool(prefix))


def _without_imports(small: Draft, whole: DraftCell, had_prefix: bool) -> str:
    """The code of a fence; one that imported nothing before imports nothing now."""
    if not had_prefix or any(use.symbol.is_legacy for use in uses(small)):
        return whole.source
    ours = {item.local for item in small.names.imports() if item.qualified.startswith(f"{TARGET}.")}
    line = import_text(TARGET, ours) + "\n"
    return whole.source.removeprefix(line).lstrip("\n") if ours else whole.source
