"""Replace `test_fine_tuning` by a `Trainer` and its `train`.

-results = test_fine_tuning(model, cfg, data, n_epochs=training_config.epochs)
+trainer = Trainer(model=model, config=cfg, training_config=training_config)
+results = trainer.train(train_data=data)
"""

from dataclasses import dataclass

import libcst as cst

from tools.codemod.build import (
    Argument,
    add_imports,
    call_text,
    comment_lines,
    expression,
    local_name,
    statements,
)
from tools.codemod.draft import Draft, DraftCell
from tools.codemod.names import dotted
from tools.migrations.arguments import Arguments, arguments
from tools.migrations.fields import (
    ACCUMULATION,
    CHOICES,
    DROPPED,
    LEGACY_DEFAULTS,
    OPTIMIZER,
    RENAMED,
    Converted,
    builder_text,
    converted,
)
from tools.migrations.flow import holders, kind
from tools.migrations.legacy import FINE_TUNING, TARGET
from tools.migrations.symbols import calls

SIGNATURE = (
    "model", "config", "train_data", "val_data", "n_epochs", "learning_rate", "weight_decay",
    "batch_size", "use_wandb", "use_amp", "gradient_accumulation_steps", "gradient_clip_norm",
    "random_seed", "deterministic", "use_lr_schedule", "log_grad_dist_every",
    "log_grad_histogram", "adapter", "task_spec",
)  # fmt: skip
UNDERSTOOD = {*SIGNATURE, "num_epochs"}
NO_DATA = "train_data is None: this used to train on random tokens, and is an error now."


@dataclass
class Rewriting:
    """One call, and the code that takes its place."""

    trainer: str
    train: list[Argument]
    imports: list[str]
    remarks: list[tuple[str, str]]
    has_data: bool

    def joined(self) -> str:
        """Trainer and training as one expression."""
        return f"{self.trainer}.{call_text('train', self.train)}"


def migrate(draft: Draft) -> None:
    """Rewrite every call that is understood, and say why the others are left."""
    refused: set[tuple[int, int]] = set()
    while True:
        pending = [
            (call, draft.names.cell_of(call))
            for call, symbol in calls(draft, FINE_TUNING)
            if (draft.names.cell_of(call).number, _nth(draft, call)) not in refused
        ]
        if not pending:
            break
        call, cell = pending[0]
        rewriting = _rewriting(draft, call)
        if isinstance(rewriting, str):
            refused.add((cell.number, _nth(draft, call)))
            draft.say("left", cell, f"{FINE_TUNING}(...) is left: {rewriting}.")
        elif not _replace(draft, call, cell, rewriting):
            refused.add((cell.number, _nth(draft, call)))


def _nth(draft: Draft, call: cst.Call) -> int:
    """Which of the calls of its cell this is; those before it were refused, so it stays."""
    own = draft.names.cell_of(call)
    found = [c for c, _ in calls(draft, FINE_TUNING) if draft.names.cell_of(c) is own]
    return found.index(call)


def _replace(draft: Draft, call: cst.Call, cell: DraftCell, new: Rewriting) -> bool:
    """Put the new code in the place of a call; return whether that could be done."""
    line = draft.names.line_of(call)
    target = _target(draft, call, line)
    if target is None:
        edits = {call: lambda _: expression(new.joined())}
        if not new.has_data:
            edits[line] = lambda node: _commented(node, [NO_DATA])
    else:
        lines = _three_steps(draft, new, target, draft.names.is_top(call))
        edits = {line: lambda node: _spread(node, lines, [] if new.has_data else [NO_DATA])}
    if not draft.edit(edits):
        return False
    add_imports(draft, TARGET, cell, new.imports)
    for what, text in new.remarks:
        draft.say(what, cell, text)
    return True


def _target(draft: Draft, call: cst.Call, line: cst.CSTNode) -> str | None:
    """The name that the call is assigned to; empty if to none, None if it stands in more code."""
    if not isinstance(line, cst.SimpleStatementLine) or len(line.body) != 1:
        return None
    part = line.body[0]
    if isinstance(part, cst.Expr) and part.value is call:
        return ""
    is_plain = isinstance(part, cst.Assign) and part.value is call and len(part.targets) == 1
    if is_plain and isinstance(part.targets[0].target, cst.Name):
        return part.targets[0].target.value
    return None


def _three_steps(draft: Draft, new: Rewriting, target: str, is_top: bool) -> list[str]:
    """Create, train, process: the statements that replace one."""
    trainer, result = draft.names.free("trainer"), target
    if not result and is_top:
        result = draft.names.free("results")
    start = f"{result} = " if result else ""
    lines = [
        f"{trainer} = {new.trainer}",
        start + call_text(f"{trainer}.train", new.train, len(start)),
    ]
    if is_top:
        lines.append(f"{draft.names.free('checkpoint_path')} = {trainer}.export({result})")
    return lines


def _spread(
    node: cst.SimpleStatementLine, lines: list[str], comments: list[str]
) -> cst.FlattenSentinel:
    """Put lines in the place of one; comments above and beside it stay."""
    new = [statement for line in lines for statement in statements(line)]
    new[0] = new[0].with_changes(leading_lines=node.leading_lines)
    train = new[1]
    added = [empty for text in comments for empty in comment_lines(text)]
    new[1] = train.with_changes(
        leading_lines=[*train.leading_lines, *added],
        trailing_whitespace=node.trailing_whitespace,
    )
    return cst.FlattenSentinel(new)


def _commented(node: cst.BaseStatement, comments: list[str]) -> cst.BaseStatement:
    added = [empty for text in comments for empty in comment_lines(text)]
    return node.with_changes(leading_lines=[*node.leading_lines, *added])


def _rewriting(draft: Draft, call: cst.Call) -> Rewriting | str:
    """The code for one call, or why there is none."""
    if draft.is_fixed(call):
        return "it stands in a line with a magic"
    found = arguments(draft.names, call, call, SIGNATURE)
    unknown = [name for name in found.given if name not in UNDERSTOOD]
    if found.refusal:
        return found.refusal
    if unknown:
        return f"{', '.join(unknown)} is no argument that it ever took"
    if {"n_epochs", "num_epochs"} <= found.given.keys():
        return "n_epochs and num_epochs are both given"
    if not {"model", "config"} <= found.given.keys():
        return "model and config are not both given"
    new = Rewriting("", [], ["Trainer"], [], True)
    trainer = [("model", found.take("model")), ("config", found.take("config"))]
    task = found.take("task_spec") or next(iter(holders(draft, "task", call)), "")
    data, val = found.take("train_data") or "None", found.take("val_data")
    config = _config(draft, call, found, new)
    trainer += [("training_config", config)] + (
        [("task_spec", task)] if task != "None" and task else []
    )
    name = local_name(draft, TARGET, "Trainer", call)
    new.imports[0] = name
    new.trainer = call_text(name, trainer, len("trainer = "))
    new.train = [("train_data", data)] + ([("val_data", val)] if val not in ("", "None") else [])
    new.has_data = data != "None"
    if not new.has_data:
        new.remarks.append(("left", f"{NO_DATA} Pass the data to train on."))
    return new


def _config(draft: Draft, call: cst.Call, found: Arguments, new: Rewriting) -> str:
    """The code of the config of the run: one that is there, changed, or a new one."""
    base = _base(draft, call, found)
    given = {n: c for n, c in found.given.items() if not _is_from(draft, base, n, found)}
    result = converted(draft, given, f"{base}.batch_size" if base else "4")
    new.remarks += [("dropped", text) for text in result.dropped]
    if given.get("use_lr_schedule") == "True":
        result.settings.pop("scheduler", None)
    if base:
        _say_defaults(found, base, new)
        return _changed(draft, call, base, result, new)
    settings = {**LEGACY_DEFAULTS, **result.settings, **OPTIMIZER}
    name = local_name(draft, TARGET, "TrainingConfig", call)
    new.imports.append(name)
    new.remarks.append(
        ("changed", "A TrainingConfig was made from the arguments and the defaults of the call.")
    )
    return call_text(name, list(settings.items()), len("    training_config="))


def _changed(draft: Draft, call: cst.Call, base: str, result: Converted, new: Rewriting) -> str:
    if not result.settings:
        return base
    builder = local_name(draft, TARGET, "TrainingConfigBuilder", call)
    new.imports.append(builder)
    return builder_text(draft, base, builder, result.settings)


def _base(draft: Draft, call: cst.Call, found: Arguments) -> str:
    """The config that the call's values are taken from, or the only one that there is."""
    for node in found.nodes.values():
        if isinstance(node, cst.Attribute) and kind(draft.names, node.value) == "config":
            return draft.names.code(node.value)
    candidates = holders(draft, "config", call)
    return candidates[0] if len(candidates) == 1 else ""


def _is_from(draft: Draft, base: str, name: str, found: Arguments) -> bool:
    """Whether an argument only repeats what the config says."""
    owner, _, attribute = dotted(found.nodes[name]).rpartition(".")
    if not base or owner != base:
        return False
    return RENAMED.get(attribute, attribute) == RENAMED.get(name, name)


def _say_defaults(found: Arguments, base: str, new: Rewriting) -> None:
    """Tell which values the config decides now that were the function's defaults."""
    silent = {"use_wandb", "task_spec", "train_data", "val_data", *DROPPED, *CHOICES, ACCUMULATION}
    given = {RENAMED.get(name, name) for name in found.nodes}
    missing = [
        name
        for name in SIGNATURE[2:]
        if name not in silent and RENAMED.get(name, name) not in given
    ]
    if missing:
        text = f"{', '.join(missing)} took the function's defaults; {base} decides now."
        new.remarks.append(("changed", text))
