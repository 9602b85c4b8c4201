"""The errors that notebooks catch."""


class Error(Exception):
    """Base of the errors of `google.colab`."""


class RuntimeManagementError(Error):
    """The runtime could not be managed."""
