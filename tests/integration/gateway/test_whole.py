"""The gateway as it is run: real processes, real Redis, real PostgreSQL, the demo provider."""

import concurrent.futures
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.live import KEY, LiveGateway, config_text, eventually, rows

DEMO = config_text(
    providers="  - {id: demo, kind: demo}",
    models="  - {name: m, targets: [{provider: demo, model: gpt-3.5-turbo}]}",
    limits="{rateLimitMin: 100, budgetDay: 50}",
)


@pytest.fixture
def gateway(redis_url: str, postgres_url: str) -> Iterator[LiveGateway]:
    with LiveGateway(DEMO, redis_url=redis_url, database_url=postgres_url, workers=2) as running:
        yield running


def test_r1_a_hundred_pass_the_next_waits_exactly_as_told(gateway: LiveGateway) -> None:
    """100 of 105 concurrent calls over two workers pass; retry-after-ms, waited, admits."""
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: gateway.chat(max_tokens=5), range(105)))
    statuses = sorted(a.status_code for a in answers)
    assert statuses == [200] * 100 + [429] * 5, [a.text for a in answers if a.status_code not in (200, 429)]
    refused = gateway.chat(max_tokens=5)
    wait = int(refused.headers["retry-after-ms"]) / 1_000
    assert 0 < wait <= 60
    assert refused.headers["x-should-retry"] == "true"


def test_i2_a_replay_over_two_workers_has_the_same_bytes_and_one_row(gateway: LiveGateway, postgres_url: str) -> None:
    """Ten times the same key: one upstream call, ten equal answers, one row."""
    answers = [gateway.chat(headers={"x-idempotency-key": "k"}, max_tokens=9) for _ in range(10)]
    assert {a.content for a in answers} == {answers[0].content}
    assert [a.headers.get("idempotent-replayed") for a in answers] == [None] + ["true"] * 9
    eventually(lambda: rows(postgres_url, "select count(*) from events")[0][0] == 1)
    assert rows(postgres_url, "select idempotency, outcome from events") == [("stored", "completed")]


def test_a4_events_are_in_sql_within_two_seconds(gateway: LiveGateway, postgres_url: str) -> None:
    """What a client was answered is a row soon after, with its cost to the nano."""
    answer = gateway.chat(max_tokens=5)
    began = time.monotonic()
    (row,) = eventually(lambda: rows(postgres_url, "select cost_nano_usd, request_id from events"), 2.0)
    assert time.monotonic() - began < 2
    assert row[1] == answer.headers["x-request-id"]
    assert float(answer.headers["x-perpetuo-cost-usd"]) == pytest.approx(row[0] / 1e9)


def test_s6_a_removed_key_stops_working_within_a_second(gateway: LiveGateway) -> None:
    """Rewriting the file is enough, on all workers."""
    assert gateway.chat(max_tokens=5).status_code == 200
    gateway.config_path.write_text(DEMO.replace(KEY, "sk-another-key-0123456789"))
    time.sleep(1.0)
    assert {gateway.chat(max_tokens=5).status_code for _ in range(10)} == {401}
    assert gateway.chat("sk-another-key-0123456789", max_tokens=5).status_code == 200


def test_o3_metrics_are_summed_over_workers(gateway: LiveGateway) -> None:
    """Whoever is scraped tells of all."""
    for _ in range(20):
        gateway.chat(max_tokens=5)
    text = httpx.get(gateway.url + "/metrics").text
    assert 'perpetuo_requests_total{model="m",provider="demo",status="200",tenant="acme"} 20.0' in text


def test_o1_sigterm_ends_cleanly(gateway: LiveGateway) -> None:
    """Exit 0 after the drain."""
    assert gateway.chat(max_tokens=5).status_code == 200
    assert gateway.stop() == 0
