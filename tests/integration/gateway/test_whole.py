"""
The gateway as it is run: two gateways of two workers each, one Redis, one PostgreSQL, the demo provider.

What needs to know what reached the provider is in `tests/integration/cluster`.
"""

import concurrent.futures
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from perpetuo.domain.model.errors import Reason
from tests.integration.gateway.contract import check
from tests.live import OTHER_KEY, LiveGateway, config_text, eventually
from tests.patience import ROUNDS, best
from tests.servers import RedisServer

BUDGETED, COUNTED = "sk-test-budgeted-0123456789", "sk-test-counted-0123456789"
CONFIG = config_text(
    providers="  - {id: demo, kind: demo}",
    models="""
  - {name: m, targets: [{provider: demo, model: m}], maxOutputTokens: 99,
     price: {inputPerMTok: 1000, outputPerMTok: 1000}}
  - {name: stall, targets: [{provider: demo, model: demo-stall}], maxOutputTokens: 99,
     price: {inputPerMTok: 1000, outputPerMTok: 1000}}""",
    more=f"""
  - {{id: budgeted, plan: pro, limits: {{budgetDay: 7}}, apiKeys: ["{BUDGETED}"]}}
  - {{id: counted, plan: pro, apiKeys: ["{COUNTED}"]}}
redis: {{timeout: 10s}}""",
)
Cluster = tuple[LiveGateway, LiveGateway]


@pytest.fixture(scope="module")
def cluster(redis_here: RedisServer, database_here: str) -> Iterator[Cluster]:
    both = [LiveGateway(CONFIG, redis_url=redis_here.url, database_url=database_here, workers=2) for _ in range(2)]
    try:
        for gateway in both:
            gateway.start(wait=False)
        for gateway in both:
            gateway.wait_ready()
        yield both[0], both[1]
    finally:
        for gateway in both:
            gateway.close()


def at_once(calls: int, ask: Callable[[int], Any], threads: int = 16) -> list[Any]:
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        return list(pool.map(ask, range(calls)))


def test_b3_exactly_as_many_calls_as_the_budget_holds_reach_the_provider(cluster: Cluster) -> None:
    """Twenty at once, each holding a known amount: ⌊m / h⌋ run, the others hear ``budget_reserved``."""
    body = {"model": "stall", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50, "stream": True}
    headers = {"authorization": f"Bearer {BUDGETED}"}
    with httpx.Client(timeout=60, verify=False, limits=httpx.Limits(max_connections=100)) as client:

        def begin(i: int) -> httpx.Response:
            url = cluster[i % 2].url + "/v1/chat/completions"
            answer = client.send(client.build_request("POST", url, headers=headers, json=body), stream=True)
            if answer.status_code != 200:
                answer.read()
            return answer

        answers = at_once(20, begin, 20)
        sample = next(a for a in answers if a.status_code == 429)
        message = check(sample, Reason.BUDGET_RESERVED)["message"]
        hold = float(message.rpartition("may cost up to ")[2].split()[0])
        assert [a.status_code for a in answers].count(200) == int(7 // hold)
        for answer in answers:
            answer.close()
    eventually(lambda: cluster[0].get("/v1/key", BUDGETED).json()["budgets"][0]["held_usd"] == "0")


def test_i1_i2_a_stream_replays_byte_for_byte_under_either_header(cluster: Cluster) -> None:
    """Through another gateway too; [DONE] included; the replay is told in its headers."""
    first = cluster[0].chat(headers={"x-idempotency-key": "streamed"}, max_tokens=9, stream=True)
    second = cluster[1].chat(headers={"idempotency-key": '"streamed"'}, max_tokens=9, stream=True)
    assert first.text.endswith("data: [DONE]\n\n")
    assert second.content == first.content
    assert (first.headers["x-perpetuo-idempotency"], second.headers["x-perpetuo-idempotency"]) == ("stored", "replayed")
    assert second.headers["content-type"] == first.headers["content-type"]


def test_o3_metrics_are_summed_over_workers(cluster: Cluster) -> None:
    """Whoever is scraped tells of all workers of its gateway."""
    at_once(20, lambda _: cluster[0].chat(COUNTED, max_tokens=5))
    counted = 'perpetuo_requests_total{model="m",provider="demo",status="200",tenant="counted"} 20.0'
    idle = "perpetuo_in_flight_requests 0.0"
    eventually(lambda: all(line in cluster[0].get("/metrics").text for line in (counted, idle)))


def test_s6_a_removed_key_stops_working_within_a_second(cluster: Cluster) -> None:
    """Rewriting the file is enough, on all workers; the new key works."""
    gateway = cluster[1]
    pairs = itertools.pairwise([COUNTED, *(f"sk-test-replaced-{number}-0123456789" for number in range(ROUNDS))])

    def refused() -> float:
        old, new = next(pairs)
        gateway.config_path.write_text(CONFIG.replace(COUNTED, new))
        written = time.monotonic()
        eventually(lambda: {a.status_code for a in at_once(8, lambda _: gateway.chat(old))} == {401}, every=0)
        took = time.monotonic() - written
        eventually(lambda: gateway.chat(new, max_tokens=5).status_code == 200)
        return took

    best(1, refused)


def test_s2_one_tenants_keys_and_calls_are_not_anothers(cluster: Cluster) -> None:
    """The same idempotency key of two tenants is two keys; a request id of another's is unknown."""
    headers = {"x-idempotency-key": "shared"}
    mine = cluster[0].chat(headers=headers, max_tokens=5)
    theirs = cluster[0].chat(OTHER_KEY, headers=headers, max_tokens=7)
    assert (theirs.status_code, theirs.headers["x-perpetuo-idempotency"]) == (200, "stored")
    request_id = mine.headers["x-request-id"]
    eventually(lambda: cluster[0].get(f"/v1/requests/{request_id}").status_code == 200)
    assert cluster[0].get(f"/v1/requests/{request_id}", OTHER_KEY).status_code == 404
