"""What old notebooks import, as plain data: three generations of one API, and each name's cure."""

TARGET = "helpers"

FUNCTIONS = ("utils.tier3_training_utilities", "utils.test_functions")
"""Homes of the function API."""

FINE_TUNING = "test_fine_tuning"
SEARCH = "test_hyperparameter_search"
BENCHMARK = "test_benchmark_comparison"
COORDINATOR = "TrainingCoordinator"
DATA_MODULE = "SimpleDataModule"

KEPT = {
    "Trainer": "utils.training.engine.trainer",
    "TrainingLoop": "utils.training.engine.training_loop",
    "OptimizerFactory": "utils.training.engine.optimizer_factory",
    "SchedulerFactory": "utils.training.engine.scheduler_factory",
    "TrainingConfig": "utils.training.training_config",
    "TrainingConfigBuilder": "utils.training.training_config",
    "TaskSpec": "utils.training.task_spec",
    "UniversalDataModule": "utils.training.engine.data",
    "ExperimentDB": "utils.training.experiment_db",
    "MetricsTracker": "utils.training.metrics_tracker",
}
"""Classes that bear the same name today, with the usual home of each; others import them too."""

UNPORTED = {
    "run_training": "Build a Trainer and call its train",
    "build_task_spec": "Make a TaskSpec, for example TaskSpec.causal_lm()",
    "build_eval_config": "Set eval_every and eval_sequences of TrainingConfig",
    "build_configs_for_mode": "Start from TrainingConfigBuilder.from_preset",
    "run_grid_sweep": "Use run_search with a SearchSpace",
    "create_repro_bundle": "Call trainer.export, and read the run's record in ExperimentDB",
    "load_gist_model": "Define the model in a cell, or import it from a file",
}
"""Functions of the second generation that have no counterpart, with the nearest thing."""

CURES = {
    FINE_TUNING: "Build a Trainer and call its train",
    SEARCH: "Use run_search with a SearchSpace",
    BENCHMARK: "Use Trainer.evaluate for the loss, and summarize for the size of the model",
    COORDINATOR: "Build a Trainer and call its train",
    DATA_MODULE: f"Import UniversalDataModule from {TARGET}",
    **{name: f"Import {name} from {TARGET}" for name in KEPT},
    **UNPORTED,
}

MODULES = {
    **dict.fromkeys(FUNCTIONS, f"Use Trainer and run_search of {TARGET}"),
    "utils.training": f"Import from {TARGET}",
    "utils.tokenization.data_module": f"Import UniversalDataModule from {TARGET}",
    "utils.training.dashboard": "Leave it out: training shows its progress by itself",
    "cli.run_training": f"Call `python -m {TARGET} train`",
}
"""Modules that are gone, and what to use in place of what they held."""

OTHER_HOMES = {
    "TrainingLoop": ("utils.training.engine.loop",),
    COORDINATOR: ("utils.training.training_core",),
    DATA_MODULE: ("utils.tokenization.data_module",),
    FINE_TUNING: FUNCTIONS,
    SEARCH: FUNCTIONS,
    BENCHMARK: FUNCTIONS,
    **dict.fromkeys(UNPORTED, ("utils.training",)),
}


def legacy_symbols() -> dict[str, str]:
    """Qualified names of old modules, classes and functions, each with its cure as a sentence."""
    homes = {name: (home,) for name, home in KEPT.items()}
    for name, more in OTHER_HOMES.items():
        homes[name] = homes.get(name, ()) + more
    names = {f"{home}.{name}": CURES[name] for name, found in homes.items() for home in found}
    return {name: f"{cure}." for name, cure in sorted({**MODULES, **names}.items())}


def symbol_of(qualified: str) -> str | None:
    """The name in CURES that a qualified name means, whichever old module it was taken from.

    >>> symbol_of("utils.training.engine.trainer.Trainer"), symbol_of("utils.maths.Trainer")
    ('Trainer', None)
    """
    home, _, name = qualified.rpartition(".")
    return name if name in CURES and is_legacy_module(home) else None


def is_legacy_module(name: str) -> bool:
    """Whether a module is one of MODULES, or below one.

    >>> is_legacy_module("utils.training.engine"), is_legacy_module("utils.trainings")
    (True, False)
    """
    return any(name == module or name.startswith(f"{module}.") for module in MODULES)
