"""Turn what the caller can put right into one message and exit code 2."""

import click

from tools.errors import ToolsError


class Refused(click.ClickException):
    """A fault of the caller: told in one message, before any work is done."""

    exit_code = 2


def checked(function, *arguments, **options):
    """Call a function; its ToolsError becomes a message and exit code 2."""
    try:
        return function(*arguments, **options)
    except ToolsError as error:
        raise Refused(str(error)) from error
