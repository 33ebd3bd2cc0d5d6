"""
One request, and what its client can say of the answer.

A connection for each, so that it is known which fault broke which. Everything that can go wrong on a connection is an
answer too: ``lost``, and how.
"""

import contextlib
import hashlib
import http.client
import json
import re
import socket
import struct
import time
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

import attrs

from tests.chaos.history import Answered, Asked

PATIENCE = 16.0
"""Seconds after which a client gives up: beyond any deadline, unless a process is stopped."""
KEPT = (
    "retry-after", "retry-after-ms", "x-should-retry", "x-perpetuo-idempotency", "idempotent-replayed",
    "x-perpetuo-cost-usd",
)  # fmt: skip
CANARY = re.compile(rb"canary-([a-z]+)-")


@attrs.frozen
class Leave:
    """Go in the middle of the answer: after so many bytes of it, or so many seconds without one; perhaps with a RST."""

    after: int
    seconds: float
    rudely: bool


def ask(url: str, asked: Asked, headers: Mapping[str, str], body: Mapping[str, Any], leave: Leave | None) -> Answered:
    """Send it, and hear what there is to hear."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=PATIENCE)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"x-request-id": asked.id, **headers})
        return _hear(connection, asked, leave)
    except ConnectionRefusedError:
        return _lost(asked, "refused")
    except TimeoutError:
        return _lost(asked, "timeout")
    except http.client.IncompleteRead:
        return _lost(asked, "cut")
    except (OSError, http.client.HTTPException):
        return _lost(asked, "reset")
    finally:
        connection.close()


def _lost(asked: Asked, how: str, status: int = 0) -> Answered:
    return Answered(id=asked.id, at=time.time(), what="lost", how=how, status=status)


def _hear(connection: http.client.HTTPConnection, asked: Asked, leave: Leave | None) -> Answered:
    if leave is not None:
        return _hear_a_part(connection, asked, leave)
    answer = connection.getresponse()
    return told(asked, answer.status, answer.headers.items(), answer.read())


def _hear_a_part(connection: http.client.HTTPConnection, asked: Asked, leave: Leave) -> Answered:
    """An error is heard to its end."""
    sock: socket.socket = connection.sock
    sock.settimeout(leave.seconds)
    try:
        answer = connection.getresponse()
        if answer.status != 200:
            return told(asked, answer.status, answer.headers.items(), answer.read())
        heard = 0
        while heard < leave.after and (piece := answer.read1(256)):
            heard += len(piece)
    except TimeoutError:
        pass  # that was all the patience it had
    if leave.rudely:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return _lost(asked, "left")


def told(asked: Asked, status: int, fields: Iterable[tuple[str, str]], body: bytes) -> Answered:
    """What a whole answer says."""
    headers = {name.lower(): value for name, value in fields}
    kept = {name: value for name in KEPT if (value := headers.get(name)) is not None}
    answer = Answered(
        id=asked.id,
        at=time.time(),
        what="fail",
        status=status,
        headers=kept,
        digest=hashlib.sha256(body).hexdigest()[:16],
        canaries=tuple(sorted({found.decode() for found in CANARY.findall(body)})),
    )
    text: str | None = None
    error: Any = None
    with contextlib.suppress(ValueError, LookupError, TypeError):
        text, error = _streamed(body) if "event-stream" in headers.get("content-type", "") else _whole(status, body)
    if isinstance(error, dict):
        return attrs.evolve(answer, code=error.get("code"), type=error.get("type"), source=error.get("source"))
    if text is None:
        return attrs.evolve(answer, what="lost", how="cut") if status == 200 else answer
    call, said = [*text.split(), "", ""][:2]
    return attrs.evolve(answer, what="ok", call=call, said=said)


def _whole(status: int, body: bytes) -> tuple[str | None, Any]:
    found = json.loads(body)
    if status != 200:
        return None, found["error"]
    return found["choices"][0]["message"]["content"], None


def _streamed(body: bytes) -> tuple[str | None, Any]:
    """Text of a stream that ended well, or the error it ended in, or neither."""
    text, ended = "", False
    for line in body.decode().splitlines():
        if not line.startswith("data: "):
            continue
        if line == "data: [DONE]":
            ended = True
            continue
        event = json.loads(line[6:])
        if "error" in event:
            return None, event["error"]
        for choice in event.get("choices", ()):
            text += choice["delta"].get("content") or ""
    return (text if ended else None), None
