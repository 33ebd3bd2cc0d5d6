"""
Clients that take their time, in a process of their own.

``python -m tests.integration.faults.slow_clients PORT COUNT KIND...`` keeps COUNT connections open, KINDs by turns:

    head      never comes to the end of its head
    upload    sends a byte of its body a second
    reader    asks for an endless stream and takes nothing of it

Who is cut comes again. At the end of standard input it prints, as JSON, how many seconds each that was cut had lasted,
by kind, and how old those are that are still there.
"""

import asyncio
import json
import socket
import sys
import time
from collections import defaultdict

from tests.live import KEY

HEAD = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n".encode()
STREAM = b'{"model":"endless","stream":true,"max_tokens":5,"messages":[{"role":"user","content":"hi"}]}'


class SlowClients:
    def __init__(self, port: int) -> None:
        self._port = port
        self.cut: dict[str, list[float]] = defaultdict(list)
        self.open: dict[object, tuple[str, float]] = {}

    async def keep_one(self, kind: str) -> None:
        me = object()
        while True:
            began = time.monotonic()
            self.open[me] = kind, began
            try:
                await getattr(self, kind)(*await self._connect())
            except OSError:
                pass
            self.cut[kind].append(time.monotonic() - began)
            await asyncio.sleep(0.1)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self._port))
        return await asyncio.open_connection(sock=sock, limit=1024)

    async def head(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        await self._drip(reader, writer, b"x-a: " + b"b" * 100_000)

    async def upload(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"content-length: 100000\r\n\r\n")
        await self._drip(reader, writer, b"{" + b" " * 99_998)

    async def reader(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"content-length: %d\r\n\r\n" % len(STREAM) + STREAM)
        while not writer.transport.is_closing():
            await asyncio.sleep(1)  # a reset is noticed although nothing is read: the socket is polled for errors
            writer.write(b"\r\n")
            await writer.drain()

    async def _drip(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> None:
        """Until the server answers or closes; it may do both."""
        answered = asyncio.ensure_future(reader.read())
        try:
            for i in range(len(data)):
                writer.write(data[i : i + 1])
                done, _ = await asyncio.wait({answered}, timeout=1)
                if done:
                    return
        finally:
            answered.cancel()
            writer.close()


async def main() -> None:
    clients = SlowClients(int(sys.argv[1]))
    count, kinds = int(sys.argv[2]), sys.argv[3:]
    tasks = [asyncio.create_task(clients.keep_one(kinds[i % len(kinds)])) for i in range(count)]
    await asyncio.sleep(0.5)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    ages = [(kind, time.monotonic() - began) for kind, began in clients.open.values()]
    print(json.dumps({"cut": clients.cut, "open": ages}), flush=True)
    for task in tasks:
        task.cancel()


if __name__ == "__main__":
    asyncio.run(main())
