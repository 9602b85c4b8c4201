"""Threads and processes that a cell starts and nobody ends."""

import ast
from collections.abc import Iterator

from tools.analysis.reach import Reach, Site, reach_of
from tools.analysis.scopes import DEFINITIONS, last_name
from tools.rules import Problem, Severity, Subject, rule

THREADS = {"threading.Thread", "threading.Timer"}
MODULES = ("multiprocessing.", "torch.multiprocessing.", "concurrent.futures.")
POOLS = {"Process", "Pool", "ProcessPoolExecutor", "spawn", "start_processes"}
SENDS = {"map", "imap", "starmap", "apply", "apply_async", "map_async", "submit", "imap_unordered"}


@rule("EX408")
def left_running(subject: Subject) -> Iterator[Problem]:
    """No thread or process is left running without an end in sight."""
    reach = reach_of(subject.program)
    functions = {
        node.name
        for code in reach.cells
        for node in ast.walk(code.tree)
        if isinstance(node, DEFINITIONS)
    }
    for site in reach.sites:
        if site.function in THREADS:
            yield from _thread(site, reach)
        elif site.function == "subprocess.Popen":
            yield from _process(site, reach)
        elif site.function.startswith(MODULES) and last_name(site.node) in POOLS:
            yield from _workers(site, reach, functions)
        elif site.function == "os.fork":
            yield _problem(
                site, "os.fork() copies a kernel with its threads and sockets.", "Use subprocess."
            )


def _thread(site: Site, reach: Reach) -> Iterator[Problem]:
    """A thread that is started, is no daemon, and is never joined."""
    words = {word.arg for word in site.node.keywords}
    holder = _holder(site.node, reach)
    if "daemon" in words or not reach.is_reached(site.node) or not _is_started(site, reach, holder):
        return
    ends = {"join", "cancel", "daemon", "setDaemon"}
    if holder is None or not _is_used(holder, ends, reach):
        yield _problem(
            site,
            "This thread is neither joined nor a daemon: it goes on after its cell, and its "
            "output lands in later ones.",
            "Join it in this cell, or pass daemon=True and stop it in a later one.",
        )


def _is_started(site: Site, reach: Reach, holder: str | None) -> bool:
    """Whether the thread is started, under the name that holds it or at once."""
    if holder is None:
        parent = next(reach.around(site.node), None)
        return isinstance(parent, ast.Attribute) and parent.attr == "start"
    return _is_used(holder, {"start"}, reach)


def _holder(call: ast.Call, reach: Reach) -> str | None:
    """The name that keeps the result of a call; `*` if it is kept in another way."""
    for outer in reach.around(call):
        if isinstance(outer, ast.Assign | ast.NamedExpr | ast.AnnAssign):
            targets = outer.targets if isinstance(outer, ast.Assign) else [outer.target]
            plain = outer.value is call and isinstance(targets[0], ast.Name)
            return targets[0].id if plain else "*"
        if isinstance(outer, ast.Expr):
            is_plain = outer.value is call or _is_method_of(outer.value, call)
            return None if is_plain else "*"
        if isinstance(outer, ast.stmt):
            return "*"
    return None


def _is_method_of(node: ast.expr, call: ast.Call) -> bool:
    """Whether an expression only calls a method of what a call gives: `Thread(...).start()`."""
    is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    return is_call and node.func.value is call


def _is_used(name: str, attributes: set[str], reach: Reach) -> bool:
    """Whether any of the attributes is used of a name, or the name is handed on."""
    for code in reach.cells:
        for node in ast.walk(code.tree):
            if isinstance(node, ast.Attribute) and node.attr in attributes:
                is_plain = isinstance(node.value, ast.Name)
                if name == "*" or (is_plain and (node.value.id == name or _loops(node, reach))):
                    return True
    return False


def _loops(node: ast.Attribute, reach: Reach) -> bool:
    """Whether an attribute is of a loop's variable, as in `for t in threads: t.join()`."""
    return any(
        isinstance(outer, ast.For | ast.comprehension)
        and node.value.id in {n.id for n in ast.walk(outer.target) if isinstance(n, ast.Name)}
        for outer in reach.around(node)
    )


def _process(site: Site, reach: Reach) -> Iterator[Problem]:
    """A process that is dropped, or whose name nobody reads again."""
    holder = _holder(site.node, reach)
    if not reach.is_reached(site.node) or holder == "*":
        return
    if holder is None:
        parent = next(reach.around(site.node), None)
        is_dropped = isinstance(parent, ast.Expr)
    else:
        is_dropped = not any(
            isinstance(node, ast.Name) and node.id == holder and isinstance(node.ctx, ast.Load)
            for code in reach.cells
            for node in ast.walk(code.tree)
        )
    if is_dropped:
        yield _problem(
            site,
            "Nobody waits for this process or ends it.",
            "Keep it under a name, and call wait() or terminate() in a later cell; for a short "
            "one use subprocess.run.",
        )


def _workers(site: Site, reach: Reach, functions: set[str]) -> Iterator[Problem]:
    """Processes of `multiprocessing` that run a function of the notebook."""
    holder = _holder(site.node, reach)
    names = {node.id for node in ast.walk(site.node) if isinstance(node, ast.Name)}
    for code in reach.cells:
        for node in ast.walk(code.tree):
            if isinstance(node, ast.Call) and last_name(node) in SENDS and node.args and holder:
                names |= {arg.id for arg in node.args if isinstance(arg, ast.Name)}
    if names & functions and reach.is_reached(site.node):
        yield _problem(
            site,
            "Worker processes cannot import a function that is defined in a notebook: this works "
            "only where processes are forked, and a fork after CUDA has started fails.",
            "Put the function into a module, or use threads.",
            "warning",
        )


def _problem(site: Site, message: str, cure: str, severity: Severity | None = None) -> Problem:
    return Problem(message, cure, site.code.index, site.node.lineno, severity)
