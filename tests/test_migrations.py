"""The migrations row by row: cells before and after, what is left, and what is let alone."""

import json
from pathlib import Path

import pytest

from tools.migrate import Options, Plan, plan
from tools.migrations import ORDER, legacy_symbols, migrations
from tools.notebook import Notebook
from tools.settings import load_settings

SETTINGS = load_settings(Path(__file__).parent)
BREAK = "\n# %%\n"
MARKDOWN = "%md\n"

# fmt: off
REWRITTEN = [
    pytest.param(
"""\
from utils.tier3_training_utilities import test_fine_tuning
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
# %%
r = test_fine_tuning(model, cfg, data, val, n_epochs=training_config.epochs)""",
"""\
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
# %%
from helpers import Trainer

trainer = Trainer(model=model, config=cfg, training_config=training_config)
r = trainer.train(train_data=data, val_data=val)
checkpoint_path = trainer.export(r)""",
        id="a call with values of the config",
    ),
    pytest.param(
"""\
from utils.tier3_training_utilities import test_fine_tuning
r = test_fine_tuning(net, cfg, data, val, 5, 1e-3)""",
"""\
from helpers import Trainer, TrainingConfig
trainer = Trainer(
    model=net,
    config=cfg,
    training_config=TrainingConfig(
        epochs=5,
        learning_rate=1e-3,
        weight_decay=0.01,
        batch_size=4,
        precision="fp32",
        optimizer="adamw",
    ),
)
r = trainer.train(train_data=data, val_data=val)
checkpoint_path = trainer.export(r)""",
        id="arguments by place, and no config yet",
    ),
    pytest.param(
"""\
from utils.tier3_training_utilities import test_fine_tuning
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
# %%
r = test_fine_tuning(model, cfg, data, num_epochs=7)""",
"""\
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
# %%
from helpers import Trainer, TrainingConfigBuilder

trainer = Trainer(
    model=model,
    config=cfg,
    training_config=(
        TrainingConfigBuilder.from_config(training_config)
        .with_training(epochs=7)
        .build()
    ),
)
r = trainer.train(train_data=data)
checkpoint_path = trainer.export(r)""",
        id="num_epochs for n_epochs",
    ),
    pytest.param(
"""\
from utils.tier3_training_utilities import test_fine_tuning
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
# %%
r = test_fine_tuning(model, cfg, data, weight_decay=0.2, gradient_clip_norm=0.5,
    random_seed=7, deterministic=True)""",
"""\
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
# %%
from helpers import Trainer, TrainingConfigBuilder

trainer = Trainer(
    model=model,
    config=cfg,
    training_config=(
        TrainingConfigBuilder.from_config(training_config)
        .with_optimizer(weight_decay=0.2, max_grad_norm=0.5)
        .with_training(seed=7)
        .with_hardware(deterministic=True)
        .build()
    ),
)
r = trainer.train(train_data=data)
checkpoint_path = trainer.export(r)""",
        id="settings under other names",
    ),
    pytest.param(
"""\
from utils.tier3_training_utilities import test_fine_tuning
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
# %%
r = test_fine_tuning(model, cfg, data, use_amp=amp, use_lr_schedule=False)""",
"""\
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
# %%
from helpers import Trainer, TrainingConfigBuilder

trainer = Trainer(
    model=model,
    config=cfg,
    training_config=(
        TrainingConfigBuilder.from_config(training_config)
        .with_hardware(precision="auto" if amp else "fp32")
        .with_scheduler(scheduler="constant")
        .build()
    ),
)
r = trainer.train(train_data=data)
checkpoint_path = trainer.export(r)""",
        id="switches become choices",
    ),
    pytest.param(
"""\
from utils.tier3_training_utilities import test_fine_tuning
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
# %%
r = test_fine_tuning(model, cfg, data, batch_size=4, gradient_accumulation_steps=8)""",
"""\
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
# %%
from helpers import Trainer, TrainingConfigBuilder

trainer = Trainer(
    model=model,
    config=cfg,
    training_config=(
        TrainingConfigBuilder.from_config(training_config)
        .with_training(batch_size=32)
        .with_hardware(micro_batch_size=4)
        .build()
    ),
)
r = trainer.train(train_data=data)
checkpoint_path = trainer.export(r)""",
        id="accumulation becomes the micro-batch",
    ),
    pytest.param(
"""\
from utils.tier3_training_utilities import test_fine_tuning
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
# %%
r = test_fine_tuning(model, cfg, data, adapter=a, log_grad_dist_every=2,
    log_grad_histogram=True, use_wandb=True)""",
"""\
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
# %%
from helpers import Trainer

trainer = Trainer(model=model, config=cfg, training_config=training_config)
r = trainer.train(train_data=data)
checkpoint_path = trainer.export(r)""",
        id="arguments without a counterpart",
    ),
    pytest.param(
"""\
from utils.tier3_training_utilities import test_fine_tuning
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
# %%
r = test_fine_tuning(model, cfg)""",
"""\
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
# %%
from helpers import Trainer

trainer = Trainer(model=model, config=cfg, training_config=training_config)
# train_data is None: this used to train on random tokens, and is an error now.
r = trainer.train(train_data=None)
checkpoint_path = trainer.export(r)""",
        id="no data",
    ),
    pytest.param(
"""\
from utils.test_functions import test_fine_tuning as fit
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
# %%
r = fit(model, cfg, data, task_spec=task)""",
"""\
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
# %%
from helpers import Trainer

trainer = Trainer(
    model=model,
    config=cfg,
    training_config=training_config,
    task_spec=task,
)
r = trainer.train(train_data=data)
checkpoint_path = trainer.export(r)""",
        id="an alias",
    ),
    pytest.param(
"""\
import utils.tier3_training_utilities as t3
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
# %%
r = t3.test_fine_tuning(model, cfg, data)""",
"""\
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
# %%
from helpers import Trainer

trainer = Trainer(model=model, config=cfg, training_config=training_config)
r = trainer.train(train_data=data)
checkpoint_path = trainer.export(r)""",
        id="a module under another name",
    ),
    pytest.param(
"""\
import utils.tier3_training_utilities
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
# %%
r = utils.tier3_training_utilities.test_fine_tuning(model, cfg, data)""",
"""\
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
# %%
from helpers import Trainer

trainer = Trainer(model=model, config=cfg, training_config=training_config)
r = trainer.train(train_data=data)
checkpoint_path = trainer.export(r)""",
        id="a module by its whole name",
    ),
    pytest.param(
"""\
from utils import tier3_training_utilities
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
# %%
r = tier3_training_utilities.test_fine_tuning(model, cfg, data)""",
"""\
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
# %%
from helpers import Trainer

trainer = Trainer(model=model, config=cfg, training_config=training_config)
r = trainer.train(train_data=data)
checkpoint_path = trainer.export(r)""",
        id="a module from its package",
    ),
    pytest.param(
"""\
from utils.tier3_training_utilities import test_fine_tuning
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
# %%
def run(lr):
    return test_fine_tuning(model, cfg, data, learning_rate=lr)


print(run(1e-3)['best_val_loss'])""",
"""\
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
# %%
from helpers import Trainer, TrainingConfigBuilder

def run(lr):
    return Trainer(
        model=model,
        config=cfg,
        training_config=(
            TrainingConfigBuilder.from_config(training_config)
            .with_optimizer(learning_rate=lr)
            .build()
        ),
    ).train(train_data=data)


print(run(1e-3)["best_loss"])""",
        id="in a function",
    ),
    pytest.param(
"""\
from utils.tier3_training_utilities import test_fine_tuning
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
# %%
for m in models:
    out = test_fine_tuning(m, cfg, data)  # one
    losses.append(out['final_loss'])""",
"""\
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
# %%
from helpers import Trainer

for m in models:
    trainer = Trainer(model=m, config=cfg, training_config=training_config)
    out = trainer.train(train_data=data)  # one
    losses.append(out['final_loss'])""",
        id="in a loop",
    ),
    pytest.param(
"""\
from utils.tier3_training_utilities import test_fine_tuning
from helpers import TrainingConfig

base = TrainingConfig(epochs=2)
# %%
losses = [
    test_fine_tuning(m, cfg, data)['final_loss']
    for m in models
]""",
"""\
from helpers import TrainingConfig

base = TrainingConfig(epochs=2)
# %%
from helpers import Trainer

losses = [
    Trainer(model=m, config=cfg, training_config=base).train(train_data=data)['final_loss']
    for m in models
]""",
        id="in an expression",
    ),
    pytest.param(
"""\
from utils.tier3_training_utilities import test_fine_tuning
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
# %%
class Trainer:
    pass
# %%
r = test_fine_tuning(model, cfg, data)""",
"""\
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
# %%
class Trainer:
    pass
# %%
import helpers

trainer = helpers.Trainer(model=model, config=cfg, training_config=training_config)
r = trainer.train(train_data=data)
checkpoint_path = trainer.export(r)""",
        id="a class of the notebook has the name",
    ),
    pytest.param(
"""\
!pip install -q x
from utils.tier3_training_utilities import test_fine_tuning
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
# %%
%%time
r = test_fine_tuning(model, cfg, data)
!ls""",
"""\
!pip install -q x
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
# %%
%%time
from helpers import Trainer

trainer = Trainer(model=model, config=cfg, training_config=training_config)
r = trainer.train(train_data=data)
checkpoint_path = trainer.export(r)
!ls""",
        id="beside magics",
    ),
    pytest.param(
"""\
from utils.test_functions import test_hyperparameter_search
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
space = {'lr': (1e-5, 1e-3), 'batch_size': [2, 4], 'n_layers': (1, 3), 'dropout': (0.0, 0.2)}
# %%
hp = test_hyperparameter_search(make, cfg, data, 5, space, random_seed=3)""",
"""\
from helpers import Choice, Float, Int, SearchSpace, TrainingConfig

training_config = TrainingConfig(epochs=2)
space = SearchSpace({
    "learning_rate": Float(1e-5, 1e-3, log=True),
    "batch_size": Choice([2, 4]),
    "n_layers": Int(1, 3),
    "dropout": Float(0.0, 0.2),
})
# %%
from helpers import run_search

hp = run_search(
    make,
    space,
    training_config,
    model_config=cfg,
    train_data=data,
    n_trials=5,
    seed=3,
)""",
        id="a search",
    ),
    pytest.param(
"""\
from utils.test_functions import test_hyperparameter_search
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
model = build(cfg)
# %%
hp = test_hyperparameter_search(
    model=model, config=cfg, train_data=data, val_data=val,
    search_space={'wd': [0.0, 0.1]}, timeout=3
)""",
"""\
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
model = build(cfg)
# %%
from helpers import Choice, SearchSpace, run_search

hp = run_search(
    lambda: build(cfg),
    SearchSpace({
        "weight_decay": Choice([0.0, 0.1]),
    }),
    training_config,
    model_config=cfg,
    train_data=data,
    val_data=val,
    n_trials=10,
)""",
        id="a model where its factory is wanted",
    ),
    pytest.param(
"""\
from utils.test_functions import test_hyperparameter_search
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
# %%
hp = test_hyperparameter_search(make, cfg, data, search_space=make_space())""",
"""\
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
# %%
from helpers import SearchSpace, run_search

hp = run_search(
    make,
    SearchSpace.from_dict(make_space()),
    training_config,
    model_config=cfg,
    train_data=data,
    n_trials=10,
)""",
        id="a space that is not a literal",
    ),
    pytest.param(
"""\
from helpers import Trainer

results = Trainer(model, cfg).train(data)
# %%
print(results['training_time_seconds'], results.get('best_val_loss', 0), results['best_loss'])""",
"""\
from helpers import Trainer

results = Trainer(model, cfg).train(data)
# %%
print(results["training_time"], results["best_loss"], results['best_loss'])""",
        id="renamed keys",
    ),
    pytest.param(
"""\
from helpers import Trainer

results = Trainer(model, cfg).train(data)
# %%
print(f"{results['best_val_loss']:.2f} {results['initial_loss']:.2f}")""",
"""\
from helpers import Trainer

results = Trainer(model, cfg).train(data)
# %%
# Meaning changed: initial_loss was the loss of step 1; this is the first that was
# logged.
print(f"{results['best_loss']:.2f} {results['history']['train/loss'].iloc[0]:.2f}")""",
        id="a key inside an f-string",
    ),
    pytest.param(
"""\
from helpers import Trainer

results = Trainer(model, cfg).train(data)
# %%
plt.plot(results['loss_history'])""",
"""\
from helpers import Trainer

results = Trainer(model, cfg).train(data)
# %%
# Meaning changed: loss_history had one value a step; this has one a validation.
plt.plot(results["metrics_summary"]["train/loss"].tolist())""",
        id="loss_history",
    ),
    pytest.param(
"""\
from helpers import Trainer

results = Trainer(model, cfg).train(data)
# %%
r = results
plt.plot(r['grad_norm_history'])""",
"""\
from helpers import Trainer

results = Trainer(model, cfg).train(data)
# %%
r = results
# Meaning changed: grad_norm_history had one value a step; this has one a log.
plt.plot(r["history"]["gradient_norm"].tolist())""",
        id="grad_norm_history through another name",
    ),
    pytest.param(
"""\
from helpers import Trainer

results = Trainer(model, cfg).train(data)
# %%
print(results['amp_enabled'])""",
"""\
from helpers import Trainer

results = Trainer(model, cfg).train(data)
# %%
# amp_enabled is gone: the precision is in training_config.precision and in the record
# of the run.
print(results['amp_enabled'])""",
        id="a key that is gone",
    ),
    pytest.param(
"""\
from helpers import Trainer

results = Trainer(model, cfg).train(data)
# %%
table = results['metrics_summary']
# %%
table['epoch_duration'].mean()""",
"""\
from helpers import Trainer

results = Trainer(model, cfg).train(data)
# %%
table = results['metrics_summary']
# %%
# metrics_summary has no epoch_duration: elapsed_s has the seconds since the start.
table['epoch_duration'].mean()""",
        id="a column that is gone",
    ),
    pytest.param(
"""\
from helpers import Trainer

results = Trainer(model, cfg).train(data)
# %%
for k, v in results.items():
    print(k)
if 'loss_history' in results:
    saved = results.copy()""",
"""\
from helpers import Trainer

results = Trainer(model, cfg).train(data)
# %%
for k, v in results.to_dict().items():
    print(k)
if "metrics_summary" in results.keys():
    saved = results.to_dict()""",
        id="methods of a dict",
    ),
    pytest.param(
"""\
from helpers import Trainer

results = Trainer(model, cfg).train(data)
# %%
def run():
    return Trainer(model, cfg).train(data)


print(run()['best_val_loss'])""",
"""\
from helpers import Trainer

results = Trainer(model, cfg).train(data)
# %%
def run():
    return Trainer(model, cfg).train(data)


print(run()["best_loss"])""",
        id="a result of a function",
    ),
    pytest.param(
"""\
from helpers import run_search

hp_results = run_search(make, space, base, train_data=data)
# %%
print(hp_results['best_params'], hp_results['best_value'], hp_results['n_trials'])
hp_results['trials_df']""",
"""\
from helpers import run_search

hp_results = run_search(make, space, base, train_data=data)
# %%
print(hp_results.best_params, hp_results.best_value, hp_results.n_trials)
hp_results.trial_results""",
        id="keys of a search",
    ),
    pytest.param(
"""\
from utils.training.training_config import TrainingConfig

c = TrainingConfig(epochs=2, learning_rate=5e-5, random_seed=7, gradient_clip_norm=0.5,
    use_amp=True, use_wandb=False, checkpoint_dir='out')""",
"""\
from helpers import TrainingConfig

c = TrainingConfig(
    epochs=2,
    learning_rate=5e-5,
    seed=7,
    max_grad_norm=0.5,
    precision="auto",
    output_dir='out',
    optimizer="adamw",
)""",
        id="a config of old names",
    ),
    pytest.param(
"""\
from utils.training.training_config import TrainingConfig

c = TrainingConfig(epochs=2)
# %%
print(c.checkpoint_dir, c.random_seed, c.epochs)
if c.use_amp:
    print(f'{c.use_lr_schedule}')""",
"""\
from helpers import TrainingConfig

c = TrainingConfig(epochs=2)
# %%
print(c.output_dir, c.seed, c.epochs)
if c.precision != "fp32":
    print(f'{c.scheduler != "constant"}')""",
        id="attributes of a config",
    ),
    pytest.param(
"""\
from utils.training.training_config import TrainingConfigBuilder

c = (
    TrainingConfigBuilder.from_config(base)
    .with_training(epochs=2, learning_rate=1e-3, random_seed=1)
    .build()
)""",
"""\
from helpers import TrainingConfigBuilder

c = (
    TrainingConfigBuilder.from_config(base)
    .with_training(epochs=2, seed=1)
    .with_optimizer(learning_rate=1e-3)
    .build()
)""",
        id="a builder of old groups",
    ),
    pytest.param(
"""\
from utils.training.training_config import TrainingConfigBuilder

c = TrainingConfigBuilder.from_config(base).with_training(**changes).build()""",
"""\
from helpers import TrainingConfigBuilder

c = TrainingConfigBuilder.from_config(base).with_settings(**changes).build()""",
        id="a builder with any settings",
    ),
    pytest.param(
"""\
from utils.training.training_core import TrainingCoordinator

print(1)
coordinator = TrainingCoordinator(model, cfg)""",
"""\
print(1)""",
        id="a coordinator that nothing reads",
    ),
    pytest.param(
"""\
from utils.training.training_core import TrainingCoordinator

TrainingCoordinator(model, cfg).train()""",
"""\
from utils.training.training_core import TrainingCoordinator

# TrainingCoordinator is gone: build a Trainer of helpers, and call its train.
TrainingCoordinator(model, cfg).train()""",
        id="a coordinator that is used",
    ),
    pytest.param(
"""\
from utils.tokenization.data_module import SimpleDataModule

data = SimpleDataModule(texts)""",
"""\
from helpers import UniversalDataModule

data = UniversalDataModule(texts)""",
        id="the data module",
    ),
    pytest.param(
"""\
from utils.tokenization.data_module import SimpleDataModule

data = SimpleDataModule(texts, batch_size=4)""",
"""\
from helpers import UniversalDataModule

# UniversalDataModule takes no batch_size: it has cache_dir, sequence_length, source,
# tokenizer, val_fraction, vocab_size.
data = UniversalDataModule(texts, batch_size=4)""",
        id="the data module with arguments that are gone",
    ),
    pytest.param(
"""\
from utils.tokenization.data_module import SimpleDataModule as Data
# %%
data = Data(texts)""",
"""\
from helpers import UniversalDataModule as Data
# %%
data = Data(texts)""",
        id="the data module under an alias",
    ),
    pytest.param(
"""\
import torch
from utils.training.engine.trainer import Trainer
from utils.training.engine.loop import TrainingLoop
from utils.training.engine.optimizer_factory import OptimizerFactory
from utils.training.engine.scheduler_factory import SchedulerFactory
from utils.training.training_config import TrainingConfig, TrainingConfigBuilder as Builder
from utils.training.task_spec import TaskSpec
from utils.training.engine.data import UniversalDataModule
from utils.training.experiment_db import ExperimentDB
from utils.training.metrics_tracker import MetricsTracker""",
"""\
import torch
from helpers import (
    ExperimentDB,
    MetricsTracker,
    OptimizerFactory,
    SchedulerFactory,
    TaskSpec,
    Trainer,
    TrainingConfig,
    TrainingConfigBuilder as Builder,
    TrainingLoop,
    UniversalDataModule,
)""",
        id="all classes of the engine",
    ),
    pytest.param(
"""\
import utils.training.engine.trainer as engine
# %%
trainer = engine.Trainer(model, cfg)""",
"""\
from helpers import Trainer

trainer = Trainer(model, cfg)""",
        id="members of an old module",
    ),
    pytest.param(
"""\
try:
    from utils.training.engine.trainer import Trainer
except ImportError:
    print('missing')
    raise""",
"""\
try:
    from helpers import Trainer
except ImportError:
    print('missing')
    raise""",
        id="an import in a try that raises",
    ),
    pytest.param(
"""\
try:
    from utils.training.engine.loop import TrainingLoop
except ImportError:
    from utils.training.engine.training_loop import TrainingLoop""",
"""\
from helpers import TrainingLoop""",
        id="two homes in a try",
    ),
    pytest.param(
"""\
try:
    from utils.training.dashboard import Dashboard
except ImportError:
    pass
print(1)""",
"""\
print(1)""",
        id="a try with nothing left to import",
    ),
    pytest.param(
"""\
from utils.training.training_core import TrainingCoordinator
# %%
print(1)""",
"""\
print(1)""",
        id="a cell of which nothing is left",
    ),
    pytest.param(
"""\
from utils.training import run_grid_sweep

sweep = run_grid_sweep(base, {})
# %%
sweep
# %%
print(1)""",
"""\
print(1)""",
        id="sweeps and what shows them",
    ),
    pytest.param(
"""\
from utils.tier3_training_utilities import test_fine_tuning
from helpers import TrainingConfig

training_config = TrainingConfig(epochs=2)
r = test_fine_tuning(model, cfg, data)
# %%
%md
## Train with `test_fine_tuning()`

See [the guide](docs/test_fine_tuning.md) of `utils.tier3_training_utilities`.

```python
r = test_fine_tuning(model, cfg, data, n_epochs=1, learning_rate=1e-3, batch_size=2, weight_decay=0)
```

```
test_fine_tuning
```""",
"""\
from helpers import Trainer, TrainingConfig

training_config = TrainingConfig(epochs=2)
trainer = Trainer(model=model, config=cfg, training_config=training_config)
r = trainer.train(train_data=data)
checkpoint_path = trainer.export(r)
# %%
%md
## Train with `Trainer.train()`

See [the guide](docs/test_fine_tuning.md) of `helpers`.

```python
trainer = Trainer(
    model=model,
    config=cfg,
    training_config=TrainingConfig(
        epochs=1,
        learning_rate=1e-3,
        weight_decay=0,
        batch_size=2,
        precision="fp32",
        optimizer="adamw",
    ),
)
r = trainer.train(train_data=data)
checkpoint_path = trainer.export(r)
```

```
test_fine_tuning
```""",
        id="texts and fences",
    ),
]

LEFT = [
    pytest.param(
"""\
from utils.tier3_training_utilities import test_fine_tuning
r = test_fine_tuning(model, cfg, **options)""",
        "what **options holds is known only when it runs",
        id="options by double star",
    ),
    pytest.param(
"""\
from utils.tier3_training_utilities import test_fine_tuning
r = test_fine_tuning(model, cfg, data, epochs=3)""",
        "epochs is no argument that it ever took",
        id="an argument that never was",
    ),
    pytest.param(
"""\
from utils.tier3_training_utilities import test_fine_tuning
r = test_fine_tuning(model, cfg, data, n_epochs=3, num_epochs=3)""",
        "n_epochs and num_epochs are both given",
        id="both names for epochs",
    ),
    pytest.param(
"""\
from utils.tier3_training_utilities import test_fine_tuning
# %%
%time r = test_fine_tuning(model, cfg, data)""",
        "it stands in a line with a magic",
        id="in a line magic",
    ),
    pytest.param(
"""\
from utils.test_functions import test_hyperparameter_search

hp = test_hyperparameter_search(make, cfg, data)""",
        "it names no search_space",
        id="a search without a space",
    ),
    pytest.param(
"""\
from utils.test_functions import test_hyperparameter_search

hp = test_hyperparameter_search(model=load(), config=cfg, train_data=data, search_space={})""",
        "how it is made is unclear",
        id="a model whose making is unclear",
    ),
    pytest.param(
"""\
from utils.tier3_training_utilities import test_benchmark_comparison

test_benchmark_comparison(model, cfg)""",
        "Use Trainer.evaluate for the loss",
        id="a benchmark",
    ),
    pytest.param(
"""\
from utils.tier3_training_utilities import *

r = test_fine_tuning(model, cfg, data)""",
        "which names it brings cannot be known",
        id="a star",
    ),
    pytest.param(
"""\
from utils.training.dashboard import Dashboard

Dashboard().show()""",
        "training shows its progress by itself",
        id="a dashboard that is used",
    ),
    pytest.param(
"""\
if fast:
    from utils.tier3_training_utilities import test_fine_tuning
else:
    def test_fine_tuning(*a):
        return None
# %%
r = test_fine_tuning(model, cfg, data)""",
        "may be the old test_fine_tuning",
        id="a name that may be something else",
    ),
    pytest.param(
"""\
from utils.training import build_task_spec

task = build_task_spec(cfg)
# %%
print(task, model)
model = fit(task)
# %%
model""",
        "other cells read task",
        id="a sweep that others need",
    ),
    pytest.param(
"""\
from utils.tier3_training_utilities import test_fine_tuning
r = test_fine_tuning(model, cfg""",
        "The cell does not parse",
        id="a cell that does not parse",
    ),
    pytest.param(
"""\
from utils.tier3_training_utilities import test_fine_tuning
runner = test_fine_tuning
runner(model, cfg)""",
        "it is still used",
        id="a function handed on",
    ),
    pytest.param(
"""\
from helpers import Trainer

results = Trainer(model, cfg).train(data)
# %%
results['mine'] = 1""",
        "a TrainingResult does not change",
        id="a result that changes",
    ),
]

ALONE = [
    pytest.param(
"""\
# test_fine_tuning was here
print('TrainingCoordinator')""",
        id="names in comments and strings",
    ),
    pytest.param(
"""\
def test_fine_tuning(model, config):
    return {'loss_history': []}


r = test_fine_tuning(1, 2)
r['loss_history']""",
        id="a function of the notebook's own",
    ),
    pytest.param(
"""\
from transformers import Trainer

r = Trainer(model).train()
r['loss_history']""",
        id="another package with a Trainer",
    ),
    pytest.param(
"""\
results = {'loss_history': [1]}
results['loss_history']""",
        id="a dict that is no result",
    ),
    pytest.param(
"""\
from utils.plots import draw

draw()""",
        id="a package that is only called utils",
    ),
    pytest.param(
"""\
%md
Once there was `test_fine_tuning()`.
# %%
print(1)""",
        id="texts of a notebook without old code",
    ),
    pytest.param(
"""\
from helpers import Trainer

results = Trainer(model, cfg).train(data)
# %%
results['final_loss'], results.best_loss, results['metrics_summary']""",
        id="today's API",
    ),
    pytest.param(
"""\
%%bash
python -c 'from utils.training import run_training'""",
        id="a shell cell",
    ),
]
# fmt: on

TOLD = [
    pytest.param("adapter=a", "dropped", "adapter=a is dropped", id="adapter"),
    pytest.param("log_grad_dist_every=2", "dropped", "result.history", id="gradients"),
    pytest.param("use_wandb=True", "dropped", "send result.history to W&B", id="wandb"),
    pytest.param("n_epochs=2", "changed", "training_config decides now", id="defaults"),
    pytest.param("train_data=None", "left", "used to train on random tokens", id="no data"),
]


def notebook_of(cells: str) -> Notebook:
    """A notebook of cells written one after another."""
    nodes = []
    for i, source in enumerate(cells.split(BREAK)):
        is_markdown = source.startswith(MARKDOWN)
        node = {
            "cell_type": "markdown" if is_markdown else "code",
            "id": f"c{i}",
            "metadata": {},
            "source": source.removeprefix(MARKDOWN).splitlines(keepends=True),
        }
        nodes.append(node if is_markdown else {**node, "outputs": [], "execution_count": None})
    content = {"cells": nodes, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    return Notebook(Path("x.ipynb"), (json.dumps(content, indent=1) + "\n").encode(), content)


def cells_of(notebook: Notebook) -> str:
    """The cells as `notebook_of` takes them."""
    return BREAK.join(
        (MARKDOWN if cell.kind == "markdown" else "") + cell.source for cell in notebook.cells
    )


def planned(cells: str, **options) -> Plan:
    return plan(notebook_of(cells), SETTINGS, Options(**options))


@pytest.mark.parametrize("before, after", REWRITTEN)
def test_old_cells_become_todays_cells(before, after):
    assert cells_of(planned(before).result) == after


@pytest.mark.parametrize("before, after", REWRITTEN)
def test_a_migrated_notebook_is_not_changed_again(before, after):
    assert planned(after).touched == ()


@pytest.mark.parametrize("cells, why", LEFT)
def test_what_is_not_understood_is_left_and_reported_with_its_reason(cells, why):
    found = planned(cells)

    assert found.touched == ()
    assert any(why in note.text for note in found.of_kind("left"))


@pytest.mark.parametrize("cells", ALONE)
def test_what_only_looks_old_is_let_alone(cells):
    found = planned(cells)

    assert found.touched == ()
    assert found.result.text().encode() == found.notebook.raw


@pytest.mark.parametrize("argument, kind, text", TOLD)
def test_what_is_lost_or_means_something_else_is_told(argument, kind, text):
    data = "" if "train_data" in argument else "train_data=data, "
    cells = (
        "from helpers import TrainingConfig\n"
        "from utils.test_functions import test_fine_tuning\n"
        "training_config = TrainingConfig(epochs=2)\n"
        f"test_fine_tuning(model, cfg, {data}{argument})"
    )

    notes = planned(cells).of_kind(kind)

    assert any(text in note.text for note in notes)


def test_each_use_of_a_key_whose_meaning_changed_is_told():
    cells = (
        "from helpers import Trainer\nresults = Trainer(model).train(data)"
        f"{BREAK}results['loss_history']{BREAK}max(results['loss_history'])"
    )

    notes = planned(cells).of_kind("changed")

    assert [note.number for note in notes] == [1, 2]


def test_an_old_key_of_something_that_cannot_be_followed_is_told():
    cells = (
        "from helpers import Trainer\nruns = [Trainer(m).train(data) for m in models]"
        f"{BREAK}[run['loss_history'] for run in runs]"
    )

    found = planned(cells)

    assert found.touched == ()
    assert [note.number for note in found.of_kind("left")] == [1]


def test_cells_without_a_counterpart_can_be_kept():
    cells = "from utils.training import run_grid_sweep\nrun_grid_sweep(base, {})"

    found = planned(cells, keep_unported=True)

    assert found.touched == ()
    assert "as asked" in found.of_kind("left")[0].text


def test_a_skipped_migration_leaves_its_import():
    cells = "from utils.test_functions import test_fine_tuning\ntest_fine_tuning(m, c, d)"

    assert planned(cells, skip=("fine_tuning",)).touched == ()


def test_only_the_migrations_named_are_applied():
    cells = (
        "from utils.training.engine.trainer import Trainer\nr = Trainer(m).train(d)\n"
        "r['best_val_loss']"
    )

    assert planned(cells, only=("results",)).names == ("results",)


def test_mentions_are_listed_apart_from_what_remains():
    found = planned("# test_fine_tuning was here\nprint('run_training')")

    assert found.of_kind("left") == ()
    assert "run_training, test_fine_tuning" in found.of_kind("mention")[0].text


def test_every_migration_opens_with_a_diff_of_three_lines():
    for name, module in migrations().items():
        summary, _, diff = (module.__doc__ or "").partition("\n\n")
        lines = diff.rstrip().splitlines()
        assert summary.endswith("."), name
        assert 2 <= len(lines) <= 4 and any(line.startswith("-") for line in lines), name


def test_the_order_names_all_migrations():
    assert tuple(migrations()) == ORDER


def test_legacy_symbols_are_old_names_with_a_cure():
    symbols = legacy_symbols()

    assert {name.split(".")[0] for name in symbols} <= set(SETTINGS.legacy)
    assert all(cure.endswith(".") for cure in symbols.values())


def test_symbols_are_listed_without_the_parser_of_code():
    import subprocess
    import sys

    code = "import sys, tools.migrations as m; m.legacy_symbols(); print('libcst' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ran.stdout.strip() == "False"
