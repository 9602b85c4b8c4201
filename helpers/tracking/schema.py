"""Tables of the database of runs, in types that SQLite and PostgreSQL share, and what fits them."""

from __future__ import annotations

import json
import math
import operator
from typing import Any, SupportsFloat

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)

from helpers.errors import TrackingError

SCHEMA_VERSION = 2
APPLICATION_ID = 0x54724273  # "TrBs" in the header of a SQLite file
KEY_LENGTH = 255  # characters; PostgreSQL cannot index a key of more than about 2700 bytes


class NanFloat(TypeDecorator):
    """A float of any value; NULL stands for NaN, because SQLite turns NaN into NULL."""

    impl = Double
    cache_ok = True

    def process_bind_param(self, value: float, dialect: Any) -> float | None:
        return None if math.isnan(value) else value

    def process_result_value(self, value: float | None, dialect: Any) -> float:
        return math.nan if value is None else value


class PlainJson(TypeDecorator):
    """JSON as text, because PostgreSQL's own type refuses NaN and results may hold it."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> str:
        return json.dumps(value)

    def process_result_value(self, value: str, dialect: Any) -> Any:
        return json.loads(value)


def _key(name: str, *constraints: Any) -> Column:
    return Column(name, String(KEY_LENGTH), *constraints, primary_key=True)


def _run() -> ForeignKey:
    return ForeignKey("runs.run_id")


metadata = MetaData()

version = Table(
    "trainbook_schema",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
)

# Times are UTC seconds and only shown; the order of runs and events is `number` and `id`,
# because the clock of a borrowed machine jumps.
runs = Table(
    "runs",
    metadata,
    _key("run_id"),
    Column("number", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("updated", Double, nullable=False),
    Column("finished", Double),
    Column("task", PlainJson, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("data_fingerprint", Text, nullable=False),
    Column("code_version", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("run_dir", Text, nullable=False),
    Column("config", PlainJson, nullable=False),
    Column("environment", PlainJson, nullable=False),
    Column("results", PlainJson, nullable=False),
    # whose the run is while it is running, see helpers.tracking.owner
    Column("host", Text),
    Column("pid", BigInteger),
    Column("boot_id", Text),
    Column("process_start", Text),
)

metrics = Table(
    "metrics",
    metadata,
    _key("run_id", _run()),
    _key("name"),
    Column("step", BigInteger, primary_key=True, autoincrement=False),
    Column("value", NanFloat),
    sqlite_with_rowid=False,
)

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run_id", String(KEY_LENGTH), _run(), nullable=False, index=True),
    Column("time", Double, nullable=False),
    Column("step", BigInteger),
    Column("kind", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("details", PlainJson, nullable=False),
    Column("key", String(32), index=True, unique=True),  # an event that is written again is one
)

artifacts = Table(
    "artifacts",
    metadata,
    _key("run_id", _run()),
    _key("name"),
    Column("kind", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    _key("run_id", _run()),
    Column("step", BigInteger, primary_key=True, autoincrement=False),
    Column("path", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("is_best", Boolean, nullable=False),
    Column("status", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("metrics", PlainJson, nullable=False),
)


def check_key(what: str, text: str) -> str:
    """Return a name that every database can index and give back unchanged."""
    if not isinstance(text, str) or not 1 <= len(text) <= KEY_LENGTH or printable(text) != text:
        shown = f"{text!r:.60}"
        raise TrackingError(
            f"The {what} is {shown}, but text of 1 to {KEY_LENGTH} characters is wanted, "
            "without NUL or half of a surrogate pair. Give a shorter or plainer one."
        )
    return text


def printable(text: str) -> str:
    r"""Return text for people: what no database holds (NUL, lone surrogates) is written as \x00."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", r"\x00")


def check_plain(what: str, value: Any) -> Any:
    """Return the same value, once it is known to be plain JSON types."""
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise TrackingError(
            f"{what} cannot be put on record ({error}), but plain JSON types are wanted. "
            "Turn tensors into numbers with .item() and paths into text."
        ) from error
    return value


def check_number(name: str, value: Any) -> float:
    """Return the value of a metric as a float; tensors and arrays of one element will do."""
    if not isinstance(value, SupportsFloat):
        raise TrackingError(
            f"The metric {name!r} is {value!r:.60}, but a number is wanted. Log text as an event."
        )
    return float(value)


def check_step(step: int) -> int:
    """Return a step as an int that fits 64 bits."""
    step = operator.index(step)
    if not 0 <= step < 2**63:
        raise TrackingError(f"step is {step}, but a whole number from 0 is wanted.")
    return step


def decoded(column: Column, value: Any) -> Any:
    """A value of a SQLite file as its column gives it back.

    Raises: ValueError or TypeError if it cannot be one of that column.
    """
    kind = column.type
    if value is None:
        if not column.nullable:
            raise ValueError(f"{column} is empty")
        return math.nan if isinstance(kind, NanFloat) else None
    if isinstance(kind, PlainJson):
        return json.loads(value)
    if isinstance(kind, String):
        wanted: Any = str
    else:
        wanted = int | float if isinstance(kind, Double | NanFloat) else int
    if not isinstance(value, wanted) or (wanted is str and "\ufffd" in value):
        raise ValueError(f"{column} is {value!r}")
    return bool(value) if column.name == "is_best" else value
