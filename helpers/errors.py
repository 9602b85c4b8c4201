"""The tree of errors: each derives from `HelpersError` and from the builtin it refines.

HelpersError
    ConfigError(ValueError)        a setting that is unknown, out of range or contradicts another
    DataError(ValueError)          text, tokens or a data set that cannot be trained on
    TaskError(TypeError)           a model whose forward does not fit the task
    CheckpointError(OSError)       a checkpoint that is damaged, missing or belongs to another run
        CheckpointFormatError      one that another version of the suite wrote
    RunFolderError(OSError)        a run folder that cannot be made or written
    TrackingError(OSError)         a record that cannot be written, or a run that is not on record
        DatabaseUnavailableError   a database that is locked, full, gone or damaged for now
    DivergedError(ArithmeticError) a loss or gradient that is not finite
    MemoryLimitError(MemoryError)  a model of which not even one sample fits into memory
    SearchError(RuntimeError)      a search without a winner, or that was started as another one

Every message says what was got, what was wanted and what to do, in this order.
"""

from collections.abc import Sequence


class HelpersError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(HelpersError, ValueError):
    """Settings are unknown, out of range, or contradict each other; `faults` has each."""

    def __init__(self, message: str, faults: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.faults = list(faults) or [message]


class DataError(HelpersError, ValueError):
    """Data cannot be read, or there is too little of it for what was asked."""


class TaskError(HelpersError, TypeError):
    """The model's inputs or outputs do not fit the task."""


class CheckpointError(HelpersError, OSError):
    """A checkpoint is damaged, incomplete, or belongs to another run."""


class CheckpointFormatError(CheckpointError):
    """A checkpoint is sound, but was written by another version of the suite."""


class RunFolderError(HelpersError, OSError):
    """A run folder cannot be created or written."""


class TrackingError(HelpersError, OSError):
    """The database of runs cannot be used, or does not know a run."""


class DatabaseUnavailableError(TrackingError):
    """The database of runs cannot be used for now.

    `cause` says in a word why, and `state` is the message without what it means for the call.
    """

    def __init__(self, message: str, cause: str, state: str = "") -> None:
        super().__init__(message)
        self.cause, self.state = cause, state or message


class DivergedError(HelpersError, ArithmeticError):
    """The loss or the gradient is not finite any more."""


class MemoryLimitError(HelpersError, MemoryError):
    """Not even one sample at a time fits into memory."""


class SearchError(HelpersError, RuntimeError):
    """A search has no completed trial, or its folder belongs to another search."""
