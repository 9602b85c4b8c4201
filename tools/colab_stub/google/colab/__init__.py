"""A stand-in for `google.colab` that records each call and never waits for a front end.

It does what the real package does where nobody answers, at once instead of after its timeout.
Variables of the environment decide the rest:

- COLAB_STUB_LOG: the file to which each call is added as a line of JSON: call, arguments.
- COLAB_STUB_DRIVE: the folder that stands for Drive; without it `drive.mount` makes one at the
  mount point; empty means that no Drive can be mounted.
- COLAB_STUB_UPLOADS: the folder with the files that `files.upload` brings.
- Any other variable is the secret of its name for `userdata.get`.
"""

from . import auth, drive, files, output, runtime, userdata

__all__ = ["auth", "drive", "files", "output", "runtime", "userdata"]
