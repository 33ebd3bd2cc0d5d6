"""Do connections to a real server, which closes them as it likes, ever cost a client a call?"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI

from tests.integration.llm.model import MODEL, ModelServer, Row
from tests.live import eventually
from tests.patience import PATIENCE

CALLS = 250
SMALL: Any = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Say hello."}],
    "max_tokens": 1,
    "temperature": 0,
}
LONG: Any = {**SMALL, "max_tokens": 1_000, "extra_body": {"ignore_eos": True}}
KEPT_OPEN = 5.0
"""Seconds for which llama.cpp keeps an idle connection."""


def test_many_calls_in_a_row_survive_a_server_that_closes_after_a_hundred(client: OpenAI) -> None:
    """llama.cpp closes each connection after 100 answers: none of 250 calls sees that, nor needs a second attempt."""
    for _ in range(CALLS):
        raw = client.chat.completions.with_raw_response.create(**SMALL)
        assert raw.headers["x-perpetuo-attempts"] == "1"


def test_a_pause_as_long_as_the_server_keeps_connections_costs_nothing(client: OpenAI) -> None:
    """A call sent in the moment in which the server closes an idle connection would fail, or run twice."""
    client.chat.completions.create(**SMALL)
    time.sleep(KEPT_OPEN - 0.005)
    raw = client.chat.completions.with_raw_response.create(**SMALL)
    assert raw.headers["x-perpetuo-attempts"] == "1"


def test_i8_a_client_that_leaves_a_stream_frees_the_models_slot(client: OpenAI, model: ModelServer) -> None:
    """Closing the SDK's stream ends the work at the model within two seconds."""
    stream = client.chat.completions.create(**LONG, stream=True)
    for _ in range(3):
        next(stream)
    assert model.busy() == 1
    stream.close()
    eventually(lambda: not model.busy())


@pytest.mark.anyio
async def test_i8_a_client_that_leaves_a_plain_call_is_settled_at_once(
    async_client: AsyncOpenAI, model: ModelServer, recorded: Callable[[str], Row]
) -> None:
    """
    Nothing has been answered yet; the gateway ends the call all the same.

    llama.cpp itself, asked directly, goes on with a call that is not a stream after its client has left.
    """
    asked: Any = {**LONG, "max_tokens": 400, "extra_headers": {"x-request-id": "left-a-plain-call"}}
    call = asyncio.create_task(async_client.chat.completions.create(**asked))
    await asyncio.to_thread(eventually, model.busy)
    call.cancel()
    row = await asyncio.to_thread(recorded, "left-a-plain-call")
    assert row["outcome"] == "cancelled"
    # as long as its tokens take: for whoever comes next the model is idle again
    await asyncio.to_thread(eventually, lambda: not model.busy(), 10 * PATIENCE)


@pytest.mark.anyio
async def test_clients_that_come_and_go_leave_the_model_idle(async_client: AsyncOpenAI, model: ModelServer) -> None:
    """Twenty calls, half of them left in the middle: the others get their answers, and then nothing is busy."""

    async def stay() -> None:
        assert (await async_client.chat.completions.create(**SMALL)).choices

    async def leave() -> None:
        async with await async_client.chat.completions.create(**LONG, stream=True) as stream:
            await anext(aiter(stream))

    await asyncio.gather(*(stay() if turn % 2 else leave() for turn in range(20)))
    await asyncio.to_thread(eventually, lambda: not model.busy())
    assert (await async_client.chat.completions.create(**SMALL)).choices


@pytest.mark.anyio
async def test_more_calls_than_the_model_has_slots_wait_their_turn(async_client: AsyncOpenAI) -> None:
    """A server that queues is not a server that is broken."""
    answers = await asyncio.gather(*(async_client.chat.completions.create(**SMALL) for _ in range(12)))
    assert all(answer.choices for answer in answers)
