"""The tree of errors: what a caller can put right before a kernel starts.

ToolsError
    SettingsError(ValueError)    `[tool.notebooks]` of pyproject.toml
    NotebookError(ValueError)    a file that is missing or is not a notebook that can be run
    ParameterError(ValueError)   a parameter of a notebook, or its cell of parameters
    MigrationError(ValueError)   a migration that cannot be trusted, or that is not there
    JournalError(ValueError)     a rollback of what is not there, or has changed since

Every message says what was got, what was wanted and what to do, in this order.
"""


class ToolsError(Exception):
    """Base of every error that the tools raise on purpose."""


class SettingsError(ToolsError, ValueError):
    """`[tool.notebooks]` is incomplete or wrong."""


class NotebookError(ToolsError, ValueError):
    """A file is missing, or is not a Python notebook."""


class ParameterError(ToolsError, ValueError):
    """A parameter is unknown or has a wrong value, or the cell of parameters is unsound."""


class MigrationError(ToolsError, ValueError):
    """A migration is unknown, or its outcome does not hold what was promised."""


class JournalError(ToolsError, ValueError):
    """An entry of the journal is missing, or a file has changed since it was written."""
