"""
An upstream that misbehaves to order: what does our client do with any bytes, at any time, and no bytes at all?

A script is a function of one connection, in blocking code, in a thread of its own: it works for tests with and
without an event loop, and goes on when the loop under test is busy. Connections beyond the script's end are closed.

    def script(peer: Peer) -> None:
        while peer.request():
            peer.send(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\nok")

    with Evil(script) as server:
        ...server.origin, server.requests, server.connections
"""

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from tests.patience import PATIENCE

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\nok"


class Peer:
    """The server's end of one connection."""

    def __init__(self, server: "Evil", sock: socket.socket, number: int) -> None:
        self.server = server
        self.sock = sock
        self.number = number
        """0 for the first connection of this server."""
        self._pending = b""

    def request(self) -> bytes | None:
        """The next request, head and body; ``None`` when the client has gone."""
        while b"\r\n\r\n" not in self._pending:
            if not self._receive():
                return None
        head, _, rest = self._pending.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        while len(rest) < length:
            if not self._receive():
                return None
            rest = self._pending.partition(b"\r\n\r\n")[2]
        self._pending = rest[length:]
        whole = head + b"\r\n\r\n" + rest[:length]
        self.server.requests.append(whole)
        return whole

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def send_slowly(self, pieces: Iterable[bytes], gap: float) -> None:
        """A drip: one write per piece, ``gap`` seconds apart."""
        for piece in pieces:
            self.send(piece)
            self.pause(gap)

    def pause(self, seconds: float) -> None:
        """Say nothing for a while, or until the server is being closed."""
        self.server.closing.wait(seconds)

    def wait_gone(self, seconds: float = 2 * PATIENCE) -> bool:
        """Does the client close within so long? Longer than any test waits for that, unless told."""
        self.sock.settimeout(seconds)
        gone = False
        with contextlib.suppress(TimeoutError):
            try:
                while self.sock.recv(65536):
                    pass
                gone = True
            except OSError as error:
                gone = not isinstance(error, TimeoutError)
        if gone:
            self.server.gone.append(time.monotonic())
        return gone

    def reset(self) -> None:
        """RST instead of a goodbye."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()

    def _receive(self) -> bool:
        data = self.sock.recv(65536)
        self._pending += data
        return bool(data)


Script = Callable[[Peer], None]


class Evil:
    """A listening socket on loopback and its script."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self._script = script
        self._tls = tls
        self._host = host
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self.port: int = self._listener.getsockname()[1]
        self.closing = threading.Event()
        self.connections = 0
        self.requests: list[bytes] = []
        self.gone: list[float] = []
        """When `Peer.wait_gone` saw a client leave."""

    @property
    def origin(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self._host}:{self.port}"

    def open_connections(self) -> int:
        """Connections that this end has not closed."""
        with self._lock:
            return len(self._open)

    def __enter__(self) -> Self:
        self._spawn(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            leftover = tuple(self._open)
        for sock in leftover:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)

    def _spawn(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads = [known for known in self._threads if known.is_alive()]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.closing.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            number, self.connections = self.connections, self.connections + 1
            with self._lock:
                self._open.add(sock)
            self._spawn(self._serve, sock, number)

    def _serve(self, raw: socket.socket, number: int) -> None:
        sock = raw
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                sock = self._tls.wrap_socket(raw, server_side=True)
                with self._lock:
                    self._open.add(sock)
            self._script(Peer(self, sock, number))
        except OSError:
            pass  # The client left first; scripts needn't care.
        finally:
            sock.close()
            with self._lock:
                self._open -= {raw, sock}


def answering(*answers: bytes) -> Script:
    """Each request gets the next answer, the last one again and again; connections stay open."""

    def script(peer: Peer) -> None:
        while peer.request() is not None:
            peer.send(answers[min(len(peer.server.requests), len(answers)) - 1])

    return script


def saying(answer: bytes) -> Script:
    """Read one request, send these bytes, close."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(answer)

    return script


def silent_after(answer: bytes) -> Script:
    """Read one request, send these bytes, then nothing until the client has gone."""

    def script(peer: Peer) -> None:
        peer.request()
        if answer:
            peer.send(answer)
        peer.wait_gone()

    return script


class Nobody:
    """A port that refuses connections, and that nobody else is given meanwhile: bound, and not listening."""

    def __init__(self) -> None:
        self._held = socket.socket()
        self._held.bind(("127.0.0.1", 0))
        self.port: int = self._held.getsockname()[1]
        self.origin = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()


class Blackhole:
    """A port that neither takes nor refuses connections: its queue is full."""

    def __init__(self) -> None:
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(0)
        self.port: int = self._listener.getsockname()[1]
        self.origin = f"http://127.0.0.1:{self.port}"
        self._fill: list[socket.socket] = []

    def __enter__(self) -> Self:
        for _ in range(4):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", self.port))
            self._fill.append(sock)
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (*self._fill, self._listener):
            sock.close()
