"""One frozen, flat configuration: every setting with its type, range, unit, help, group and role.

A role says what may happen to the setting when a run is continued:
`identity` cannot change, `schedule` changes the plan of the run, `runtime` is free.
"""

from __future__ import annotations

import difflib
import hashlib
import html
import inspect
import json
import re
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, TypeAdapter, ValidationError

from helpers.errors import ConfigError

Group = Literal[
    "data", "model", "training", "optimizer", "scheduler", "hardware", "checkpointing", "logging"
]
Role = Literal["identity", "schedule", "runtime"]
MAIN_SETTINGS = {
    "source", "vocab_size", "sequence_length", "d_model", "n_layers", "n_heads", "batch_size",
    "max_steps", "epochs", "seed", "optimizer", "learning_rate", "scheduler", "output_dir",
}  # fmt: skip
GROUPS: tuple[str, ...] = typing.get_args(Group)
_STRICT = ConfigDict(strict=True, allow_inf_nan=False)


def setting(
    default: Any,
    help: str,
    group: Group,
    *,
    role: Role = "identity",
    unit: str = "",
    only_if: Mapping[str, tuple] | None = None,
    **bounds: Any,
) -> Any:
    """Describe one setting; `only_if` names values of another setting under which it is read."""
    extra = {"group": group, "role": role, "unit": unit, "only_if": dict(only_if or {})}
    return Field(default, description=help, json_schema_extra=extra, **bounds)


class TrainingConfig(BaseModel):
    """Everything a run depends on besides its data, model and task.

    Raises: ConfigError with all faults at once; an unknown name comes with the nearest known one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    # data
    source: str = setting(
        "python-stdlib",
        "Text to learn: python-stdlib, or a .txt, .csv, .jsonl or .parquet file, or a folder.",
        "data",
        min_length=1,
    )
    text_column: str = setting(
        "", "Column of a table that holds the text; empty takes the only one, or text.", "data"
    )
    bad_rows: Literal["fail", "skip"] = setting(
        "fail",
        "fail refuses data with rows that cannot be trained on; skip leaves them out and counts.",
        "data",
    )
    val_fraction: float = setting(
        0.1, "Share of the text that is held out for validation.", "data", gt=0, le=0.5
    )
    tokenizer: Literal["bpe", "byte"] = setting(
        "bpe", "Byte-pair encoding trained on the training text, or plain bytes.", "data"
    )
    vocab_size: int = setting(
        2048,
        "Size of the vocabulary of the byte-pair encoding.",
        "data",
        unit="tokens",
        only_if={"tokenizer": ("bpe",)},
        ge=300,
        le=65_536,
    )
    sequence_length: int = setting(
        128, "Tokens that the model sees at once.", "data", unit="tokens", ge=2, le=131_072
    )
    num_workers: int = setting(
        0,
        "Threads that read batches ahead; 0 reads in the thread that trains.",
        "data",
        role="runtime",
        ge=0,
        le=64,
    )
    cache_dir: str = setting(
        "~/.cache/trainbook",
        "Folder for tokenized text, shared by all runs.",
        "data",
        role="runtime",
        min_length=1,
    )

    # model
    d_model: int = setting(128, "Width of the residual stream.", "model", ge=8, le=16_384)
    n_layers: int = setting(4, "Number of transformer blocks.", "model", ge=1, le=256)
    n_heads: int = setting(4, "Attention heads in each block; divides d_model.", "model", ge=1)
    mlp_ratio: int = setting(4, "Width of the MLP over d_model.", "model", ge=1, le=16)
    dropout: float = setting(0.0, "Dropout on each block's output.", "model", ge=0, lt=1)
    tie_embeddings: bool = setting(
        False, "Use the token embedding as the output head too.", "model"
    )

    # training
    batch_size: int = setting(
        16, "Global batch of one update.", "training", unit="sequences", ge=1, le=1_000_000
    )
    max_steps: int = setting(
        800,
        "Length of the run; 0 means that epochs or a budget decides.",
        "training",
        role="schedule",
        unit="optimizer steps",
        ge=0,
    )
    epochs: float = setting(
        0.0,
        "Passes over the training data; 0 means that max_steps or a budget decides.",
        "training",
        role="schedule",
        ge=0,
        le=100_000,
    )
    budget: str = setting(
        "",
        "Time for the run, as 45min or 1h30min: it cools down and ends before; empty sets none.",
        "training",
        role="schedule",
        pattern=r"^([0-9]{1,6}h)?([0-9]{1,6}min)?([0-9]{1,6}s)?$",
    )
    finish_by: str = setting(
        "",
        "Local time of day, as 21:30, by which the run cools down and ends; empty sets none.",
        "training",
        role="runtime",
        pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9])?$",
    )
    seed: int = setting(42, "Seed of weights, data order and dropout.", "training", ge=0, lt=2**32)
    eval_every: int = setting(
        100,
        "Validate every so many steps; 0 validates at the end only.",
        "training",
        role="runtime",
        unit="optimizer steps",
        ge=0,
    )
    eval_sequences: int = setting(
        256,
        "Sequences of a validation during training; 0 takes all. The last validation takes all.",
        "training",
        role="runtime",
        unit="sequences",
        ge=0,
    )
    early_stopping_patience: int = setting(
        0, "Stop after so many validations without a better loss; 0 never stops.", "training", ge=0
    )
    early_stopping_min_delta: float = setting(
        0.0,
        "Smallest fall of the validation loss that counts as better.",
        "training",
        unit="nats",
        ge=0,
    )

    # optimizer
    optimizer: Literal["muon", "adamw"] = setting(
        "muon",
        "muon updates hidden matrices by Muon and the rest by AdamW; adamw updates all by AdamW.",
        "optimizer",
    )
    learning_rate: float = setting(
        0.01, "Peak learning rate.", "optimizer", unit="per update", gt=0, le=1
    )
    embedding_lr_scale: float = setting(
        10.0,
        "Learning rate of embeddings over that of the rest.",
        "optimizer",
        only_if={"optimizer": ("muon",)},
        gt=0,
        le=100,
    )
    weight_decay: float = setting(
        0.1, "Decoupled decay of hidden matrices; the rest has none.", "optimizer", ge=0, le=10
    )
    beta1: float = setting(0.9, "AdamW's decay of the first moment.", "optimizer", ge=0, lt=1)
    beta2: float = setting(0.95, "AdamW's decay of the second moment.", "optimizer", ge=0, lt=1)
    epsilon: float = setting(
        1e-8, "AdamW's term against division by zero.", "optimizer", gt=0, le=1e-2
    )
    muon_momentum: float = setting(
        0.95,
        "Momentum of Muon.",
        "optimizer",
        only_if={"optimizer": ("muon",)},
        ge=0,
        lt=1,
    )
    max_grad_norm: float = setting(
        1.0, "Gradients are scaled down to this norm; 0 leaves them.", "optimizer", ge=0
    )
    ema_decay: float = setting(
        0.0,
        "Decay of an average of the weights that is validated and exported; 0 keeps none.",
        "optimizer",
        ge=0,
        lt=1,
    )
    on_nonfinite: Literal["stop", "skip", "rewind"] = setting(
        "rewind",
        "At a loss that is not finite: stop, skip the update, or rewind and skip the batches.",
        "optimizer",
        role="runtime",
    )
    spike_sigma: float = setting(
        10.0,
        "A gradient norm so many standard deviations above its recent mean is a spike; 0 ignores.",
        "optimizer",
        ge=0,
    )

    # scheduler
    scheduler: Literal["wsd", "cosine", "linear", "constant"] = setting(
        "wsd", "Shape of the learning rate over the run; wsd is warmup-stable-decay.", "scheduler"
    )
    warmup_fraction: float = setting(
        0.025,
        "First share of the run over which the learning rate rises to its peak.",
        "scheduler",
        role="schedule",
        ge=0,
        le=0.5,
    )
    decay_fraction: float = setting(
        0.6,
        "Last share of the run over which wsd lowers the learning rate.",
        "scheduler",
        role="schedule",
        only_if={"scheduler": ("wsd",)},
        gt=0,
        le=1,
    )
    min_lr_ratio: float = setting(
        0.02,
        "Learning rate at the end over its peak.",
        "scheduler",
        only_if={"scheduler": ("wsd", "cosine", "linear")},
        ge=0,
        le=1,
    )

    # hardware
    device: str = setting(
        "auto",
        "auto, cpu, cuda or cuda:N.",
        "hardware",
        role="runtime",
        pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = setting(
        "auto", "Number format of the forward pass; auto follows the device.", "hardware"
    )
    micro_batch_size: int = setting(
        0,
        "Sequences that go through the model at once; 0 takes the whole batch.",
        "hardware",
        role="runtime",
        unit="sequences",
        ge=0,
    )
    compile: Literal["auto", "on", "off"] = setting(
        "auto", "torch.compile; auto is on where it pays.", "hardware", role="runtime"
    )
    threads: int = setting(
        0, "CPU threads; 0 leaves torch's choice.", "hardware", role="runtime", ge=0, le=1024
    )
    deterministic: bool = setting(
        False,
        "Refuse operations whose result differs between runs on a GPU.",
        "hardware",
        role="runtime",
    )

    # checkpointing
    output_dir: str = setting(
        "runs",
        "Folder of all runs: on a local disk, not on Drive.",
        "checkpointing",
        role="runtime",
        min_length=1,
    )
    run_name: str = setting(
        "",
        "Folder of this run below output_dir; empty derives it from the settings.",
        "checkpointing",
        role="runtime",
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,99})?$",
    )
    resume: Literal["auto", "never", "must"] = setting(
        "auto",
        "auto continues a run that exists; never starts a new folder; must fails without one.",
        "checkpointing",
        role="runtime",
    )
    save_every: int = setting(
        200,
        "Write a checkpoint every so many steps; 0 goes by time and by the best validation.",
        "checkpointing",
        role="runtime",
        unit="optimizer steps",
        ge=0,
    )
    save_minutes: float = setting(
        10.0,
        "Write a checkpoint at the latest after so many minutes; 0 goes by steps alone.",
        "checkpointing",
        role="runtime",
        unit="minutes",
        ge=0,
    )
    mirror_dir: str = setting(
        "",
        "Second folder for checkpoints, as one on Drive; a new machine continues from it.",
        "checkpointing",
        role="runtime",
    )
    keep_checkpoints: int = setting(
        2,
        "Newest checkpoints that stay on disk; the best one stays too.",
        "checkpointing",
        role="runtime",
        ge=1,
    )

    # logging
    log_every: int = setting(
        10,
        "Record loss, learning rate and speed every so many steps.",
        "logging",
        role="runtime",
        unit="optimizer steps",
        ge=1,
    )
    panel: Literal["auto", "html", "lines", "off"] = setting(
        "auto",
        "Live progress: html in a notebook, lines in a terminal.",
        "logging",
        role="runtime",
    )
    database: str = setting(
        "auto",
        "Database of all runs: auto is experiments.db in output_dir, off none; or a file or URL.",
        "logging",
        role="runtime",
        min_length=1,
    )
    sample_prompt: str = setting(
        "def ", "Text that a sample continues at each validation.", "logging", role="runtime"
    )
    sample_tokens: int = setting(
        48,
        "Length of a sample at each validation; 0 draws none.",
        "logging",
        role="runtime",
        unit="tokens",
        ge=0,
        le=4096,
    )

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)
    ORIGINS_KEY: ClassVar[str] = "_origins"

    def __init__(self, **values: Any) -> None:
        given = set(values)
        values, derived = _derive(values)
        faults, wrong = [], set()
        try:
            super().__init__(**values)
        except ValidationError as error:
            for item in error.errors():
                faults.append(_explain(item, values))
                wrong.add(item["loc"][0] if item["loc"] else "")
        sound = {name: value for name, value in values.items() if name not in wrong}
        faults += _contradictions(sound, given - wrong, wrong)
        if faults:
            raise _refusal(faults)
        object.__setattr__(self, "_origins", {**dict.fromkeys(sorted(given), "user"), **derived})

    def __setattr__(self, name: str, value: Any) -> None:
        raise ConfigError(
            f"{name} = {value!r} was assigned, but a TrainingConfig does not change. "
            f"Use config.replace({name}={value!r})."
        )

    def origin(self, name: str) -> str:
        """Where a value came from: default, user, automatic, or the name of a preset."""
        check_name(name)
        return self._origins.get(name, "default")

    def group(self, group: Group) -> dict[str, Any]:
        """All settings of one group, by name."""
        return {name: getattr(self, name) for name in names_of(group)}

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain JSON types."""
        return self.model_dump()

    def replace(self, **changes: Any) -> TrainingConfig:
        """Return a new config with some settings changed."""
        return TrainingConfigBuilder.from_config(self)._with(changes).build()

    def diff(self, other: TrainingConfig) -> dict[str, tuple[Any, Any]]:
        """Settings that differ: `{name: (here, there)}`."""
        here, there = self.to_dict(), other.to_dict()
        return {name: (here[name], there[name]) for name in here if here[name] != there[name]}

    def database_url(self) -> str | None:
        """Where the database of runs is, or None if there is none."""
        if self.database == "auto":
            return str(Path(self.output_dir).expanduser() / "experiments.db")
        return None if self.database == "off" else self.database

    def fingerprint(self) -> str:
        """Twelve hex digits over all settings except runtime ones."""
        fixed = {n: v for n, v in self.to_dict().items() if role_of(n) != "runtime"}
        return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:12]

    def save(self, path: str | Path) -> Path:
        """Write the settings and where each came from as JSON."""
        path = Path(path)
        content = {**self.to_dict(), self.ORIGINS_KEY: self._origins}
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: str | Path) -> TrainingConfig:
        """Read what `save` wrote, or any JSON object of settings.

        Raises: ConfigError if the file is missing, is not JSON, or holds a wrong setting.
        """
        values = _read_object(Path(path))
        origins = values.pop(cls.ORIGINS_KEY, None)
        if not isinstance(origins, dict | None):
            raise ConfigError(
                f"{path} has {cls.ORIGINS_KEY} = {origins!r}, but names with origins are "
                "wanted. Leave it out, or write the file with config.save."
            )
        return cls.from_dict(values, origins)

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], origins: Mapping[str, str] | None = None
    ) -> TrainingConfig:
        """Rebuild a config from `to_dict`; without origins every value counts as the user's."""
        return TrainingConfigBuilder(values, origins).build()

    def _repr_html_(self) -> str:
        names = [name for group in GROUPS for name in names_of(group)]
        chosen = [n for n in names if self.origin(n) != "default" or n in MAIN_SETTINGS]
        rest = [name for name in names if name not in chosen]
        summary = f"<summary>{len(rest)} more settings, at their defaults</summary>"
        return f"{self._table(chosen)}<details>{summary}{self._table(rest)}</details>"

    def _table(self, names: list[str]) -> str:
        left = "<td style='text-align:left'>"
        rows = "".join(
            f"<tr>{left}{name}</td>{left}<b>{html.escape(repr(getattr(self, name)))}</b> "
            f"{unit_of(name)}</td>{left}{html.escape(self.origin(name))}</td>"
            f"{left}{html.escape(help_of(name))}</td></tr>"
            for name in names
        )
        titles = ("setting", "value", "from", "meaning")
        head = "".join(f"<th style='text-align:left'>{title}</th>" for title in titles)
        return f"<table><tr>{head}</tr>{rows}</table>" if names else ""


class TrainingConfigBuilder:
    """Collect settings group by group; every method returns a new builder.

    >>> TrainingConfigBuilder.from_preset("smoke").with_training(seed=7).build().seed
    7
    """

    def __init__(
        self, values: Mapping[str, Any] | None = None, origins: Mapping[str, str] | None = None
    ) -> None:
        self._values = dict(values or {})
        self._origins = dict.fromkeys(self._values, "user") if origins is None else dict(origins)

    @classmethod
    def from_config(cls, config: TrainingConfig) -> TrainingConfigBuilder:
        """Start from all settings of a config."""
        return cls(config.to_dict(), config._origins)

    @classmethod
    def from_preset(cls, name: str) -> TrainingConfigBuilder:
        """Start from a preset: smoke, quick, small or base.

        Raises: ConfigError for another name.
        """
        if name not in PRESETS:
            raise ConfigError(
                f"preset is {name!r}, but the presets are {', '.join(PRESETS)}."
                f"{_nearest(str(name), PRESETS)}"
            )
        return cls(PRESETS[name], dict.fromkeys(PRESETS[name], f"preset {name}"))

    def with_data(self, **settings: Any) -> TrainingConfigBuilder:
        """Set settings of the group data."""
        return self._with(settings, "data")

    def with_model(self, **settings: Any) -> TrainingConfigBuilder:
        """Set settings of the group model."""
        return self._with(settings, "model")

    def with_training(self, **settings: Any) -> TrainingConfigBuilder:
        """Set settings of the group training."""
        return self._with(settings, "training")

    def with_optimizer(self, **settings: Any) -> TrainingConfigBuilder:
        """Set settings of the group optimizer."""
        return self._with(settings, "optimizer")

    def with_scheduler(self, **settings: Any) -> TrainingConfigBuilder:
        """Set settings of the group scheduler."""
        return self._with(settings, "scheduler")

    def with_hardware(self, **settings: Any) -> TrainingConfigBuilder:
        """Set settings of the group hardware."""
        return self._with(settings, "hardware")

    def with_checkpointing(self, **settings: Any) -> TrainingConfigBuilder:
        """Set settings of the group checkpointing."""
        return self._with(settings, "checkpointing")

    def with_logging(self, **settings: Any) -> TrainingConfigBuilder:
        """Set settings of the group logging."""
        return self._with(settings, "logging")

    def with_settings(self, **settings: Any) -> TrainingConfigBuilder:
        """Set settings of any group, as from a form.

        A value of None, or the one that is set already, leaves a setting and its origin alone.
        """
        fields = TrainingConfig.model_fields
        given = {n: v for n, v in settings.items() if v is not None or n not in fields}
        builder = self._with(given)
        for name, value in given.items():
            known = self._values.get(name, fields[name].default)
            if isinstance(value, bool) == isinstance(known, bool) and value == known:
                builder._origins[name] = self._origins.get(name, "default")
        return builder

    def build(self) -> TrainingConfig:
        """Check everything and return the config.

        Raises: ConfigError, naming all faults at once.
        """
        config = TrainingConfig(**_without_unread(self._values, self._origins))
        known = TrainingConfig.model_fields.keys() & (self._values.keys() | self._origins.keys())
        kept = {name: self._origins.get(name, "default") for name in sorted(known)}
        object.__setattr__(config, "_origins", {**config._origins, **kept})
        return config

    def _with(self, settings: Mapping[str, Any], group: str = "") -> TrainingConfigBuilder:
        faults = []
        for name in settings:
            try:
                check_name(name)
            except ConfigError as error:
                faults.append(str(error))
                continue
            if group and group_of(name) != group:
                faults.append(
                    f"{name} was given to with_{group}, but it belongs to the group "
                    f"{group_of(name)}. Use with_{group_of(name)}({name}=...)."
                )
        if faults:
            known = {n: v for n, v in settings.items() if n in TrainingConfig.model_fields}
            raise _refusal(faults + self._faults_with(known))
        values = {**self._values, **settings}
        origins = {**self._origins, **dict.fromkeys(settings, "user")}
        for chosen, other, nothing in (("epochs", "max_steps", 0), ("max_steps", "epochs", 0.0)):
            if settings.get(chosen) and origins.get(other) != "user":
                values[other], origins[other] = nothing, "automatic"
        if settings.get("budget") or settings.get("finish_by"):
            for name, nothing in (("epochs", 0.0), ("max_steps", 0)):
                if origins.get(name) != "user":
                    values[name], origins[name] = nothing, "automatic"
        return TrainingConfigBuilder(values, origins)

    def _faults_with(self, settings: Mapping[str, Any]) -> list[str]:
        """What would be wrong with these settings too."""
        try:
            self._with(settings).build()
        except ConfigError as error:
            return error.faults
        return []


PRESETS: dict[str, dict[str, Any]] = {
    "smoke": {
        "vocab_size": 512,
        "sequence_length": 64,
        "d_model": 64,
        "n_layers": 2,
        "n_heads": 2,
        "batch_size": 8,
        "max_steps": 20,
        "eval_every": 10,
        "eval_sequences": 32,
        "save_every": 10,
        "log_every": 2,
        "sample_tokens": 16,
    },
    "quick": {},
    "small": {
        "vocab_size": 8192,
        "sequence_length": 256,
        "d_model": 384,
        "n_layers": 6,
        "n_heads": 6,
        "batch_size": 64,
        "max_steps": 2000,
        "learning_rate": 0.005,
    },
    "base": {
        "vocab_size": 16_384,
        "sequence_length": 1024,
        "d_model": 768,
        "n_layers": 12,
        "n_heads": 6,
        "batch_size": 64,
        "max_steps": 5000,
        "learning_rate": 0.003,
        "save_every": 500,
        "eval_every": 250,
    },
}


def check_name(name: str) -> None:
    """Raise ConfigError, with the nearest known name, unless `name` is a setting."""
    if name not in TrainingConfig.model_fields:
        raise ConfigError(_unknown(name))


def check_value(name: str, value: Any) -> None:
    """Raise ConfigError unless a setting may have this value, whatever the others are."""
    check_name(name)
    field = TrainingConfig.model_fields[name]
    kind = Annotated[field.annotation, field]
    try:
        TypeAdapter(kind, config=_STRICT).validate_python(value)
    except ValidationError as error:
        raise ConfigError(_explain({**error.errors()[0], "loc": (name,)}, {name: value})) from None


def names_of(group: str) -> tuple[str, ...]:
    """Names of the settings of a group, in the order of the class."""
    return tuple(name for name in TrainingConfig.model_fields if group_of(name) == group)


def group_of(name: str) -> str:
    """The group that a setting belongs to."""
    return _extra(name)["group"]


def role_of(name: str) -> str:
    """What may happen to a setting on resume: identity, schedule or runtime."""
    return _extra(name)["role"]


def unit_of(name: str) -> str:
    """The unit of a setting, or an empty string for a plain number or a word."""
    return _extra(name)["unit"]


def help_of(name: str) -> str:
    """The sentence that says what a setting does."""
    _extra(name)
    return TrainingConfig.model_fields[name].description or ""


def parse_setting(assignment: str) -> tuple[str, Any]:
    """Read `NAME=VALUE` as typed on a command line; the setting's type decides.

    >>> parse_setting("learning_rate=3e-4")
    ('learning_rate', 0.0003)

    Raises: ConfigError if the name is unknown or the text is not of its type.
    """
    name, equals, text = assignment.partition("=")
    if not equals:
        raise ConfigError(f"{assignment!r} was given, but NAME=VALUE is wanted.")
    check_name(name)
    kind = TrainingConfig.model_fields[name].annotation
    if kind is str or typing.get_origin(kind) is Literal:
        return name, text
    if kind is bool and text not in ("True", "False", "true", "false"):
        raise ConfigError(f"{name} is {text!r}, but True or False is wanted.")
    try:
        return name, TypeAdapter(kind).validate_python(text)
    except ValidationError:
        raise ConfigError(
            f"{name} is {text!r}, but {_kind(kind)}{_range(name)} is wanted."
        ) from None


def parse_settings(assignments: Iterable[str]) -> dict[str, Any]:
    """Read several `NAME=VALUE`.

    Raises: ConfigError, naming all faults at once.
    """
    settings, faults = {}, []
    for assignment in assignments:
        try:
            name, value = parse_setting(assignment)
            settings[name] = value
        except ConfigError as error:
            faults.append(str(error))
    if faults:
        raise _refusal(faults)
    return settings


def _extra(name: str) -> dict[str, Any]:
    check_name(name)
    return TrainingConfig.model_fields[name].json_schema_extra  # type: ignore[return-value]


def _derive(values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Fill in what other settings decide, and say so."""
    values, derived = dict(values), {}
    if values.get("tokenizer") == "byte" and "vocab_size" not in values:
        derived["vocab_size"] = "default, not read"
    if values.get("epochs") and "max_steps" not in values:
        values["max_steps"] = 0
        derived["max_steps"] = "automatic"
    if (values.get("budget") or values.get("finish_by")) and "max_steps" not in values:
        values["max_steps"] = 0
        derived["max_steps"] = "automatic"
    return values, derived


def _without_unread(values: Mapping[str, Any], origins: Mapping[str, str]) -> dict[str, Any]:
    """Leave out what a preset set and what, after the user's changes, nothing reads."""
    fields = TrainingConfig.model_fields

    def is_read(name: str) -> bool:
        return all(
            values.get(other, fields[other].default) in allowed
            for other, allowed in _extra(name)["only_if"].items()
        )

    return {
        name: value
        for name, value in values.items()
        if name not in fields or origins.get(name) == "user" or is_read(name)
    }


def _contradictions(values: Mapping[str, Any], given: set[str], wrong: set) -> Iterator[str]:
    """Faults that need more than one setting to be seen; settings that are wrong alone stay out."""
    fields = TrainingConfig.model_fields
    known = {n: values.get(n, f.default) for n, f in fields.items() if n not in wrong}
    for name in sorted(n for n in given & known.keys() if known[n] != fields[n].default):
        for other, allowed in _extra(name)["only_if"].items():
            if other in known and known[other] not in allowed:
                yield (
                    f"{name} was set to {known[name]!r}, but it is read only with {other} = "
                    f"{' or '.join(map(repr, allowed))}, and {other} is {known[other]!r}. "
                    f"Leave {name} out, or change {other}."
                )
    yield from _faults_of_texts(known)
    for rule in (_length, _time, _heads, _phases, _parts_of_a_batch, _early_stopping, _database):
        names = inspect.signature(rule).parameters
        if known.keys() >= names.keys():
            yield from filter(None, [rule(**{name: known[name] for name in names})])


# Each rule takes the settings it compares by name, and returns a fault or nothing.


def _length(max_steps: int, epochs: float, budget: str, finish_by: str) -> str:
    if max_steps and epochs:
        return (
            f"max_steps is {max_steps} and epochs is {epochs}, but one of them decides the length "
            "of the run. Set the other to 0."
        )
    if not (max_steps or epochs or budget or finish_by):
        return (
            "max_steps and epochs are both 0, but one must give the length. Set one of them, or a "
            "budget."
        )
    return ""


def _time(budget: str, finish_by: str) -> str:
    if budget and finish_by:
        return (
            f"budget is {budget!r} and finish_by is {finish_by!r}, but one of them decides the "
            "end. Empty the other."
        )
    if budget and not any(character in "123456789" for character in budget):
        return f"budget is {budget!r}, but some time is wanted. Set it as in 45min, or empty it."
    return ""


def _database(database: str) -> str:
    if database in ("auto", "off") or not re.fullmatch(r"\w+", database):
        return ""
    return (
        f"database is {database!r}, but auto, off, a file like runs.db or a URL is wanted. Write "
        f"./{database} if you mean a file of this name."
    )


def _heads(d_model: int, n_heads: int) -> str:
    if d_model % n_heads == 0 and d_model // n_heads % 2 == 0:
        return ""
    cure = f"Try n_heads = {_heads_for(d_model)}." if d_model % 2 == 0 else "Make d_model even."
    return (
        f"d_model is {d_model} and n_heads is {n_heads}, but every head needs an even, whole "
        f"width. {cure}"
    )


def _phases(scheduler: str, warmup_fraction: float, decay_fraction: float) -> str:
    if scheduler != "wsd" or warmup_fraction + decay_fraction <= 1:
        return ""
    return (
        f"warmup_fraction is {warmup_fraction} and decay_fraction is {decay_fraction}, but "
        "together they are at most 1. Lower one of them."
    )


def _parts_of_a_batch(micro_batch_size: int, batch_size: int) -> str:
    if micro_batch_size <= batch_size:
        return ""
    return (
        f"micro_batch_size is {micro_batch_size}, but it is a part of batch_size = {batch_size}. "
        "Lower micro_batch_size, or set it to 0."
    )


def _early_stopping(
    early_stopping_patience: int, early_stopping_min_delta: float, eval_every: int
) -> str:
    if early_stopping_patience and not eval_every:
        return (
            f"early_stopping_patience is {early_stopping_patience}, but eval_every is 0 and "
            "nothing is validated during the run. Set eval_every."
        )
    if early_stopping_min_delta and not early_stopping_patience:
        return (
            f"early_stopping_min_delta is {early_stopping_min_delta}, but early_stopping_patience "
            "is 0 and nothing stops early. Set early_stopping_patience."
        )
    return ""


def _faults_of_texts(known: Mapping[str, Any]) -> Iterator[str]:
    """Texts and paths that something later would stumble over."""
    for name in ("source", "cache_dir", "output_dir", "mirror_dir", "sample_prompt", "database"):
        text = known.get(name, "")
        if "\0" in text or text.encode("utf-8", "replace").decode("utf-8") != text:
            yield f"{name} is {text!r}, which holds a character that no text has. Remove it."
        elif text != text.strip() and name not in ("source", "sample_prompt"):
            yield f"{name} is {text!r}, which begins or ends with a blank. Remove it."
        elif name in ("cache_dir", "output_dir", "mirror_dir"):
            try:
                parts = Path(text).expanduser().parts
            except RuntimeError:
                yield f"{name} is {text!r}, but there is no such user. Write the path out."
                continue
            if any(len(part.encode()) > 255 for part in parts):
                yield f"{name} has a name longer than 255 bytes, which no disk has. Shorten it."
    run_name = known.get("run_name", "")
    if run_name == "notebooks" or run_name.startswith("experiments.db"):
        yield f"run_name is {run_name!r}, which is taken in output_dir. Choose another."
    if urlsplit(known.get("database", "")).password:
        yield (
            "database has a password in its URL, which would be written into every record of the "
            "run. Leave it out, and set PGPASSWORD or ~/.pgpass."
        )


def _heads_for(width: int) -> int:
    """The largest number of heads up to 64 wide that fits."""
    fitting = [h for h in range(1, width + 1) if width % h == 0 and width // h % 2 == 0]
    return next((h for h in fitting if width // h <= 64), 1)


def _explain(item: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """Turn one of pydantic's errors into got, wanted, do."""
    name = str(item["loc"][0]) if item["loc"] else ""
    if item["type"] == "extra_forbidden":
        return _unknown(name)
    field = TrainingConfig.model_fields[name]
    if item["type"] == "string_pattern_mismatch":
        wanted = f"it must match {item['ctx']['pattern']}"
    else:
        wanted = f"{_kind(field.annotation)}{_range(name)} is wanted"
    return f"{name} is {values.get(name)!r}, but {wanted}. {field.description}"


def _unknown(name: str) -> str:
    known = list(TrainingConfig.model_fields)
    return f"{name} is not a setting.{_nearest(name, known)} See TrainingConfig for all of them."


def _nearest(name: str, known: Iterable[str]) -> str:
    """A sentence with the nearest known name, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]}?" if near else ""


def _kind(annotation: Any) -> str:
    if typing.get_origin(annotation) is Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(annotation)))
    words = {int: "a whole number", float: "a finite number", bool: "True or False", str: "text"}
    return words[annotation]


def _range(name: str) -> str:
    """The bounds of a number in words, with its unit."""
    words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    bounds = [
        f"{word} {getattr(limit, key)}"
        for limit in TrainingConfig.model_fields[name].metadata
        for key, word in words.items()
        if hasattr(limit, key)
    ]
    unit = f" ({unit_of(name)})" if bounds and unit_of(name) else ""
    return f" {' and '.join(bounds)}{unit}" if bounds else ""


def _refusal(faults: list[str]) -> ConfigError:
    """All faults as one error."""
    if len(faults) == 1:
        return ConfigError(faults[0])
    lines = "\n".join(f"- {fault}" for fault in faults)
    return ConfigError(f"{len(faults)} settings are wrong:\n{lines}", faults)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path} was given as a configuration, but it cannot be read ({error.strerror}). "
            "Give the path of a JSON file."
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"{path} was given as a configuration, but it is not JSON ({error}). "
            "Write it with config.save."
        ) from error
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path} holds a JSON {type(values).__name__}, but an object of settings is wanted."
        )
    return values
