"""Optimizers: which parameter is updated by which rule, and the update itself.

Nothing here makes a `torch.optim.Optimizer`, whose first instance imports torch's compiler, 1.2 s
on two cores (torch 2.13, 2026-11-23); the arithmetic is torch's own fused AdamW.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from helpers.engine.muon import muon_step
from helpers.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from helpers.config import TrainingConfig

HEAD_NAMES = {"head", "lm_head", "classifier", "score", "output_projection", "decoder_head"}


@dataclass
class ParameterGroup:
    """Parameters that share a rule, and what the rule remembers of each."""

    name: str
    rule: str
    named: dict[str, nn.Parameter]
    weight_decay: float
    lr_scale: float = 1.0
    state: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    @property
    def n_parameters(self) -> int:
        """Number of numbers in the group."""
        return sum(p.numel() for p in self.named.values())


class Optimizer:
    """Update groups of parameters, each by AdamW or Muon.

    `step` takes the schedule's factor on the peak learning rate. Parameters without a gradient are
    left as they are.
    """

    def __init__(
        self,
        groups: Iterable[ParameterGroup],
        *,
        learning_rate: float,
        betas: tuple[float, float],
        epsilon: float,
        momentum: float,
        muon_dtype: torch.dtype,
    ) -> None:
        self.groups = [group for group in groups if group.named]
        self.learning_rate, self.betas, self.epsilon = learning_rate, betas, epsilon
        self.momentum, self.muon_dtype = momentum, muon_dtype
        for group in self.groups:
            for name, parameter in group.named.items():
                group.state[name] = _fresh_state(group.rule, parameter)
        self.parameters = [p for group in self.groups for p in group.named.values()]
        self._batches = [(group, batch) for group in self.groups for batch in _batches(group)]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Parameters by group, as torch's GradScaler reads them."""
        return [{"params": list(group.named.values())} for group in self.groups]

    @torch.no_grad()
    def step(self, factor: float = 1.0, held: Tensor | None = None) -> bool:
        """Update all parameters once at `factor` times the peak learning rate.

        Where `held`, a scalar of fp32 on their device, is 1 and not 0, nothing changes: neither a
        weight nor a state, whatever the gradients hold. The host does not wait for it.
        """
        for group, batch in self._batches:
            lr = self.learning_rate * factor * group.lr_scale
            parameters, gradients, states = batch.with_gradients()
            if not parameters:
                continue
            if group.rule == "adamw":
                adamw(
                    parameters,
                    gradients,
                    states["exp_avg"],
                    states["exp_avg_sq"],
                    [],
                    states["step"],
                    fused=True,
                    amsgrad=False,
                    beta1=self.betas[0],
                    beta2=self.betas[1],
                    lr=lr,
                    weight_decay=group.weight_decay,
                    eps=self.epsilon,
                    maximize=False,
                    found_inf=held,
                )
            else:
                muon_step(
                    parameters,
                    gradients,
                    states["momentum"],
                    lr=lr,
                    weight_decay=group.weight_decay,
                    momentum=self.momentum,
                    dtype=self.muon_dtype,
                    held=held,
                )
        return True

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def state_tensors(self) -> dict[str, Tensor]:
        """All state by `key/parameter name`, for a checkpoint."""
        return {f"{key}/{name}": tensor for name, key, tensor in self._each_state()}

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Copy the state of a checkpoint in place.

        Raises: CheckpointError if a tensor is missing, unknown or of another shape.
        """
        copy_same_tensors("optimizer", self.state_tensors(), tensors)

    def summary(self) -> pd.DataFrame:
        """Rule, weight decay and size of each group."""
        import pandas as pd

        return pd.DataFrame(
            [
                (g.name, g.rule, self.learning_rate * g.lr_scale, g.weight_decay, g.n_parameters)
                for g in self.groups
            ],
            columns=["group", "rule", "peak learning rate", "weight decay", "parameters"],
        )

    def _each_state(self) -> Iterator[tuple[str, str, Tensor]]:
        for group in self.groups:
            for name, state in group.state.items():
                for key, tensor in state.items():
                    yield name, key, tensor


class OptimizerFactory:
    """Sort a model's parameters into groups and make the optimizer that a config asks for."""

    @staticmethod
    def create(
        model: nn.Module, config: TrainingConfig, *, muon_dtype: torch.dtype = torch.float32
    ) -> Optimizer:
        """Build the optimizer; frozen parameters are left out.

        Raises: ConfigError if no parameter can be trained.
        """
        matrices, embeddings, heads, vectors = sort_parameters(model)
        if not (matrices or embeddings or heads or vectors):
            raise ConfigError(
                f"{type(model).__name__} has no parameter with requires_grad, but training needs "
                "one. Unfreeze some parameters."
            )
        rule = config.optimizer
        embedding_scale = config.embedding_lr_scale if rule == "muon" else 1.0
        return Optimizer(
            [
                ParameterGroup("hidden matrices", rule, matrices, config.weight_decay),
                ParameterGroup("embeddings", "adamw", embeddings, 0.0, embedding_scale),
                ParameterGroup("head", "adamw", heads, 0.0),
                ParameterGroup("vectors", "adamw", vectors, 0.0),
            ],
            learning_rate=config.learning_rate,
            betas=(config.beta1, config.beta2),
            epsilon=config.epsilon,
            momentum=config.muon_momentum,
            muon_dtype=muon_dtype,
        )


def sort_parameters(model: nn.Module) -> tuple[dict[str, nn.Parameter], ...]:
    """Split trainable parameters into hidden matrices, embeddings, heads and vectors.

    A head is a linear layer that is named as one, or that has as many outputs as an embedding has
    rows; a head that shares the embedding's matrix is an embedding. Biases, norms and all that is
    not a matrix are vectors.
    """
    tables = [m for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)]
    in_tables, sizes = {id(m.weight) for m in tables}, {m.num_embeddings for m in tables}
    in_heads = {
        id(module.weight)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and (name.rsplit(".", 1)[-1] in HEAD_NAMES or module.out_features in sizes)
    }
    matrices, embeddings, heads, vectors = {}, {}, {}, {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if id(parameter) in in_tables:
            embeddings[name] = parameter
        elif id(parameter) in in_heads:
            heads[name] = parameter
        elif parameter.dim() == 2 and min(parameter.shape) > 1:
            matrices[name] = parameter
        else:
            vectors[name] = parameter
    return matrices, embeddings, heads, vectors


def clip_gradients(gradients: list[Tensor], max_norm: float) -> Tensor:
    """Scale gradients in place so that their joint norm is at most `max_norm`; 0 leaves them.

    Returns the norm before scaling, on the device. A norm that is not finite makes all of them NaN.
    """
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    if max_norm:
        torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm


def copy_same_tensors(what: str, own: dict[str, Tensor], loaded: dict[str, Tensor]) -> None:
    """Copy what was loaded into our tensors, in place.

    Raises: CheckpointError, with nothing copied, unless both hold the same names and shapes.
    """
    check_same_tensors(what, own, loaded)
    for name, tensor in own.items():
        tensor.copy_(loaded[name])


def check_same_tensors(what: str, own: dict[str, Tensor], loaded: dict[str, Tensor]) -> None:
    """Raise CheckpointError unless both hold the same names and shapes."""
    missing, unknown = sorted(own.keys() - loaded.keys()), sorted(loaded.keys() - own.keys())
    wrong = [n for n in own.keys() & loaded.keys() if own[n].shape != loaded[n].shape]
    if missing or unknown or wrong:
        raise CheckpointError(
            f"The {what} of the checkpoint lacks {missing[:3]}, has {unknown[:3]} too many, and "
            f"{sorted(wrong)[:3]} in another shape ({len(missing)}, {len(unknown)}, {len(wrong)} "
            "in all), but it must fit exactly. Build the model as it was, or start a new run."
        )


@dataclass
class _Batch:
    """Parameters that one call updates, with their states as lists."""

    parameters: list[nn.Parameter]
    states: dict[str, list[Tensor]]

    def with_gradients(self) -> tuple[list[Tensor], list[Tensor], dict[str, list[Tensor]]]:
        gradients = [p.grad for p in self.parameters]
        if not any(g is None for g in gradients):
            return self.parameters, gradients, self.states
        live = [i for i, g in enumerate(gradients) if g is not None]
        states = {key: [tensors[i] for i in live] for key, tensors in self.states.items()}
        return [self.parameters[i] for i in live], [gradients[i] for i in live], states


def _batches(group: ParameterGroup) -> list[_Batch]:
    """One batch for AdamW, one for each shape for Muon."""
    by_shape: dict[Any, list[str]] = defaultdict(list)
    for name, parameter in group.named.items():
        by_shape[parameter.shape if group.rule == "muon" else None].append(name)
    return [
        _Batch(
            [group.named[name] for name in names],
            {key: [group.state[name][key] for name in names] for key in group.state[names[0]]},
        )
        for names in by_shape.values()
    ]


def _fresh_state(rule: str, parameter: nn.Parameter) -> dict[str, Tensor]:
    if rule == "muon":
        return {"momentum": torch.zeros_like(parameter)}
    return {
        "exp_avg": torch.zeros_like(parameter),
        "exp_avg_sq": torch.zeros_like(parameter),
        "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
    }
