"""The call path when something of ours is broken: it has no framework around it that would answer."""

import json
import logging
from typing import Any

import pytest

from perpetuo.domain.model.chat import CallRequest, Kind
from perpetuo.domain.model.tenants import Caller
from perpetuo.domain.ports import Client
from perpetuo.entrypoints.http.calls import Calls
from tests.unit.gateway.world import World

pytestmark = pytest.mark.anyio
HEADERS = [(b"host", b"x"), (b"authorization", b"Bearer sk-acme")]
BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'


async def asked(monkeypatch: pytest.MonkeyPatch, said: list[dict[str, Any]], *, begins: bool) -> None:
    """One call of a gateway with a defect, before or after the beginning of its answer; what is ``said`` of it."""
    world = World()

    async def complete(caller: Caller, request: CallRequest, client: Client) -> None:
        if begins:
            await client.start(200, ())
        raise ZeroDivisionError("secret")

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        said.append(message)

    monkeypatch.setattr(world.gateway, "complete", complete)
    calls = Calls(Kind.CHAT, world.gateway, world.notes, world.clock)
    scope = {"method": "POST", "headers": HEADERS, "client": ("127.0.0.1", 1)}
    await calls(scope, receive, send)


async def test_a_defect_on_the_call_path_is_an_honest_500(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No traceback to the client, no reason to repeat it, an id to look for; the log says where."""
    said: list[dict[str, Any]] = []
    with caplog.at_level(logging.ERROR):
        await asked(monkeypatch, said, begins=False)
    start, body = said
    headers = dict(start["headers"])
    assert (start["status"], headers[b"x-should-retry"]) == (500, b"false")
    assert headers[b"x-request-id"]
    assert json.loads(body["body"])["error"]["code"] == "internal_error"
    assert b"secret" not in body["body"]
    assert "/v1/chat/completions is broken" in caplog.text


async def test_a_defect_in_a_stream_that_has_begun_cuts_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be taken back; the server closes the connection of a call that raises."""
    said: list[dict[str, Any]] = []
    with pytest.raises(ZeroDivisionError):
        await asked(monkeypatch, said, begins=True)
    assert [message["type"] for message in said] == ["http.response.start"]
