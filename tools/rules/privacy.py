"""Rules on privacy: credentials, names of persons, and paths that tell them."""

import re
from collections.abc import Iterator
from typing import Any

from tools.analysis.credentials import Credential, find_credentials
from tools.document.cell import Cell
from tools.document.json_strings import all_text
from tools.rules import Problem, Severity, Subject, fixes, rule

HOME = re.compile(
    r"(?<![\w.~$})\]-])(?:/home/(?P<linux>[\w.-]+)/|/Users/(?P<mac>[\w.-]+)"
    r"|[A-Za-z]:[\\/]{1,4}Users[\\/]{1,4}(?P<windows>[^\\/:*?\"'<>|\s]+))"
)
HOME_MARKS = ("/home/", "/Users/", "\\Users\\", ":/Users/")
# Accounts of images and services, and words that stand for a name: no person.
NOBODY = frozenset(
    {"jovyan", "ubuntu", "runner", "root", "colab", "codespace", "vscode", "ec2-user", "debian"}
    | {"sagemaker-user", "kaggle", "public", "shared", "default", "app", "admin", "me"}
    | {"user", "username", "you", "yourname", "your_name", "your-name", "name"}
)
ABSOLUTE = re.compile(r"/|~|\\\\|[A-Za-z]:[\\/]")
EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,4}[a-z]{2,24}\b")
NO_EMAIL = re.compile(r"noreply|example\.|gserviceaccount|\.(?:png|jpe?g|svg|gif)$", re.IGNORECASE)
SECRET_CURE = "Withdraw it where it was made, then remove it; read it from the environment instead."
"""The order matters: what was once published is known."""


@rule("PV501")
def secrets(subject: Subject) -> Iterator[Problem]:
    """No key, token or password stands in sources, outputs, metadata or embedded resources."""
    for cell in subject.notebook.cells:
        for secret in find_credentials(cell.source):
            yield _secret_problem(secret, "the source", cell.index, secret.line)
        for place, text in _hidden_texts(cell):
            for secret in find_credentials(text):
                yield _secret_problem(secret, place, cell.index)
    for secret in find_credentials(all_text(subject.notebook.content.get("metadata"))):
        yield _secret_problem(secret, "the metadata of the notebook")


@fixes("PV501")
def drop_secret_outputs(subject: Subject) -> None:
    """Drop outputs and embedded resources that hold a secret; sources are the author's."""
    for cell in subject.notebook.cells:
        outputs = cell.node.get("outputs")
        if isinstance(outputs, list):
            outputs[:] = [output for output in outputs if not _holds_secret(output)]
        resources = _resources(cell)
        for url in [url for url in resources if _holds_secret({url: resources[url]})]:
            del resources[url]


@rule("PV502")
def persons(subject: Subject) -> Iterator[Problem]:
    """No user, e-mail address or home folder of a person stands in the notebook."""
    for cell in subject.notebook.cells:
        yield from _user_problems(cell)
        yield from _home_problems(cell.source, "The source", cell.index, "warning")
        for place, text in _hidden_texts(cell):
            yield from _home_problems(text, place.capitalize(), cell.index)
        text = all_text(cell.node.get("metadata"), skip=("executionInfo", "papermill"))
        yield from _email_problems(text, cell.index)
    yield from _notebook_problems(subject.notebook.content.get("metadata"))


@fixes("PV502")
def drop_personal_metadata(subject: Subject) -> None:
    """Drop the records of who ran the notebook and where."""
    for cell in subject.notebook.cells:
        if any(_user_problems(cell)):
            del cell.metadata["executionInfo"]
    metadata = subject.notebook.content.get("metadata")
    if isinstance(metadata, dict) and _has_absolute_path(metadata.get("papermill")):
        del metadata["papermill"]


def _secret_problem(
    secret: Credential, place: str, cell: int | None = None, line: int | None = None
) -> Problem:
    return Problem(f"{place.capitalize()} holds what looks like {secret}.", SECRET_CURE, cell, line)


def _hidden_texts(cell: Cell) -> Iterator[tuple[str, str]]:
    """Outputs, attachments and metadata of a cell as text, each with what to call it."""
    outputs = cell.node.get("outputs")
    for output in outputs if isinstance(outputs, list) else ():
        yield "an output", all_text(output)
    yield "an attachment", all_text(cell.node.get("attachments"))
    yield "the metadata", all_text(cell.node.get("metadata"), skip=("executionInfo", "papermill"))


def _holds_secret(value: Any) -> bool:
    return any(find_credentials(all_text(value)))


def _resources(cell: Cell) -> dict[str, Any]:
    """The HTTP replies that Colab stored with a cell, by URL."""
    value: Any = cell.node
    for key in ("metadata", "colab", "resources"):
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _user_problems(cell: Cell) -> Iterator[Problem]:
    """Who ran a cell, as Colab notes it."""
    value: Any = cell.node
    for key in ("metadata", "executionInfo", "user"):
        value = value.get(key) if isinstance(value, dict) else None
    if isinstance(value, dict) and any(value.values()):
        known = ", ".join(key for key in value if value[key])
        message = f"The metadata say who ran the cell ({known})."
        yield Problem(message, "Drop `executionInfo`.", cell.index)


def _home_problems(
    text: str, place: str, cell: int | None, severity: Severity | None = None
) -> Iterator[Problem]:
    """Home folders of persons, each name once."""
    if not any(mark in text for mark in HOME_MARKS):
        return
    seen = set()
    for match in HOME.finditer(text):
        name = match["linux"] or match["mac"] or match["windows"]
        if name.lower() not in NOBODY and name not in seen:
            seen.add(name)
            line = text.count("\n", 0, match.start()) + 1 if severity else None
            message = f"{place} names the home folder of {name!r}."
            yield Problem(message, "Use a relative path.", cell, line, severity)


def _email_problems(text: str, cell: int | None = None) -> Iterator[Problem]:
    for address in dict.fromkeys(EMAIL.findall(text) if "@" in text else ()):
        if not NO_EMAIL.search(address):
            shown = f"{address[:2]}...@{address.rpartition('@')[2]}"
            yield Problem(f"The metadata hold the e-mail address {shown}.", "Drop it.", cell)


def _notebook_problems(metadata: Any) -> Iterator[Problem]:
    """What the metadata of the notebook tell; its `authors` are named on purpose."""
    if isinstance(metadata, dict) and _has_absolute_path(metadata.get("papermill")):
        message = "The metadata of papermill hold absolute paths of the machine that ran it."
        yield Problem(message, "Drop `papermill` from the metadata of the notebook.")
    text = all_text(metadata, skip=("papermill", "authors"))
    yield from _home_problems(text, "The metadata of the notebook", None)
    yield from _email_problems(text)


def _has_absolute_path(papermill: Any) -> bool:
    """Whether papermill's record of a run names a folder of the machine."""
    if not isinstance(papermill, dict):
        return False
    paths = [papermill.get("input_path"), papermill.get("output_path")]
    return any(isinstance(path, str) and ABSOLUTE.match(path) for path in paths) or any(
        True for _ in _home_problems(all_text(papermill), "", None)
    )
