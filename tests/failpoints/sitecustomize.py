"""
Kill a worker at a named point of one call: ``kill -9`` where no test could hit from outside.

Python imports a module of this name at its start when it is on the path. A gateway of the tests has this folder in its
``PYTHONPATH``, and says in ``FAIL_POINTS`` in which directory it may leave marks. Nothing of it is in the product:
it wraps some of its functions when they are imported. A call asks for its worker's death by its tag:

    x-perpetuo-tag: kill-after_admit-7

    after_admit     the ledger has admitted it, nothing was sent
    after_send      the request is on its way to the provider
    mid_stream      two pieces of the stream are with the client
    before_settle   the provider's answer is there, the ledger does not know
    after_settle    the ledger knows, the client has no answer (or not its end)
    before_ack      its row is in SQL, the stream does not know

Rule: once for each tag, however often the call is made again or its event delivered again.
"""

import asyncio
import importlib.abc
import importlib.machinery
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any

PREFIX = "kill-"
MARKS = os.environ.get("FAIL_POINTS", "")
_armed: dict[str, str] = {}
"""Calls of this process that want to die: call id to tag."""


def strike(point: str, tag: str | None) -> None:
    """Die here, if this is what the tag asks for, and nobody has died of it before."""
    if tag is None or not tag.startswith(f"{PREFIX}{point}"):
        return
    try:
        Path(MARKS, tag).touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def _complete(module: ModuleType) -> None:
    begin = module.Gateway._begin

    @wraps(begin)
    def dying(self: Any, prepared: Any, admitted: Any, client: Any) -> Any:
        tag = prepared.request.tag
        if tag is not None and tag.startswith(PREFIX):
            _armed[admitted.hold.call] = tag
        strike("after_admit", tag)
        return begin(self, prepared, admitted, client)

    module.Gateway._begin = dying


def _connection(module: ModuleType) -> None:
    begin = module.Http1Exchange.begin

    @wraps(begin)
    async def dying(self: Any, head: bytes, body: bytes) -> None:
        tag = next((tag for call, tag in _armed.items() if call.encode() in head), None)
        if tag is not None:  # the event loop writes when this turn of it is over
            asyncio.get_running_loop().call_later(0.1, strike, "after_send", tag)
        await begin(self, head, body)

    module.Http1Exchange.begin = dying


class _Client:
    """A client that counts what it was sent."""

    def __init__(self, client: Any, tag: str) -> None:
        self._client = client
        self._tag = tag
        self._pieces = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def write(self, data: bytes) -> None:
        await self._client.write(data)
        self._pieces += 1
        if self._pieces == 2:
            strike("mid_stream", self._tag)


def _respond(module: ModuleType) -> None:
    stream = module.Responder.stream

    @wraps(stream)
    async def dying(self: Any, call: Any, source: Any, client: Any) -> Any:
        tag = _armed.get(call.id)
        return await stream(self, call, source, client if tag is None else _Client(client, tag))

    module.Responder.stream = dying


def _ledger(module: ModuleType) -> None:
    settle = module.RedisLedger.settle

    @wraps(settle)
    async def dying(self: Any, settlement: Any, keeping: Any) -> Any:
        tag = _armed.get(settlement.hold.call)
        strike("before_settle", tag)
        settled = await settle(self, settlement, keeping)
        strike("after_settle", tag)
        return settled

    module.RedisLedger.settle = dying


def _stream(module: ModuleType) -> None:
    ack = module.RedisEventStream.ack

    @wraps(ack)
    async def dying(self: Any, events: Any) -> None:
        for event in events:
            tag = re.search(f'{PREFIX}before_ack[^"]*', str(event))
            strike("before_ack", tag and tag[0])
        await ack(self, events)

    module.RedisEventStream.ack = dying


WRAPPED: dict[str, Callable[[ModuleType], None]] = {
    "perpetuo.domain.gateway.complete": _complete,
    "perpetuo.adapters.providers.transport.connection": _connection,
    "perpetuo.domain.gateway.respond": _respond,
    "perpetuo.adapters.redis.ledger": _ledger,
    "perpetuo.adapters.redis.stream": _stream,
}


class _Loader(importlib.abc.Loader):
    """Loads a module as it is, then wraps."""

    def __init__(self, loader: Any, wrap: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._wrap = wrap

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        found: ModuleType | None = self._loader.create_module(spec)
        return found

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._wrap(module)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in WRAPPED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None:
            spec.loader = _Loader(spec.loader, WRAPPED[name])
        return spec


if MARKS:
    sys.meta_path.insert(0, _Finder())
