"""The client of a kernel, through which papermill and we ask."""

import asyncio
import queue
from typing import Any

from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.channels import AsyncZMQSocketChannel
from traitlets import Type

LOOK_AGAIN_S = 0.5


class ShellChannel(AsyncZMQSocketChannel):
    """A channel on which no reply stays unseen.

    A ZeroMQ socket signals news only once, and a message sent meanwhile, as for an Output widget,
    uses the signal up: who only waits for it waits for ever. So it is looked at again.
    """

    async def get_msg(self, timeout: float | None = None) -> dict[str, Any]:
        """The next message.

        Raises: queue.Empty if none comes within `timeout` seconds.
        """
        clock = asyncio.get_running_loop().time
        end = None if timeout is None else clock() + timeout
        while True:
            left_s = LOOK_AGAIN_S if end is None else min(LOOK_AGAIN_S, end - clock())
            try:
                return await super().get_msg(timeout=max(left_s, 0))
            except queue.Empty:
                if end is not None and clock() >= end:
                    raise


class Client(AsyncKernelClient):
    """A client whose shell channel is ours."""

    shell_channel_class = Type(ShellChannel)
