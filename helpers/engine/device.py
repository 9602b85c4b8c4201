"""What the machine at hand is good at: device, number format, compilation, each with its reason."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from helpers.errors import ConfigError

if TYPE_CHECKING:
    from helpers.config import TrainingConfig

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Below this width casts cost a CPU more than its bf16 units save: 0.88 of the speed at a width of
# 64, twice the speed at 256 (torch 2.13, avx512_bf16, 2026-11).
MIN_BF16_WIDTH = 128


@dataclass(frozen=True)
class DevicePlan:
    """Where and how a run computes."""

    device: torch.device
    precision: str
    compile: bool
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the forward pass."""
        return DTYPES[self.precision]

    @property
    def muon_dtype(self) -> torch.dtype:
        """Number format of Muon's matrix products."""
        return self.dtype

    def autocast(self) -> contextlib.AbstractContextManager:
        """Context of the forward pass."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def grad_scaler(self) -> torch.amp.GradScaler | None:
        """Loss scaling, which fp16 alone needs."""
        return torch.amp.GradScaler(self.device.type) if self.precision == "fp16" else None

    def to_dict(self) -> dict[str, Any]:
        """All values as plain JSON types."""
        return {
            "device": str(self.device),
            "precision": self.precision,
            "compile": self.compile,
            "reasons": self.reasons,
        }

    def _repr_html_(self) -> str:
        values = {"device": self.device, "precision": self.precision, "compile": self.compile}
        rows = "".join(
            f"<tr><td>{name}</td><td>{value}</td><td>{self.reasons.get(name, '')}</td></tr>"
            for name, value in values.items()
        )
        return f"<table><tr><th></th><th>plan</th><th>because</th></tr>{rows}</table>"


def plan_device(
    model: nn.Module, config: TrainingConfig, *, begun_in: str | None = None
) -> DevicePlan:
    """Decide device, precision and compilation from the config, the machine and the model.

    The decision is a rule and not a measurement, so that two equal runs decide alike. A run goes on
    in the precision that it has `begun_in`, also on a machine that would have chosen another.

    Raises: ConfigError if a GPU is asked for and not there, or cannot do what is asked for.
    """
    device, why_device = _device(config.device)
    precision, why_precision = _precision(config.precision, device, model)
    if begun_in not in (None, precision) and config.precision == "auto":
        precision, why_precision = begun_in, f"the run began so; alone {precision}: {why_precision}"
    compiled, why_compile = _compile(config.compile, device)
    reasons = {"device": why_device, "precision": why_precision, "compile": why_compile}
    return DevicePlan(device, precision, compiled, reasons)


def prepare_backend(config: TrainingConfig) -> None:
    """Set what torch keeps for the whole process: threads and determinism."""
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # The call imports torch's compiler, 1.2 s, so it is made only where it changes something.
    if config.deterministic != torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(config.deterministic)
    if torch.cuda.is_available():
        torch.backends.cudnn.benchmark = not config.deterministic


def _device(wanted: str) -> tuple[torch.device, str]:
    if wanted == "cpu":
        return torch.device("cpu"), "asked for"
    if not torch.cuda.is_available():
        if wanted == "auto":
            return torch.device("cpu"), "torch sees no GPU"
        raise ConfigError(
            f"device is {wanted!r}, but torch sees no GPU. In Colab choose Runtime > Change "
            "runtime type > T4 GPU, or set device to 'auto'."
        )
    index = torch.device(wanted).index if wanted != "auto" else 0
    index = index or 0
    if index >= torch.cuda.device_count():
        raise ConfigError(
            f"device is {wanted!r}, but there are {torch.cuda.device_count()} GPUs, counted from "
            "0. Choose one of them."
        )
    name = torch.cuda.get_device_name(index)
    idle = torch.cuda.device_count() - 1
    return torch.device("cuda", index), f"{name}; {idle} more stay idle" if idle else name


def _precision(wanted: str, device: torch.device, model: nn.Module) -> tuple[str, str]:
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        # torch.cuda.is_bf16_supported() is True on a T4, where bf16 is emulated and 4 times slower.
        if wanted != "auto":
            return wanted, "asked for"
        if major >= 8:
            return "bf16", f"compute capability {major}.{minor} has bf16 units"
        if major >= 7:
            return "fp16", f"compute capability {major}.{minor} has fp16 units and no bf16"
        return "fp32", f"compute capability {major}.{minor} has neither fp16 nor bf16 units"
    if wanted != "auto":
        return wanted, "asked for"
    flags = _cpu_flags()
    unit = next((flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags), None)
    if unit is None:
        return "fp32", "the CPU has no bf16 units"
    width = max((min(p.shape) for p in model.parameters() if p.dim() == 2), default=0)
    if width < MIN_BF16_WIDTH:
        return "fp32", f"matrices up to {width} wide are too small for bf16 to pay"
    return "bf16", f"the CPU has {unit} and matrices are up to {width} wide"


def _compile(wanted: str, device: torch.device) -> tuple[bool, str]:
    if wanted != "auto":
        return wanted == "on", "asked for"
    if device.type != "cuda":
        return False, "on a CPU it gains 0 to 5 % and costs 15 to 27 s"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return False, "worth its start only on compute capability 8.0 and later"
    if torch.__version__.startswith("2.10."):
        return False, "torch 2.10 compiles some models to NaN on an A100"
    return True, "a GPU with short kernels waits for Python otherwise"


def _cpu_flags() -> set[str]:
    """Features of the CPU as Linux names them; empty elsewhere."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return set()
    for line in path.read_text().splitlines():
        if line.startswith(("flags", "Features")):
            return set(line.partition(":")[2].split())
    return set()
