"""
What does OpenAI's own SDK make of each row of the error table: which exception, after how many requests, how far apart?

Left to itself it tries three times. ``x-should-retry``, ``retry-after-ms`` and ``retry-after`` are how the gateway
keeps it from multiplying what is final, and from coming back too early or too late to what is not.
"""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from llmock.scenarios import Delay, Fail, Reply, StreamFault
from llmock.testing import LLMockServer
from pydantic import BaseModel

from perpetuo.domain.model.errors import Reason
from tests.integration.gateway.contract import ROWS
from tests.integration.gateway.refusing import CONFIG, KEYS, PRICE, TABLE, Scene, beside, frozen, in_flight, named, shut
from tests.integration.gateway.sdk import HELLO, AsyncCounted, Counted, SlowUpload
from tests.live import KEY, LiveGateway, eventually
from tests.patience import PATIENCE
from tests.servers import RedisServer


@pytest.fixture(scope="module")
def llmock_here() -> Iterator[LLMockServer]:
    with LLMockServer() as server:
        yield server


@pytest.fixture(scope="module")
def config(llmock_here: LLMockServer) -> str:
    mock = f"""  - {{id: mock, kind: openai, baseUrl: "{llmock_here.base_url()}"}}
models:
  - {{name: mock, targets: [{{provider: mock, model: gpt-4o}}], {PRICE}}}
"""
    return CONFIG.replace("models:\n", mock, 1)


@pytest.fixture(scope="module")
def running(config: str, redis_here: RedisServer, database_here: str) -> Iterator[LiveGateway]:
    with LiveGateway(config, redis_url=redis_here.url, database_url=database_here) as gateway:
        yield gateway


@pytest.fixture
def gateway(running: LiveGateway, llmock_here: LLMockServer) -> LiveGateway:
    llmock_here.state.reset()
    return running


# --- each row ------------------------------------------------------------------------------------

CLASSES: dict[int, type[openai.APIStatusError]] = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    409: openai.ConflictError,
    422: openai.UnprocessableEntityError,
    429: openai.RateLimitError,
}
"""Statuses that have a class of their own; above 499 it is `InternalServerError`, else `APIStatusError` itself."""

ELSEWHERE = {
    Reason.IDEMPOTENCY_OUTCOME_UNKNOWN,  # needs a dead worker: test_crashes.py
    Reason.SHUTTING_DOWN,  # needs a gateway that leaves: below
    Reason.NOT_FOUND,  # other methods of the SDK: below
    Reason.METHOD_NOT_ALLOWED,
    Reason.REQUEST_TIMEOUT,  # needs a slow line: below
}


@pytest.mark.parametrize(
    ("reason", "scene", "who", "body"), TABLE, ids=[f"{r.value}-{i}" for i, (r, *_) in enumerate(TABLE)]
)
def test_the_sdk_raises_the_right_class_and_retries_only_what_can_change(
    gateway: LiveGateway, redis_here: RedisServer, reason: Reason, scene: Scene, who: str, body: dict[str, Any]
) -> None:
    """One request where the table says no; else three, each after exactly the wait it was told."""
    sdk = Counted(gateway, KEYS.get(who, who or KEY))
    with scene(gateway, redis_here), pytest.raises(openai.APIStatusError) as raised:
        sdk.ask(**body)
    held_to(reason, raised.value, sdk)


def held_to(reason: Reason, error: openai.APIStatusError, sdk: Counted | AsyncCounted) -> None:
    """Class, code, request id and number of requests, as the row of this reason has them."""
    row = ROWS[reason]
    default = openai.InternalServerError if row.status >= 500 else openai.APIStatusError
    assert type(error) is CLASSES.get(row.status, default)
    assert (error.status_code, error.code, error.type) == (row.status, reason.value, row.type)
    assert error.request_id
    body: Any = error.body
    assert body["source"] == "gateway"
    assert sdk.sent == (3 if row.retry else 1)
    assert sdk.waits == [int(told or 0) / 1_000 for told in sdk.told]
    assert len(sdk.waits) == sdk.sent - 1
    if isinstance(row.wait, int) and row.retry:
        assert sdk.waits == [row.wait / 1_000] * 2


def test_each_row_an_sdk_can_meet_is_tried() -> None:
    """What is not in the table above is named, with the place where it is instead."""
    assert {reason for reason, *_ in TABLE} | ELSEWHERE == set(Reason)
    assert not {reason for reason, *_ in TABLE} & ELSEWHERE


ASYNC = [row for row in TABLE if row[0] in {Reason.INVALID_API_KEY, Reason.IDEMPOTENCY_KEY_REUSED}] + [
    (Reason.CONCURRENCY_LIMIT_EXCEEDED, beside("crowded"), "crowded", {"stream": True}),
    (Reason.STORE_UNAVAILABLE, frozen, "", {"stream": True}),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("reason", "scene", "who", "body"), ASYNC)
async def test_the_async_sdk_does_the_same(
    gateway: LiveGateway, redis_here: RedisServer, reason: Reason, scene: Scene, who: str, body: dict[str, Any]
) -> None:
    """One of each kind, streams too."""
    sdk = AsyncCounted(gateway, KEYS.get(who, who or KEY))
    with scene(gateway, redis_here), pytest.raises(openai.APIStatusError) as raised:
        await sdk.ask(**body)
    await sdk.close()
    held_to(reason, raised.value, sdk)


def test_what_is_not_served_is_not_asked_for_twice(gateway: LiveGateway) -> None:
    """404 and 405 of the SDK's other methods, after one request each, with what is served in the message."""
    sdk = Counted(gateway)
    with pytest.raises(openai.NotFoundError, match="/v1/chat/completions"):
        sdk.responses.create(model="m", input="hi")
    with pytest.raises(openai.NotFoundError, match="/v1/chat/completions"):
        sdk.images.generate(prompt="a cat")
    with pytest.raises(openai.APIStatusError, match="takes POST") as raised:
        sdk.chat.completions.list()
    assert (raised.value.status_code, raised.value.code) == (405, "method_not_allowed")
    assert sdk.sent == 3


@pytest.mark.parametrize(("status", "error"), [(402, openai.APIStatusError), (429, openai.RateLimitError)])
def test_a_spent_budget_is_final_with_another_status_too(
    gateway: LiveGateway, config: str, status: int, error: type[openai.APIStatusError]
) -> None:
    """``errors.budgetStatus``: the SDK would repeat any 429; it is told not to."""
    gateway.config_path.write_text(config + f"errors: {{budgetStatus: {status}}}\n")
    try:
        eventually(lambda: gateway.chat(KEYS["spent"], max_tokens=50).status_code == status)
        sdk = Counted(gateway, KEYS["spent"])
        with pytest.raises(error) as raised:
            sdk.ask(max_tokens=50)
        assert (type(raised.value), raised.value.code, sdk.sent) == (error, "budget_exceeded", 1)
    finally:
        gateway.config_path.write_text(config)
        eventually(lambda: gateway.chat(KEYS["spent"], max_tokens=50).status_code == 403)


def test_a_wait_of_more_than_two_minutes_is_the_applications(gateway: LiveGateway, redis_here: RedisServer) -> None:
    """The SDK obeys 120 s at most: a breaker that stays open for longer is told to the application at once."""
    sdk = Counted(gateway)
    with shut(gateway, redis_here, 300), pytest.raises(openai.InternalServerError) as raised:
        sdk.ask(model="shut")
    assert (raised.value.code, sdk.sent) == ("no_healthy_upstream", 1)
    assert 120 < int(raised.value.response.headers["retry-after"]) <= 300


def test_a_line_that_is_too_slow_is_told_so(gateway: LiveGateway) -> None:
    """``request_timeout``: 408 that may be retried, and not a broken connection, although the SDK is still sending."""
    sdk = Counted(gateway, max_retries=0, transport=SlowUpload(15.0))
    with pytest.raises(openai.APIStatusError) as raised:
        sdk.ask()
    assert (raised.value.status_code, raised.value.code) == (408, "request_timeout")
    assert raised.value.response.headers["x-should-retry"] == "true"


def test_a_gateway_that_leaves_is_asked_again(config: str, tmp_path: Path) -> None:
    """``shutting_down``: 503, and in a second another instance answers."""
    with LiveGateway(config, database_url=f"sqlite:///{tmp_path}/events.sqlite3") as leaving, in_flight(leaving):
        leaving.signal(signal.SIGTERM)
        eventually(lambda: leaving.chat(max_tokens=5).status_code == 503)
        sdk = Counted(leaving)
        with pytest.raises(openai.InternalServerError) as raised:
            sdk.ask()
        held_to(Reason.SHUTTING_DOWN, raised.value, sdk)


# --- in real time --------------------------------------------------------------------------------


def test_i4_an_sdk_that_loses_patience_gets_the_one_answer(gateway: LiveGateway, llmock_here: LLMockServer) -> None:
    """With a key: its time-out, its retry, 409 with a second to wait, and then what the first request had asked for."""
    llmock_here.state.scenarios.add(Delay(3))
    sdk = Counted(gateway, patient=True, timeout=1.5, max_retries=30)
    raw = sdk.chat.completions.with_raw_response.create(model="mock", messages=HELLO, **named("impatient"))
    assert raw.parse().choices[0].message.content
    assert raw.headers["idempotent-replayed"] == "true"
    assert sdk.told[0] is None
    assert set(sdk.told[1:]) <= {"1000", None}  # a busy machine may lose patience again
    assert len(llmock_here.state.journal.records(wait=PATIENCE)) == 1


def test_an_sdk_that_loses_patience_without_a_key_asks_the_provider_again(
    gateway: LiveGateway, llmock_here: LLMockServer
) -> None:
    """What `docs/clients.md` warns of: three requests, three calls, each cancelled and charged."""
    llmock_here.state.scenarios.add(Delay(20, times=None))
    sdk = Counted(gateway, timeout=0.3)
    with pytest.raises(openai.APITimeoutError):
        sdk.ask(model="mock")
    assert sdk.sent == 3
    eventually(lambda: gateway.get("/v1/key").json()["use"][0]["in_flight"] == 0)


def test_r5_a_short_absence_of_redis_is_not_seen_through_an_sdk(gateway: LiveGateway, redis_here: RedisServer) -> None:
    """503 ``store_unavailable`` and a second: by then it is back."""
    sdk = Counted(gateway, patient=True, max_retries=20)
    redis_here.pause()
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(sdk.ask)
        try:
            eventually(lambda: sdk.waits)
        finally:
            redis_here.resume()
        assert asking.result().choices[0].message.content
    assert sdk.sent > 1
    assert set(sdk.waits) == {1.0}


def test_b3_held_money_comes_back_within_an_sdks_patience(gateway: LiveGateway, llmock_here: LLMockServer) -> None:
    """429 ``budget_reserved`` and a second: by then the other call has ended, and cost less than it held."""
    llmock_here.state.scenarios.add(Delay(8))
    sdk = Counted(gateway, KEYS["held"], patient=True, max_retries=40)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(gateway.chat, KEYS["held"], model="mock", max_tokens=50)
        eventually(lambda: gateway.get("/v1/key", KEYS["held"]).json()["budgets"][0]["held_usd"] != "0")
        assert sdk.ask().choices[0].message.content
        assert other.result().status_code == 200
    assert (sdk.sent > 1, set(sdk.waits)) == (True, {1.0})


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_r2_an_sdk_waits_out_the_minute_and_is_admitted(gateway: LiveGateway) -> None:
    """One call a minute: the second one takes a minute, one retry, and no longer than it was told."""
    sdk = Counted(gateway, KEYS["rated"], patient=True)
    eventually(lambda: gateway.chat(KEYS["rated"], max_tokens=5).status_code == 200, 70, every=1)
    began = time.monotonic()
    assert sdk.ask().choices[0].message.content
    assert sdk.sent == 2
    assert 50 < sdk.waits[0] <= 60
    assert time.monotonic() - began < sdk.waits[0] + 2


# --- what a provider does ------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_c5_a_providers_own_refusal_has_its_class_and_no_retry(
    gateway: LiveGateway, llmock_here: LLMockServer, status: int
) -> None:
    """``source: provider``: asked once, by the SDK and by the gateway."""
    llmock_here.state.scenarios.add(Fail(status, message="not like this", code="because", times=None))
    sdk = Counted(gateway)
    with pytest.raises(CLASSES.get(status, openai.APIStatusError), match="not like this") as raised:
        sdk.ask(model="mock")
    body: Any = raised.value.body
    assert (raised.value.status_code, raised.value.code, body["source"]) == (status, "because", "provider")
    assert (sdk.sent, len(llmock_here.state.journal.records(wait=PATIENCE))) == (1, 1)


@pytest.mark.parametrize("fault", ["disconnect", "truncate", "malformed"])
def test_c7_a_stream_that_breaks_is_an_exception_and_not_an_ending(
    gateway: LiveGateway, llmock_here: LLMockServer, fault: Any
) -> None:
    """`APIError` after the chunks that came; nothing is asked again, as text has been shown already."""
    llmock_here.state.scenarios.add(StreamFault(fault, after_chunks=3))
    sdk = Counted(gateway)
    chunks: list[Any] = []
    with pytest.raises(openai.APIError) as raised:
        chunks.extend(sdk.ask(model="mock", stream=True))  # `extend` keeps what came before the exception
    assert type(raised.value) is openai.APIError
    assert raised.value.code == "upstream_error"
    assert chunks
    assert (sdk.sent, len(llmock_here.state.journal.records(wait=PATIENCE))) == (1, 1)


# --- the plain way -------------------------------------------------------------------------------


def test_openai_sdk_calls_streams_embeds_and_lists(gateway: LiveGateway) -> None:
    """The plain way through every endpoint."""
    sdk = Counted(gateway)
    answer = sdk.ask()
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens == 5
    assert answer._request_id
    chunks = list(sdk.ask(stream=True))
    assert chunks[-1].choices[0].finish_reason == "length"
    assert all(chunk.usage is None for chunk in chunks)
    with_usage = list(sdk.ask(stream=True, stream_options={"include_usage": True}))
    assert with_usage[-1].usage.completion_tokens == 5
    assert len(sdk.embeddings.create(model="m", input="hi").data[0].embedding) == 1_536
    assert "m" in [model.id for model in sdk.models.list()]
    assert sdk.models.retrieve("m").id == "m"


def test_what_applications_configure_in_their_sdk_changes_nothing(gateway: LiveGateway) -> None:
    """A slash too many, a query, an organization, headers of their own: the call is the same call."""
    options: dict[str, Any] = {
        "organization": "org-1",
        "project": "project-1",
        "default_query": {"api-version": "2026-01-01"},
        "default_headers": {"Accept": "*/*", "X-Company": "acme", "Cookie": "a=b"},
    }
    sdk = Counted(gateway, **options)
    sdk.base_url = gateway.url + "//v1/"
    assert sdk.ask().choices[0].message.content
    assert sdk.models.list().data
    assert sdk.models.retrieve("m").id == "m"
    assert sdk.sent == 3  # no redirects either


def test_the_sdks_helpers_work(gateway: LiveGateway, llmock_here: LLMockServer) -> None:
    """`parse` into a class of the application's, and the `stream` helper with its events."""

    class City(BaseModel):
        name: str

    llmock_here.state.scenarios.add(Reply(text='{"name": "Rome"}', times=None))
    sdk = Counted(gateway)
    parsed = sdk.chat.completions.parse(model="mock", messages=HELLO, response_format=City)
    assert parsed.choices[0].message.parsed == City(name="Rome")
    with sdk.chat.completions.stream(model="mock", messages=HELLO, response_format=City) as stream:
        kinds = [event.type for event in stream]
        assert stream.get_final_completion().choices[0].message.parsed == City(name="Rome")
    assert kinds[-1] == "content.done"
