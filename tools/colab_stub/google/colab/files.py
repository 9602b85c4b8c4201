"""Files to and from the reader's computer."""

import os
from pathlib import Path

from ._record import no_answer, record


def download(filename):
    """Record the file; nothing else happens, as in Colab without a front end.

    Raises: FileNotFoundError if it is not there.
    """
    record("files.download", filename=str(filename))
    if not os.path.exists(filename):
        raise FileNotFoundError(f"Cannot find file: {filename}")


def upload(target_dir=""):
    """Copy the files of COLAB_STUB_UPLOADS to the working folder, and return their content."""
    record("files.upload", target_dir=str(target_dir))
    source = os.environ.get("COLAB_STUB_UPLOADS")
    if not source:
        raise no_answer("files.upload()")
    content = {path.name: path.read_bytes() for path in sorted(Path(source).iterdir())}
    for name, data in content.items():
        Path(target_dir or ".", name).write_bytes(data)
    return content


def upload_file(filename):
    """Upload one file under a name of our choice."""
    record("files.upload_file", filename=str(filename))
    data = next(iter(upload().values()))
    Path(filename).write_bytes(data)
