"""Secrets: variables of the environment. Their values are not recorded."""

import os

from ._record import record
from .errors import Error


class SecretNotFoundError(Error):
    """The secret is not there."""

    def __init__(self, key):
        super().__init__(f"Secret {key} does not exist.")


class NotebookAccessError(Error):
    """The notebook may not read the secret."""

    def __init__(self, key):
        super().__init__(f"Notebook does not have access to secret {key}")


class TimeoutException(Error):
    """No front end gave the secret in time."""

    def __init__(self, key):
        super().__init__(f"Requesting secret {key} timed out. Secrets need the Colab UI.")


def get(key):
    """The variable of this name; without one, what happens where no front end answers.

    Raises: TimeoutException if it is not set; SecretNotFoundError if it is empty.
    """
    record("userdata.get", key=key)
    if key not in os.environ:
        raise TimeoutException(key)
    if not os.environ[key]:
        raise SecretNotFoundError(key)
    return os.environ[key]
