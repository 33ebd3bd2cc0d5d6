"""TCP proxies in front of Redis: one loses replies after the command has run, one changes servers unnoticed."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

CHUNK = 65_536


class LossyProxy:
    """Forwards bytes both ways. ``lose`` replies are thrown away, each with its connection cut or left silent."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.lose = 0
        self.silently = False
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers |= {writer, server_writer}
        up = asyncio.create_task(self._forward(reader, server_writer, replies=False))
        await self._forward(server_reader, writer, replies=True)
        up.cancel()
        self._writers -= {writer, server_writer}
        server_writer.close()
        writer.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool) -> None:
        try:
            while data := await reader.read(CHUNK):
                if replies and self.lose > 0:
                    self.lose -= 1
                    if self.silently:
                        continue
                    return
                writer.write(data)
                await writer.drain()
        except OSError:
            return


class SwitchingProxy:
    """Clients stay connected while `switch` puts another server behind them, as at a failover behind a pool."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.port = 0
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def clients(self) -> int:
        return len(self._clients)

    def switch(self, port: int) -> None:
        self._target = port

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._clients):
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        target, server, replies = 0, writer, asyncio.create_task(asyncio.sleep(0))
        try:
            while data := await reader.read(CHUNK):
                if target != self._target:
                    replies.cancel()
                    target = self._target
                    server_reader, server = await asyncio.open_connection("127.0.0.1", target)
                    replies = asyncio.create_task(self._answer(server_reader, writer))
                server.write(data)
        finally:
            replies.cancel()
            server.close()
            writer.close()
            self._clients.discard(writer)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            writer.write(data)


@asynccontextmanager
async def switching_proxy(port: int) -> AsyncIterator[SwitchingProxy]:
    proxy = SwitchingProxy(port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()


@asynccontextmanager
async def lossy_proxy(port: int) -> AsyncIterator[LossyProxy]:
    proxy = LossyProxy(port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()


@contextmanager
def lossy_proxy_aside(port: int) -> Iterator[LossyProxy]:
    """A `LossyProxy` in a thread of its own, for tests without a loop."""
    proxy, loop = LossyProxy(port), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(proxy.start(), loop).result(5)
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(proxy.stop(), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()
