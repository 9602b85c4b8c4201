"""Authentication: it works where the environment holds credentials."""

import os

from ._record import no_answer, record


def authenticate_user(clear_output=True, project_id=None):
    """Pass where GOOGLE_APPLICATION_CREDENTIALS is set; else nobody is there to allow it."""
    record("auth.authenticate_user", clear_output=clear_output, project_id=project_id)
    if not os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
        raise no_answer("auth.authenticate_user()")
