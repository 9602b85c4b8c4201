"""A kernel of this interpreter, and what can be asked of it while no cell runs."""

import ast
import asyncio
import inspect
import json
import os
import queue
import signal
import sys
from pathlib import Path
from typing import IO, Any

from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from jupyter_core.utils import run_sync

ANSWER_TIMEOUT_S = 10
SHUTDOWN_S = 10


class Kernel(AsyncKernelManager):
    """A Python kernel that runs on `sys.executable`, whatever the machine calls python3."""

    shutdown_wait_time = SHUTDOWN_S

    @property
    def kernel_spec(self) -> KernelSpec:
        launcher = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=launcher, display_name="Python 3", language="python")

    def client(self, **options: Any) -> Any:
        """The client that papermill asks for; kept, to ask our own questions through it."""
        self.last_client = super().client(**options)
        return self.last_client

    def start(self, folder: Path, environment: dict[str, str], log: IO[bytes]) -> None:
        """Start the process in a folder; what it writes past IPython goes to the log."""
        run_sync(self.start_kernel)(
            cwd=str(folder),
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
            extra_arguments=["--HistoryManager.hist_file=:memory:", "--log-level=40"],
        )

    def exit_code(self) -> int | None:
        """How the process ended, negative for a signal; None while it lives."""
        process = getattr(self.provisioner, "process", None)
        return process.poll() if process else None

    def interrupt(self) -> None:
        """Do what the stop button does; usable in a signal handler."""
        if self.exit_code() is None and getattr(self.provisioner, "pid", None):
            os.killpg(self.provisioner.pid, signal.SIGINT)

    def stop(self, now: bool) -> None:
        """End the process, after some seconds by force, and free everything."""
        if self.context.closed:  # nbclient has done it: the kernel never answered
            return
        run_sync(self.shutdown_kernel)(now=now)
        client = getattr(self, "last_client", None)
        if client is not None:
            client.stop_channels()

    async def watch(self) -> None:
        """Have the kernel note failed shell commands and work that outlives its cell."""
        source = f"{inspect.getsource(install_watch)}\ninstall_watch()"
        await self._ask(f"exec({source!r}, {{}})")

    async def observed(self) -> dict[str, Any]:
        """What was noted since the last question: failed shell commands, and work still running."""
        answer = await self._ask("__import__('IPython').get_ipython().notebook_watch()")
        return json.loads(answer) if isinstance(answer, str) else {"shell": [], "running": {}}

    async def _ask(self, expression: str) -> Any:
        """The value of an expression in the kernel; None if it fails or the kernel is gone."""
        client = self.last_client
        question = client.execute(
            "", silent=True, store_history=False, user_expressions={"answer": expression}
        )
        deadline = asyncio.get_running_loop().time() + ANSWER_TIMEOUT_S
        while self.exit_code() is None and asyncio.get_running_loop().time() < deadline:
            try:
                reply = await client.get_shell_msg(timeout=0.5)
            except queue.Empty:
                continue
            if reply["parent_header"].get("msg_id") == question:
                answer = reply["content"].get("user_expressions", {}).get("answer", {})
                return ast.literal_eval(answer.get("data", {}).get("text/plain", "None"))
        return None


def install_watch():
    """Sent to the kernel as source: note each failed `!` command and what is left running.

    The exit code is read after each command by a statement put behind it. Wrapping `system`
    itself would break `!echo {name}`, which looks at the caller's frame.
    """
    import ast
    import json
    import sys
    import threading

    from IPython import get_ipython

    shell, failed, known = get_ipython(), [], set(threading.enumerate())

    class NoteExitCodes(ast.NodeTransformer):
        def visit_Expr(self, node):
            if not ast.unparse(node).startswith("get_ipython().system("):
                return node
            note = ast.parse("get_ipython().notebook_note()").body[0]
            return [node, ast.fix_missing_locations(ast.copy_location(note, node))]

    def notebook_note():
        code = shell.user_ns.get("_exit_code", 0)
        if code:
            failed.append(code)

    def notebook_watch():
        pools = getattr(sys.modules.get("concurrent.futures.thread"), "_threads_queues", {})
        tasks = {
            f"thread {t.name}": id(t)
            for t in threading.enumerate()
            if t not in known and t not in pools and not t.daemon
        }
        if "multiprocessing" in sys.modules:
            children = sys.modules["multiprocessing"].active_children()
            tasks.update({f"process {p.name}": p.pid for p in children if not p.daemon})
        seen = json.dumps({"shell": failed, "running": tasks})
        failed.clear()
        return seen

    shell.ast_transformers.append(NoteExitCodes())
    shell.notebook_note, shell.notebook_watch = notebook_note, notebook_watch
