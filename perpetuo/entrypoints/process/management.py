"""
How do operators get a port of their own (``MANAGEMENT_PORT``)?

Every worker listens on it, next to its public listener and in the same event loop, and the kernel deals
connections out to them, as it does on the public port. docs/decisions/0002 says why.
"""

import asyncio
from typing import Any

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

CONNECTIONS = 256
STOP_SECONDS = 2.0


class ManagementListener:
    """A second listener inside a worker, for an application whose lifespan somebody else runs."""

    def __init__(self, app: Any, host: str, port: int) -> None:
        self._app, self._host, self._port = app, host, port
        self._server: Server | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen; call it in the worker's running loop."""
        self._server = Server(
            self._app,
            address=self._host,
            port=self._port,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            websockets=False,
            backpressure=CONNECTIONS,
            http1_settings=HTTP1Settings(header_read_timeout=60_000),
            log_enabled=False,
        )
        self._task = asyncio.create_task(self._server.serve(), name="management")
        await asyncio.sleep(0)

    async def stop(self) -> None:
        """Answer what is being asked, then close; a connection that won't end is left behind."""
        if self._server is None or self._task is None:
            return
        self._server.stop()
        await asyncio.wait({self._task}, timeout=STOP_SECONDS)
        self._task.cancel()
