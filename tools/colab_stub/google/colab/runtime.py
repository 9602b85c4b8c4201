"""The machine that Colab lends."""

from ._record import record
from .errors import RuntimeManagementError

__all__ = ["RuntimeManagementError", "unassign"]


def unassign():
    """Give the machine back.

    Raises: RuntimeManagementError, since this one cannot be given back.
    """
    record("runtime.unassign")
    raise RuntimeManagementError("No runtime is assigned that could be given up.")
