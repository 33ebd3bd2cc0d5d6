"""Upstreams fail in every way they can: words, deadlines, and books that agree (C6, C7, C8, S4, B4, B9, A1)."""

import concurrent.futures
import itertools
import time
from collections.abc import Iterable
from typing import Any

import pytest

from perpetuo.domain.model.errors import Reason
from tests.evil import Peer
from tests.integration.faults.traffic import Seen, Traffic, audit, broken_by, in_the_contract, judge, reason_of, rows_of
from tests.integration.faults.upstreams import (
    FAULTS,
    TIMEOUT,
    WELL,
    Act,
    Fault,
    Upstreams,
    bomb,
    late,
    refusal,
    say,
)
from tests.integration.gateway.test_upstreams import GOOD, whole
from tests.live import LiveGateway, eventually, rows
from tests.servers import PostgresServer

EVERY = {**FAULTS, "refusing": Fault(lambda peer: None), "black-hole": Fault(lambda peer: None)}
CALLS = (("plain", "keyed-stream"), ("keyed", "stream"))


def kinds_of(fault: str) -> tuple[str, ...]:
    """A plain call and a stream, one of them with an idempotency key."""
    return CALLS[list(EVERY).index(fault) % 2]


def call(gateway: LiveGateway, fault: str, kind: str) -> Seen:
    """One call of a kind to a model that fails so."""
    name = f"{fault}-{kind}"
    headers = {"x-request-id": name, "x-perpetuo-tag": "upstreams"}
    if "keyed" in kind:
        headers["x-idempotency-key"] = name
    streamed: dict[str, Any] = {"stream": True} if "stream" in kind else {}
    began = time.monotonic()
    answer = gateway.chat(headers=headers, model=fault, max_tokens=5, **streamed)
    return Seen(name, "stream" if streamed else "plain", time.monotonic() - began, answer)


@pytest.fixture(scope="module")
def seen(shared: LiveGateway) -> dict[tuple[str, str], Seen]:
    """Every kind of call to every fault, all at once."""
    asked = [(fault, kind) for fault in EVERY for kind in kinds_of(fault)]
    bomb()  # not while the clients wait
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        return dict(zip(asked, pool.map(lambda one: call(shared, *one), asked), strict=True))


@pytest.mark.parametrize("fault", EVERY)
def test_c6_c7_c8_s4_clients_are_told_what_the_table_says(
    gateway: LiveGateway, seen: dict[tuple[str, str], Seen], fault: str
) -> None:
    """Status and code, or one error event; in time; nothing of the upstream's own."""
    expected = EVERY[fault]
    for kind in kinds_of(fault):
        one = seen[fault, kind]
        in_the_contract(one)
        assert one.answer is not None
        assert "boom" not in one.answer.text
        allowed = {expected.stream if one.kind == "stream" else expected.plain}
        assert told(one) in (allowed | {TIMEOUT} if expected.long else allowed), one.answer.text
        if one.kind == "stream":
            assert one.good == (expected.breaks or expected.stream is None)


def told(one: Seen) -> Reason | None:
    if one.whole:
        return None
    assert one.answer is not None
    return Reason(broken_by(one.answer.text)) if one.good else reason_of(one)


STORM = [refusal(status) for status in (b"500 Oops", b"503 Busy", b"529 Overloaded")]


def in_turn(acts: Iterable[Act]) -> Act:
    """One after the other, over and over."""
    turns = itertools.cycle(acts)

    def act(peer: Peer) -> bool | None:
        return next(turns)(peer)

    return act


STORM_KINDS: dict[str, dict[str, Any]] = {
    "alone": {"model": "stormy"},
    "covered": {"model": "covered"},
    "stream": {"model": "covered", "stream": True},
}


def test_c1_c6_a_storm_of_500s_503s_and_529s_is_not_multiplied_and_passes(
    gateway: LiveGateway, upstreams: Upstreams, postgres: PostgresServer
) -> None:
    """Who has another target notices nothing; the others get 502 or 503; few calls go into the storm."""
    upstreams.acts["stormy"] = WELL
    with Traffic(gateway, "storm", kinds=STORM_KINDS) as traffic:
        traffic.await_good()
        upstreams.acts["stormy"] = in_turn(STORM)
        began, calls = time.monotonic(), len(traffic.seen)
        eventually(lambda: Reason.NO_HEALTHY_UPSTREAM in traffic.reasons())
        time.sleep(1)
        ended, calls = time.monotonic(), len(traffic.seen) - calls
        into_it = sum(1 for name, at in upstreams.asked if name == "stormy" and began <= at <= ended)
        upstreams.acts["stormy"] = WELL
        traffic.await_good(kind="alone")
    assert into_it <= calls * 1.1 + 3 * (ended - began) + 4
    assert all(one.good for one in traffic.seen if one.kind != "alone")
    judge(traffic, postgres.url, errors=frozenset({Reason.UPSTREAM_ERROR, Reason.NO_HEALTHY_UPSTREAM}))


ODD = {
    "nul-in-a-code": whole(b'{"error":{"message":"no","code":"a\\u0000b"}}', b"400 No"),
    "nul-in-a-type": whole(b'{"error":{"message":"no","type":"a\\u0000b"}}', b"400 No"),
    "endless-code": whole(b'{"error":{"message":"no","code":"' + b"x" * 500_000 + b'"}}', b"400 No"),
    "surrogate-in-a-code": whole(b'{"error":{"message":"no","code":"\\ud800"}}', b"400 No"),
    "objects-for-text": whole(b'{"error":{"message":{"a":1},"code":[1],"type":7}}', b"400 No"),
    "endless-request-id": whole(GOOD, b"200 OK", b"x-request-id: " + b"y" * 20_000),
    "bytes-in-a-request-id": whole(GOOD, b"200 OK", b"x-request-id: \xff\xfe"),
    "negative-usage": whole(GOOD.replace(b":3", b":-3")),
    "usage-beyond-belief": whole(GOOD.replace(b":3", b":9007199254740990")),
}


def test_a1_whatever_text_a_provider_sends_its_call_is_a_row(
    gateway: LiveGateway, upstreams: Upstreams, postgres: PostgresServer
) -> None:
    """What it names is stored printable, short, or not at all: no row is refused by PostgreSQL for it."""
    before = rows(postgres.url, "select count(*) from events_rejected")
    try:
        for name, answer in ODD.items():
            upstreams.acts["slow"] = say(answer)
            gateway.chat(model="slow", max_tokens=5, headers={"x-perpetuo-tag": "odd", "x-request-id": name})
    finally:
        upstreams.acts["slow"] = late(0.3)
    eventually(lambda: set(rows_of(postgres.url, "odd")) == set(ODD))
    assert rows(postgres.url, "select count(*) from events_rejected") == before


def test_a1_b4_every_failed_call_is_one_row_nothing_stays_held_and_the_counter_agrees(
    gateway: LiveGateway, seen: dict[tuple[str, str], Seen], postgres: PostgresServer
) -> None:
    """Whatever its upstream did, and with whichever attempts: settled once, at what the row says."""
    audit(gateway, postgres.url, "upstreams", list(seen.values()))
