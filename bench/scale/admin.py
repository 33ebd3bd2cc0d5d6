"""
How long does an operator wait at a million events?

Every page under ``/admin`` and every query under ``/admin/api``, events under each combination of up to three filters,
by HTTP from a real gateway. Each is asked once, and what was too slow once more, when its template has been read and a
neighbour on the machine may have gone: what counts is the slowest, not the usual one.
"""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import combinations, product
from urllib.parse import urlencode

import attrs
import httpx

from bench.scale.fill import DAYS, LARGE, OLD_MODEL
from perpetuo.adapters.sql.ids import floor_id
from tests.live import ADMIN_KEY, LiveGateway

BOUND_MS = 300
FILTERS: dict[str, tuple[str, ...]] = {
    "tenant_id": (LARGE, "t0007", "nobody"),
    "key_name": ("key-1", "key-2", "key-9"),
    "model": ("gpt-4o", OLD_MODEL, "gpt-9"),
    "provider": ("openai", "azure", "none"),
    "status": ("200", "502", "418"),
    "outcome": ("completed", "failed", "abandoned"),
    "kind": ("chat", "embeddings", "admin"),
    "tag": ("job-3", "job-1000000"),
}
"""A frequent value, a rare one, and one that few or no rows have."""
PLACES = (
    "",
    "/tenants",
    "/tenants?page=150",
    "/tenants?sort=id&page=150",
    f"/tenants/{LARGE}",
    "/tenants/t0007",
    "/events",
    "/refusals",
    "/providers",
    "/providers/chat",
)
ONLY_API = ("/system", "/refusals?tenant_id=t0007", "/overview", "/overview?span=24h", "/overview?span=7d")


@attrs.frozen
class Asked:
    """One address, how long its answer took, how many rows it had, and whether it left older ones to the next page."""

    address: str
    ms: float
    rows: int
    cut: bool = False


def ask_all(gateway: LiveGateway, most: int = 3) -> list[Asked]:
    """Everything, with up to ``most`` filters at once, after a first one, which opens a connection to SQL."""
    with httpx.Client(base_url=gateway.url, headers={"authorization": f"Bearer {ADMIN_KEY}"}, timeout=30) as client:
        found = [_ask(client, "/admin/api/events")]
        found += [_ask(client, address) for address in _others(client)]
        found += [_ask(client, f"/admin/api/events?{urlencode(query)}") for query in _queries(most)]
        return [min(one, _ask(client, one.address), key=_taken) if one.ms >= BOUND_MS else one for one in found]


def _taken(one: Asked) -> float:
    return one.ms


def _ask(client: httpx.Client, address: str) -> Asked:
    began = time.perf_counter()
    answer = client.get(address)
    taken = (time.perf_counter() - began) * 1000
    assert answer.status_code == 200, f"{address}: {answer.status_code} {answer.text[:200]}"
    if not address.startswith("/admin/api"):
        assert "can't be shown" not in answer.text, address
        return Asked(address, taken, answer.text.count("<tr>"))
    found = answer.json()
    assert not found.get("unavailable"), f"{address}: {found['unavailable']}"
    return Asked(address, taken, len(found.get("items", ())), found.get("looked_back_to") is not None)


def _others(client: httpx.Client) -> Iterator[str]:
    last = client.get("/admin/api/events").json()["items"][-1]
    for place in PLACES:
        yield f"/admin{place}"
        yield f"/admin/api{place}" if place else "/admin/api/overview"
    yield from (f"/admin/api{place}" for place in ONLY_API)
    for page in ("/admin", "/admin/api"):
        yield f"{page}/events/{last['id']}"
        yield f"{page}/events?{urlencode({'request_id': last['request_id']})}"
        yield f"{page}/events?request_id=nothing"
        yield from (f"{page}/events?{urlencode(query)}" for query in _filters(1))


def _filters(most: int) -> Iterator[dict[str, str]]:
    for size in range(1, most + 1):
        for names in combinations(FILTERS, size):
            for values in product(*(FILTERS[name] for name in names)):
                yield dict(zip(names, values, strict=True))


def _queries(most: int) -> Iterator[dict[str, str]]:
    """Each combination from the newest row on, and those of two from the middle of the time."""
    yield from _filters(most)
    before = middle_id(datetime.now(UTC), DAYS / 2)
    yield {"before": before}
    yield from ({**query, "before": before} for query in _filters(2))


def middle_id(newest: datetime, days: float) -> str:
    """The id of a row of so long ago, as paging for long would come to it."""
    return floor_id(int(newest.timestamp() * 1000 - days * 86_400_000))


def slowest(asked: Sequence[Asked], count: int = 8) -> list[Asked]:
    return sorted(asked, key=lambda one: -one.ms)[:count]
