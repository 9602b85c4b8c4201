"""Run all: nothing waits for a person, ends the kernel, or goes on in the background."""

import ast
from collections.abc import Iterator

from tools.analysis.reach import Guards, Reach, Site, reach_of
from tools.analysis.scopes import Names, dotted_path, last_name, shown
from tools.analysis.shell_calls import shell_commands, text_of
from tools.rules import Problem, Subject, rule

WAITS = {
    "input": "input() waits for a person",
    "getpass.getpass": "getpass() waits for a person",
    "google.colab.files.upload": "files.upload() waits for a person to choose a file",
    "google.colab.auth.authenticate_user": "authenticate_user() waits for a person",
    "huggingface_hub.notebook_login": "notebook_login() waits for a person",
    "huggingface_hub.interpreter_login": "interpreter_login() waits for a person",
    "jupyter_ui_poll.ui_events": "ui_events() waits for the front end",
    "jupyter_ui_poll.with_ui_events": "with_ui_events() waits for the front end",
    "jupyter_ui_poll.run_ui_poll_loop": "run_ui_poll_loop() waits for the front end",
    "breakpoint": "breakpoint() waits for a person",
    "pdb.set_trace": "set_trace() waits for a person",
    "IPython.core.debugger.set_trace": "set_trace() waits for a person",
}
LOGINS = {"huggingface_hub.login": "token", "wandb.login": "key"}
KEYS = {"WANDB_API_KEY", "WANDB_MODE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"}
MOUNT = "google.colab.drive.mount"
EVAL_JS = "google.colab.output.eval_js"
USERDATA = "google.colab.userdata.get"
EXITS = {"sys.exit", "exit", "quit", "os._exit", "os.abort"}
IDLE = {"sleep", "do_one_iteration", "poll", "clear_output", "print"}


@rule("EX401")
def background_commands(subject: Subject) -> Iterator[Problem]:
    """No shell line goes on in the background."""
    for command in shell_commands(subject.program):
        if command.is_background and command.is_shell_line:
            yield Problem(
                f"`{' '.join(command.words)} &` runs in Colab only; elsewhere IPython raises "
                "OSError, and no cell knows when it ends.",
                "Start it with subprocess.Popen, keep the process, and end it in a later cell.",
                command.cell,
                command.line,
            )


@rule("EX403")
def blocking(subject: Subject) -> Iterator[Problem]:
    """Nothing waits for a person or a front end unless a test says that one is there."""
    reach = reach_of(subject.program)
    for site in reach.sites:
        message = "" if site.function in LOGINS and _sets_key(reach) else _wait_of(site)
        guards = Guards(reach, paths=site.function == MOUNT)
        if message and reach.is_reached(site.node, guards):
            yield Problem(
                f"{message}, so Run all and papermill stop here.",
                _cure(site),
                site.code.index,
                site.node.lineno,
            )
    yield from _waiting_loops(reach)
    yield from _debuggers(subject)


def _wait_of(site: Site) -> str:
    """What a call waits for; empty if it does not wait."""
    words = {word.arg for word in site.node.keywords}
    if site.function == EVAL_JS:
        waits = "timeout_sec" not in words and None not in words and len(site.node.args) < 3
        return "eval_js() without timeout_sec waits for the front end forever" if waits else ""
    if site.function == MOUNT:
        return "drive.mount() asks for permission first, for up to 120 s, even if it is mounted"
    if site.function in LOGINS:
        has_key = LOGINS[site.function] in words or None in words or site.node.args
        return "" if has_key else f"{last_name(site.node)}() without a key waits for a person"
    return WAITS.get(site.function, "")


def _sets_key(reach: Reach) -> bool:
    """Whether the notebook puts a key or an offline mode into the environment."""
    stores = (
        text_of(node.slice, reach.names)
        for code in reach.cells
        for node in ast.walk(code.tree)
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store)
    )
    return any(text in KEYS for text in stores)


def _cure(site: Site) -> str:
    if site.function == EVAL_JS:
        return "Give timeout_sec, and go on without an answer."
    if site.function == MOUNT:
        return 'Mount only if "COLAB_RELEASE_TAG" is in os.environ and the folder is not there.'
    if site.function in LOGINS or site.function.startswith("getpass"):
        return "Read the key from the environment first, and go on without it."
    return "Take the value from the parameters cell, or ask only if the session is interactive."


def _waiting_loops(reach: Reach) -> Iterator[Problem]:
    """`while button.value is None: sleep`: the value cannot change while the cell is busy."""
    for code in reach.cells:
        for node in ast.walk(code.tree):
            is_loop = isinstance(node, ast.While) and all(map(_is_idle, node.body))
            waits = is_loop and _looks_at_widget(node, reach.names)
            if waits and reach.is_reached(node, Guards(reach)):
                yield Problem(
                    "This loop waits for a widget, whose value cannot change while the cell is "
                    "busy.",
                    "Take the value from the parameters cell.",
                    code.index,
                    node.lineno,
                )


def _is_idle(statement: ast.stmt) -> bool:
    """Whether a statement of a loop only passes the time or looks whether to go on."""
    if isinstance(statement, ast.If):
        return all(isinstance(inner, ast.Break) for inner in statement.body)
    if isinstance(statement, ast.Expr):
        value = statement.value
        value = value.value if isinstance(value, ast.Await) else value
        return isinstance(value, ast.Constant) or (
            isinstance(value, ast.Call) and last_name(value) in IDLE
        )
    return isinstance(statement, ast.Pass | ast.Continue)


def _looks_at_widget(loop: ast.While, names: Names) -> bool:
    tests = [loop.test, *(s.test for s in loop.body if isinstance(s, ast.If))]
    for node in (node for test in tests for node in ast.walk(test)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            value = names.value(node.value.id)
            if isinstance(value, ast.Call) and names.dotted(value.func).startswith("ipywidgets."):
                return True
    return False


def _debuggers(subject: Subject) -> Iterator[Problem]:
    for code in subject.program.cells:
        for magic in code.magics:
            if magic.name == "debug" and magic.kind in ("line", "cell"):
                yield Problem(
                    "%debug waits for a person, so Run all and papermill stop here.",
                    "Delete the line.",
                    code.index,
                    magic.line,
                )


@rule("EX404", "warning")
def secrets(subject: Subject) -> Iterator[Problem]:
    """A secret is looked up in the environment before Colab is asked for it."""
    reach = reach_of(subject.program)
    guards = Guards(reach, environment_only=True)
    for site in reach.sites:
        if site.function == USERDATA and reach.is_reached(site.node, guards):
            yield Problem(
                "userdata.get() works only in Colab's page; elsewhere it raises, after 10 s.",
                "Look into os.environ first: os.environ.get(name) or userdata.get(name).",
                site.code.index,
                site.node.lineno,
            )


@rule("EX405")
def databases_on_drive(subject: Subject) -> Iterator[Problem]:
    """No SQLite database is opened on Google Drive."""
    reach = reach_of(subject.program)
    mounts = {"/content/drive", "/content/gdrive"}
    for site in reach.sites:
        if site.function == MOUNT and site.node.args:
            mounts.add(text_of(site.node.args[0], reach.names).rstrip("/"))
    found = {
        (site.code.index, site.node.lineno)
        for site in reach.sites
        if last_name(site.node) not in ("print", "info", "Markdown")
        and any(_is_on(path, mounts) for path in _databases(site, reach.names))
    }
    for cell, line in sorted(found):
        yield Problem(
            "This opens a SQLite database on Google Drive, whose file locks do not work: "
            "disk I/O errors and lost rows.",
            "Keep the database on /content, and copy a backup of it to Drive.",
            cell,
            line,
        )


def _databases(site: Site, names: Names) -> Iterator[str]:
    """The paths of SQLite databases that a call is given."""
    values = [*site.node.args, *(word.value for word in site.node.keywords)]
    is_connect = site.function in ("sqlite3.connect", "aiosqlite.connect")
    for value in values:
        text = text_of(value, names)
        scheme, _, path = text.partition(":///")
        if scheme.startswith("sqlite") and path:
            yield path
        elif is_connect:
            yield text.removeprefix("file:")


def _is_on(path: str, mounts: set[str]) -> bool:
    return any(mount and path.startswith(f"{mount}/") for mount in mounts)


@rule("EX406")
def exits(subject: Subject) -> Iterator[Problem]:
    """No cell ends the run: the rest is skipped, and papermill reports success."""
    reach = reach_of(subject.program)
    places = [
        (site.code.index, site.node)
        for site in reach.sites
        if site.function in EXITS or _shuts_down(site)
    ]
    for code in reach.cells:
        for node in ast.walk(code.tree):
            if _is_bare_exit(node, reach.names) or _raises_exit(node):
                places.append((code.index, node))
    for cell, node in sorted(places, key=lambda place: (place[0], place[1].lineno)):
        if reach.is_reached(node) and not _is_caught(node, reach):
            yield Problem(
                f"`{shown(node)}` ends the run: later cells are skipped, and papermill may "
                "still report success.",
                "Raise an error that says what is wrong, or let an if hold the rest.",
                cell,
                node.lineno,
            )


def _shuts_down(site: Site) -> bool:
    """Whether a call kills or restarts the kernel itself."""
    if site.function == "os.kill":
        first = site.node.args[0] if site.node.args else None
        return isinstance(first, ast.Call) and last_name(first) == "getpid"
    return last_name(site.node) == "do_shutdown"


def _is_bare_exit(node: ast.AST, names: Names) -> bool:
    """Whether a statement is `exit` alone, which IPython calls."""
    is_name = isinstance(node, ast.Expr) and dotted_path(node.value) in (["exit"], ["quit"])
    return is_name and names.dotted(node.value) in EXITS


def _raises_exit(node: ast.AST) -> bool:
    is_raise = isinstance(node, ast.Raise) and node.exc is not None
    return is_raise and last_name(node.exc) == "SystemExit"


def _is_caught(node: ast.AST, reach: Reach) -> bool:
    """Whether a handler around a node catches SystemExit."""
    for inner, outer in reach.steps(node):
        if isinstance(outer, ast.Try) and inner in outer.body:
            for handler in outer.handlers:
                kinds = [handler.type] if handler.type else []
                names = {last_name(part) for kind in kinds for part in ast.walk(kind)}
                if not kinds or names & {"SystemExit", "BaseException"}:
                    return True
    return False
