"""Replace `test_hyperparameter_search` by `run_search`, and its dict of ranges by a `SearchSpace`.

-hp = test_hyperparameter_search(make, cfg, data, 5, {"lr": (1e-5, 1e-3)})
+space = SearchSpace({"learning_rate": Float(1e-5, 1e-3, log=True)})
+hp = run_search(make, space, training_config, train_data=data, n_trials=5)
"""

import libcst as cst

from tools.codemod.build import add_imports, call_text, expression, local_name
from tools.codemod.draft import Draft, DraftCell
from tools.codemod.names import Names
from tools.migrations.arguments import Arguments, arguments
from tools.migrations.fields import LEGACY_DEFAULTS, OPTIMIZER, WANDB
from tools.migrations.flow import holders
from tools.migrations.legacy import FINE_TUNING, SEARCH, TARGET
from tools.migrations.space import Space, code_of, space_of
from tools.migrations.symbols import calls

SIGNATURE = (
    "model_factory", "config", "train_data", "n_trials", "search_space", "random_seed",
    "deterministic",
)  # fmt: skip
NEVER_WORKED = {"model", "timeout", "val_data", "use_wandb"}
DEFAULT_TRIALS = "10"


def migrate(draft: Draft) -> None:
    """Rewrite every call that is understood, and say why the others are left."""
    refused = 0
    while len(found := [call for call, _ in calls(draft, SEARCH)]) > refused:
        call = found[refused]
        cell = draft.names.cell_of(call)
        reason = _rewrite(draft, call, cell)
        if reason:
            draft.say("left", cell, f"{SEARCH}(...) is left: {reason}.")
            refused += 1


def _rewrite(draft: Draft, call: cst.Call, cell: DraftCell) -> str:
    """Rewrite one call, or return why not."""
    names = draft.names
    found = arguments(names, call, call, SIGNATURE)
    unknown = [name for name in found.given if name not in {*SIGNATURE, *NEVER_WORKED}]
    if draft.is_fixed(call):
        return "it stands in a line with a magic"
    if found.refusal or unknown:
        return found.refusal or f"{', '.join(unknown)} is no argument that it ever took"
    if "search_space" not in found.nodes or found.given["search_space"] == "None":
        return "it names no search_space, and a search needs one"
    factory = found.take("model_factory") or _factory(names, found)
    if not factory:
        return "it was given a model, which trials must not share, and how it is made is unclear"
    space = space_of(draft, found.nodes["search_space"])
    config, needs = _config(draft, call, found)
    parts = _parts(draft, call, found, factory, space, config)
    function = local_name(draft, TARGET, "run_search", call)
    _tell(draft, cell, found)
    edits = {call: lambda _: expression(call_text(function, parts))}
    home = cell if space.at is None else names.cell_of(space.at)
    if space.at is not None:
        code = code_of(names, space.at)
        edits[space.at] = lambda _: expression(code)
    if not draft.edit(edits):
        return "its cell cannot be written"
    if home is cell:
        needs += space.needs
    else:
        add_imports(draft, TARGET, home, space.needs)
    add_imports(draft, TARGET, cell, [function, *needs])
    return ""


def _parts(
    draft: Draft, call: cst.Call, found: Arguments, factory: str, space: Space, config: str
) -> list[tuple[str, str]]:
    """The arguments of `run_search`."""
    parts = [("", factory), ("", space.code), ("", config)]
    task = next(iter(holders(draft, "task", call)), "")
    if task:
        parts.append(("task_spec", task))
    if found.given.get("config", "None") != "None":
        parts.append(("model_config", found.given["config"]))
    parts.append(("train_data", found.given.get("train_data", "None")))
    val = found.given.get("val_data") or _val_data(draft, call)
    if val:
        parts.append(("val_data", val))
    parts.append(("n_trials", found.given.get("n_trials", DEFAULT_TRIALS)))
    if "random_seed" in found.given:
        parts.append(("seed", found.given["random_seed"]))
    return parts


def _config(draft: Draft, call: cst.Call, found: Arguments) -> tuple[str, list[str]]:
    """The config that trials start from, and the names that its code needs."""
    candidates = holders(draft, "config", call)
    if len(candidates) == 1 and found.given.get("deterministic", "False") == "False":
        return candidates[0], []
    base = candidates[0] if len(candidates) == 1 else ""
    deterministic = found.given.get("deterministic", "False")
    if base:
        return f"{base}.replace(deterministic={deterministic})", []
    name = local_name(draft, TARGET, "TrainingConfig", call)
    settings = {**LEGACY_DEFAULTS, **OPTIMIZER}
    if deterministic != "False":
        settings["deterministic"] = deterministic
    return call_text(name, list(settings.items())), [name]


def _factory(names: Names, found: Arguments) -> str:
    """A function that makes the model anew, from the one call that made it."""
    node = found.nodes.get("model")
    found.given.pop("model", None)
    if not isinstance(node, cst.Name):
        return ""
    values = [names.value(binding) for binding in names.reaching(node)]
    if len(values) != 1 or not isinstance(values[0], cst.Call):
        return ""
    return f"lambda: {names.code(values[0])}"


def _val_data(draft: Draft, call: cst.Call) -> str:
    """The data that an earlier training validates on, if it has a name."""
    names = draft.names
    for other in names.nodes(cst.Call):
        if names.order[other] >= names.order[call] or not names.is_top(other):
            continue
        is_training = isinstance(other.func, cst.Attribute) and other.func.attr.value == "train"
        if not is_training and (other, True) not in [
            (c, s.is_legacy) for c, s in calls(draft, FINE_TUNING)
        ]:
            continue
        for arg in other.args:
            if arg.keyword and arg.keyword.value == "val_data" and isinstance(arg.value, cst.Name):
                return arg.value.value
    return ""


def _tell(draft: Draft, cell: DraftCell, found: Arguments) -> None:
    """Say what the search does not take over."""
    if found.given.get("timeout", "None") != "None":
        draft.say("dropped", cell, f"timeout={found.given['timeout']} is dropped: it never worked.")
    if found.given.get("use_wandb", "False") != "False":
        text = f"use_wandb={found.given['use_wandb']} is dropped: {WANDB}."
        draft.say("dropped", cell, text)
    draft.say("changed", cell, "Trials start from the training config, and are judged by val_loss.")
    if "model" in found.nodes:
        text = "A model was passed where a function that makes one is wanted; it is made anew."
        draft.say("changed", cell, text)
    if found.given.get("train_data", "None") == "None":
        draft.say("left", cell, "train_data is None: pass the data to train on.")
