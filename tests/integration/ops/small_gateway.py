"""
A server of ours around a small application: process behaviour can be seen without the whole gateway.

``python -m tests.integration.ops.small_gateway PORT WORKERS`` serves: ``/`` who I am, ``/slow?file`` answers when there
is such a file, ``/upload?file`` reads its body, ``/ready`` 200 or, while draining, 503, ``/config`` how often it was
told to reload. A call that is waited for says so: ``file.begun``.
``SMALL_BEFORE`` and ``SMALL_AFTER``: seconds that its start takes, before and after it obeys signals.
"""

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perpetuo.entrypoints.process import rundir, worker
from perpetuo.entrypoints.process.management import ManagementListener
from perpetuo.entrypoints.process.nursery import open_nursery
from perpetuo.entrypoints.process.server import GatewayServer, Launch


class SmallGateway:
    def __init__(self) -> None:
        self.draining = False
        self.reloads = 0
        self.in_flight = 0

    async def drain(self) -> None:
        self.draining = True
        await asyncio.sleep(0.5)  # "drainDelay"
        for _ in range(int(os.environ.get("SMALL_DRAIN", "600"))):
            if self.in_flight == 0:
                return
            await asyncio.sleep(0.1)

    async def reload(self) -> None:
        self.reloads += 1

    async def lifespan(self, receive: Any, send: Any) -> None:
        await receive()
        if "SMALL_BROKEN" in os.environ:
            await send({"type": "lifespan.startup.failed", "message": "broken on purpose"})
            return
        management = None
        if port := os.environ.get("SMALL_MANAGEMENT"):
            management = ManagementListener(self.management, "127.0.0.1", int(port))
            await management.start()
        await asyncio.sleep(float(os.environ.get("SMALL_BEFORE", "0")))
        worker.obey(Path(os.environ[rundir.VARIABLE]), self.drain, self.reload)
        await asyncio.sleep(float(os.environ.get("SMALL_AFTER", "0")))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if management is not None:
            await management.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def management(self, scope: Any, receive: Any, send: Any) -> None:
        await self.reply(send, 200, f"management of {os.getpid()}, {self.in_flight} in flight")

    async def reply(self, send: Any, status: int, text: str) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": text.encode()})

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.lifespan(receive, send)
            return
        self.in_flight += 1
        try:
            status, text = await self.answer(scope, receive)
        finally:
            self.in_flight -= 1
        await self.reply(send, status, text)

    async def answer(self, scope: Any, receive: Any) -> tuple[int, str]:
        match scope["path"]:
            case "/ready":
                return (503 if self.draining else 200), ""
            case "/slow":
                file = self.begun(scope)
                while not file.exists():  # noqa: ASYNC110 - who makes it is another process
                    await asyncio.sleep(0.02)
            case "/upload":
                self.begun(scope)
                while (await receive()).get("more_body"):
                    pass
            case "/config":
                return 200, str(self.reloads)
        return 200, str(os.getpid())

    def begun(self, scope: Any) -> Path:
        file = Path(scope["query_string"].decode())
        file.with_suffix(".begun").touch()
        return file


def load(environ: Mapping[str, str]) -> Any:
    worker.begin(environ)
    return SmallGateway()


def tell(level: str, event: str, fields: object) -> None:
    print(level, event, fields, flush=True)


def main() -> int:
    port, workers = int(sys.argv[1]), int(sys.argv[2])
    open_nursery(["granian.server.mp", "uvloop"])
    return GatewayServer(Launch("127.0.0.1", port, workers), load, tell).run()


if __name__ == "__main__":
    sys.exit(main())
