"""
What do clients see while something fails, and do the books agree afterwards?

`Traffic` calls a gateway from several threads until it is stopped, and keeps what each client saw. `judge` holds that
against the rules that no fault may break:

Rule 1: every answer is whole and good, or a row of the contract's error table; no traceback, no host of ours.
Rule 2: nobody waits past the deadline, and no connection breaks.
Rule 3: an answer is one row, a refusal is none; never two.
Rule 4: nothing stays held, and the counter is the sum of the rows.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from types import TracebackType
from typing import Any, Self

import attrs
import httpx

from perpetuo.domain.model.errors import Reason
from tests.integration.gateway.contract import check
from tests.live import KEY, LiveGateway, eventually, rows
from tests.patience import PATIENCE

DEADLINE = 60.0
"""Seconds a call may take here: up to 40 for its provider, and what a busy machine adds. Clients wait longer."""
CALLS_OF_A_CONNECTION = 3
"""Few, so that every worker gets some."""
KINDS: dict[str, dict[str, Any]] = {
    "plain": {"model": "m"},
    "stream": {"model": "m", "stream": True},
    "keyed": {"model": "m"},
    "slow": {"model": "slow"},
}
STORE_REASONS = {Reason.STORE_UNAVAILABLE, Reason.AUDIT_UNAVAILABLE, Reason.SHUTTING_DOWN}
"""Told before anything is sent: no row."""
FREE_REASONS = STORE_REASONS | {Reason.NO_HEALTHY_UPSTREAM, Reason.UPSTREAM_RATE_LIMITED, Reason.UPSTREAM_CREDENTIALS}
"""Told before or after the admission: a row or none."""


@attrs.frozen
class Seen:
    """One call as its client saw it; ``answer`` is ``None`` when its connection broke."""

    request_id: str
    kind: str
    seconds: float
    answer: httpx.Response | None
    problem: str = ""
    ended: float = attrs.field(factory=time.monotonic)

    @property
    def good(self) -> bool:
        return self.answer is not None and self.answer.status_code == 200

    @property
    def whole(self) -> bool:
        """All of a good answer; of a stream its ``[DONE]`` too."""
        if self.answer is None or not self.good:
            return False
        return self.kind != "stream" or self.answer.text.endswith("data: [DONE]\n\n")


class Traffic:
    """Clients that call one after the other, each on connections of its own, until the end of the ``with``."""

    def __init__(
        self,
        gateway: LiveGateway,
        name: str,
        clients: int = 4,
        pause: float = 0.02,
        kinds: Mapping[str, Mapping[str, Any]] = KINDS,
    ) -> None:
        self.gateway = gateway
        self.name = name
        self.seen: list[Seen] = []
        self._kinds = kinds
        self._pause = pause
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._call_on, args=(i,), daemon=True) for i in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Make no further call."""
        self._over.set()
        for thread in self._threads:
            thread.join(2 * DEADLINE)

    def statuses(self) -> Counter[int]:
        return Counter(one.answer.status_code if one.answer is not None else 0 for one in self.seen)

    def reasons(self) -> set[Reason]:
        """What those were told that got no answer."""
        return {reason_of(one) for one in list(self.seen) if one.answer is not None and not one.good}

    def await_good(self, more: int = 8, seconds: float = PATIENCE, kind: str | None = None) -> None:
        """Until the last so many calls (of a kind) that were begun after this were all good: at every worker."""
        before = len(self.seen)

        def calm() -> bool:
            since = [one for one in self.seen[before:] if kind in (None, one.kind)]
            return len(since) >= more and all(one.good for one in since[-more:])

        eventually(calm, seconds)

    def _call_on(self, client: int) -> None:
        kinds = list(self._kinds)
        number = 0
        while not self._over.is_set():
            with httpx.Client(timeout=1.5 * DEADLINE, verify=False) as connection:
                for _ in range(CALLS_OF_A_CONNECTION):
                    kind = kinds[(client + number) % len(kinds)]
                    self.seen.append(self._call(connection, kind, f"{self.name}-{client}-{number}"))
                    number += 1
                    if self._over.wait(self._pause):
                        break

    def _call(self, connection: httpx.Client, kind: str, request_id: str) -> Seen:
        headers = {"authorization": f"Bearer {KEY}", "x-request-id": request_id, "x-perpetuo-tag": self.name}
        if kind == "keyed":
            headers["x-idempotency-key"] = request_id
        body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, **self._kinds[kind]}
        began = time.monotonic()
        try:
            answer = connection.post(self.gateway.url + "/v1/chat/completions", headers=headers, json=body)
        except httpx.HTTPError as error:
            return Seen(request_id, kind, time.monotonic() - began, None, repr(error))
        return Seen(request_id, kind, time.monotonic() - began, answer)


def judge(traffic: Traffic, database: str, *, forgetful: bool = False, errors: frozenset[Reason] = frozenset()) -> None:
    """
    Do all rules hold for what clients saw of the stores? ``errors``: reasons beside the stores' own that may be told.

    ``forgetful``: Redis lost its data, and with it events that SQL did not have yet: an answer is at most one row.
    """
    for one in traffic.seen:
        in_the_contract(one)
        assert one.good or reason_of(one) in STORE_REASONS | errors, one
    audit(traffic.gateway, database, traffic.name, traffic.seen, forgetful=forgetful)


def in_the_contract(one: Seen) -> None:
    """Rules 1 and 2; a stream that broke has said so in an error event."""
    assert one.answer is not None, one
    assert one.seconds < DEADLINE, one
    text = one.answer.text
    assert "Traceback" not in text
    assert "127.0.0.1" not in text
    if not one.good:
        check(one.answer, reason_of(one))
    elif one.kind == "stream" and not one.whole:
        Reason(broken_by(text))


def reason_of(one: Seen) -> Reason:
    assert one.answer is not None, one
    return Reason(one.answer.json()["error"]["code"])


def broken_by(text: str) -> str:
    """The code of the error event that a stream ends in."""
    assert "[DONE]" not in text
    code: str = json.loads(text.rstrip().rpartition("data: ")[2])["error"]["code"]
    return code


def audit(
    gateway: LiveGateway,
    database: str,
    tag: str,
    seen: list[Seen],
    *,
    forgetful: bool = False,
    patience: float = PATIENCE,
) -> None:
    """Rules 3 and 4, for the calls of one tag."""
    asked_a_provider = {one.request_id for one in seen if one.good or reason_of(one) not in FREE_REASONS}
    free = {one.request_id for one in seen if not one.good and reason_of(one) in STORE_REASONS}

    def wrong() -> str | None:
        found = rows_of(database, tag)
        double = [name for name, count in found.items() if count > 1]
        assert not double, f"written down twice: {double}"
        assert not free & set(found), f"refused, and yet a row: {free & set(found)}"
        missing = asked_a_provider - set(found)
        return _books(gateway, database) or (f"no row: {missing}" if missing and not forgetful else None)

    until = time.monotonic() + patience
    while problem := wrong():
        assert time.monotonic() < until, problem
        time.sleep(0.1)


def rows_of(database: str, tag: str) -> Counter[str]:
    """Rows of each request id."""
    query = f"select request_id, count(*) from events where tag = '{tag}' group by 1"  # noqa: S608
    return Counter({str(name): int(count) for name, count in rows(database, query)})


def _books(gateway: LiveGateway, database: str) -> str | None:
    """What is wrong with the tenant's day: something held, or a counter that is not the sum of the rows."""
    answer = gateway.get("/v1/key")
    if answer.status_code != 200:
        return f"no standing: {answer.text}"
    day = answer.json()["budgets"][0]
    of_the_day = f"tenant_id = 'acme' and budget_day = '{day['window']}'"
    total = int(rows(database, f"select coalesce(sum(cost_nano_usd), 0) from events where {of_the_day}")[0][0])  # noqa: S608
    counted = int(Decimal(day["used_usd"]) * 10**9)
    if Decimal(day["held_usd"]) != 0:
        return f"held: {day['held_usd']}"
    return None if counted == total else f"counted {counted}, rows {total}"
