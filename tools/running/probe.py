"""Sent to the kernel as source: note failed shell commands, and say what a cell left running.

It runs in the kernel's Python, beside IPython 7 to 9, so it imports nothing of ours.
"""

import ast
import json
import sys
import threading

from IPython import get_ipython


class NoteExitCodes(ast.NodeTransformer):
    """Put a statement behind each `!` command that reads its exit code.

    Wrapping `system` itself would break `!echo {name}`, which looks at the caller's frame.
    """

    def visit_Expr(self, node):
        if not ast.unparse(node).startswith("get_ipython().system("):
            return node
        note = ast.parse("get_ipython().notebook_note()").body[0]
        return [node, ast.fix_missing_locations(ast.copy_location(note, node))]


class Probe:
    """What was noted since the last question."""

    def __init__(self):
        self.failed, self.known = [], set(threading.enumerate())

    def note(self):
        """Note the exit code that IPython keeps of the last `!` command."""
        code = get_ipython().user_ns.get("_exit_code", 0)
        if code:
            self.failed.append(code)

    def note_captured(self, process_handler):
        """Wrap what runs the command of `x = !command`, whose exit code IPython drops."""

        def handle(command, callback, *arguments, **options):
            def finish(process):
                value = callback(process)
                if process.returncode:
                    self.failed.append(process.returncode)
                return value

            return process_handler(command, finish, *arguments, **options)

        return handle

    def answer(self):
        """Failed commands, running threads and processes, helpers of libraries, GPU memory."""
        idle, workers = idle_pools()
        tasks = {
            f"thread {t.name}": id(t)
            for t in threading.enumerate()
            if t not in self.known and t not in idle and not t.daemon and not is_idle_worker(t)
        }
        children = getattr(sys.modules.get("multiprocessing"), "active_children", list)()
        tasks.update(
            (f"process {p.name}", p.pid) for p in children if not (p.daemon or p.pid in workers)
        )
        answer = {
            "shell": self.failed[:],
            "running": tasks,
            "children": [p.pid for p in children],
            "gpu_mib": gpu_peak_mib(),
        }
        self.failed.clear()
        return json.dumps(answer)


def is_idle_worker(thread):
    """Whether a thread of a ThreadPoolExecutor waits for work."""
    pools = getattr(sys.modules.get("concurrent.futures.thread"), "_threads_queues", {})
    frame = sys._current_frames().get(thread.ident)
    return thread in pools and frame is not None and frame.f_code.co_name == "_worker"


def idle_pools():
    """Threads that serve process pools without work, and the ids of these pools' processes."""
    threads, workers = set(), set()
    for name in ("concurrent.futures.process", "joblib.externals.loky.process_executor"):
        for thread in list(getattr(sys.modules.get(name), "_threads_wakeups", ())):
            if not getattr(thread, "pending_work_items", None):
                threads.add(thread)
                workers.update(getattr(thread, "processes", None) or ())
    return threads, workers


def gpu_peak_mib():
    """Most GPU memory that torch has held; None without a GPU in use. Nothing is imported."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is None or not cuda.is_initialized():
        return None
    return max(cuda.max_memory_allocated(i) for i in range(cuda.device_count())) / 2**20


def versions():
    """Versions of the kernel's Python and of the packages that a report names, if installed."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": sys.version.split()[0]}
    for name in ("ipykernel", "ipython", "ipywidgets", "numpy", "torch"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def install():
    """Begin to note; return the versions as JSON."""
    from IPython.utils import _process_common

    shell, probe = get_ipython(), Probe()
    _process_common.process_handler = probe.note_captured(_process_common.process_handler)
    shell.ast_transformers.append(NoteExitCodes())
    shell.notebook_note, shell.notebook_watch = probe.note, probe.answer
    return json.dumps(versions())
