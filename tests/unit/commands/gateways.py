"""Servers on loopback that a command may find where it thinks a gateway is: `serving`."""

import contextlib
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import attrs

ADMIN_KEY = "admin-key-of-the-tests-0123456789"
JSON = "application/json"


@attrs.frozen
class Canned:
    """What is answered to every request."""

    status: int = 200
    body: bytes = b"{}"
    headers: tuple[tuple[str, str], ...] = (("content-type", JSON),)


def refusal(status: int, code: str, message: str) -> Canned:
    body = f'{{"error":{{"message":"{message}","type":"t","param":null,"code":"{code}","source":"gateway"}}}}'
    return Canned(status, body.encode())


@contextlib.contextmanager
def serving(canned: Canned, tls: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[Any]]]:
    """Its address, and the requests it got as ``(method, path, headers)``."""
    seen: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            seen.append((self.command, self.path, dict(self.headers)))
            self.send_response(canned.status)
            for name, value in (*canned.headers, ("content-length", str(len(canned.body)))):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(canned.body)

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
