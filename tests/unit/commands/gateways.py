"""Servers on loopback that a command may find where it thinks a gateway is: `serving`."""

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import attrs

ADMIN_KEY = "admin-key-of-the-tests-0123456789"
JSON = "application/json"


@attrs.frozen
class Canned:
    """What is answered to a request."""

    status: int = 200
    body: bytes = b"{}"
    headers: tuple[tuple[str, str], ...] = (("content-type", JSON),)


def refusal(status: int, code: str, message: str) -> Canned:
    body = f'{{"error":{{"message":"{message}","type":"t","param":null,"code":"{code}","source":"gateway"}}}}'
    return Canned(status, body.encode())


Answering = Callable[[str, dict[str, str]], Canned | None]
"""From a path and headers to an answer; ``None``: the connection breaks instead."""


@contextlib.contextmanager
def serving(canned: Canned | Answering, tls: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[Any]]]:
    """Its address, and the requests it got as ``(method, path, headers)``."""
    seen: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            seen.append((self.command, self.path, dict(self.headers)))
            answer = canned if isinstance(canned, Canned) else canned(self.path, dict(self.headers))
            if answer is None:
                return
            self.send_response(answer.status)
            for name, value in (*answer.headers, ("content-length", str(len(answer.body)))):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)

        do_POST = do_GET  # noqa: N815 - as above

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """A client that refuses our certificate is what is tested."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()
