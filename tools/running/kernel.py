"""A kernel of a given interpreter, and what can be asked of it while no cell runs."""

import ast
import asyncio
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
from traitlets import Type, Unicode

from tools.running.client import Client

PROBE = Path(__file__).with_name("probe.py")
NOTHING = {"shell": [], "running": {}, "children": [], "gpu_mib": None}
ANSWER_TIMEOUT_S = 10
SHUTDOWN_S = 10


class Kernel(AsyncKernelManager):
    """A Python kernel that runs on `python`, whatever the machine calls python3."""

    shutdown_wait_time = SHUTDOWN_S
    client_factory = Type(Client)
    python = Unicode("", help="The interpreter; empty for the one that runs us.")

    @property
    def kernel_spec(self) -> KernelSpec:
        python = self.python or sys.executable
        launcher = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
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

    @property
    def pid(self) -> int | None:
        """The process, once it is started."""
        return getattr(self.provisioner, "pid", None)

    def exit_code(self) -> int | None:
        """How the process ended, negative for a signal; None while it lives."""
        process = getattr(self.provisioner, "process", None)
        return process.poll() if process else None

    def interrupt(self) -> None:
        """Do what the stop button does; usable in a signal handler."""
        if self.exit_code() is None and self.pid:
            os.killpg(self.pid, signal.SIGINT)

    def kill(self) -> None:
        """End the process at once; usable in any thread."""
        if self.exit_code() is None and self.pid:
            os.killpg(self.pid, signal.SIGKILL)

    def stop(self, now: bool) -> None:
        """End the process, after some seconds by force, and free everything."""
        if self.context.closed:  # nbclient has done it: the kernel never answered
            return
        run_sync(self.shutdown_kernel)(now=now)
        client = getattr(self, "last_client", None)
        if client is not None:
            client.stop_channels()

    def say_goodbye(self) -> None:
        """Have an idle kernel not wait for its streams when it ends: now and then it would, 5 s."""
        streams = "(__import__('sys').stdout, __import__('sys').stderr)"
        run_sync(self._ask)(f"[setattr(stream, 'flush_timeout', 0.2) for stream in {streams}]")

    async def watch(self) -> dict[str, str]:
        """Have the kernel note failed commands and work left running; return its versions."""
        source = PROBE.read_text(encoding="utf-8")
        install = "(lambda names: (exec(%r, names), names['install']())[1])({})"
        answer = await self._ask(install % source)
        return json.loads(answer) if isinstance(answer, str) else {}

    async def observed(self) -> dict[str, Any]:
        """What was noted since the last question, and what runs now."""
        answer = await self._ask("__import__('IPython').get_ipython().notebook_watch()")
        return json.loads(answer) if isinstance(answer, str) else NOTHING

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
