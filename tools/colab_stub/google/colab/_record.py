"""Write down each call, so that a test can read what a notebook asked of Colab."""

import json
import os


def record(call, **arguments):
    """Add a line of JSON to the file that COLAB_STUB_LOG names, if it names one."""
    path = os.environ.get("COLAB_STUB_LOG")
    if path:
        line = json.dumps({"call": call, "arguments": arguments}, default=repr)
        with open(path, "a", encoding="utf-8") as log:
            log.write(line + "\n")


def no_answer(what):
    """The error of a request that no front end answers."""
    return TimeoutError(f"{what} waits for a front end, and there is none. Ask for it only in one.")
