"""The application's end of a call: what leaves, and what counts as the client's having left."""

import asyncio
from typing import Any

import pytest

from perpetuo.domain.gateway.call import CLIENT_GONE
from perpetuo.entrypoints.http import client as module
from perpetuo.entrypoints.http.client import AsgiClient
from perpetuo.entrypoints.http.patience import Patience

pytestmark = pytest.mark.anyio


async def test_s5_a_reader_that_stalls_is_a_client_that_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A send that never ends is given up, and the call hears of it: its upstream can be stopped, its hold settled."""
    monkeypatch.setattr(module, "STALLED_SECONDS", 0.01)

    async def stalled(_: Any) -> None:
        await asyncio.Event().wait()

    client = AsgiClient(stalled, "id", 403, Patience(0.005).begin())
    await client.start(200, ())
    assert client.abort.reason == CLIENT_GONE
    await client.write(b"nobody waits for this")


async def test_i8_a_broken_transport_is_a_client_that_left() -> None:
    """Whatever the server raises for a closed connection is no error of ours."""

    async def broken(_: Any) -> None:
        raise ConnectionResetError

    client = AsgiClient(broken, "id", 403, Patience().begin())
    await client.answer(200, (), b"{}")
    assert client.abort.reason == CLIENT_GONE
