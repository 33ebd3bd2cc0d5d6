"""A small history that kept every promise, for tests that plant one lie in it."""

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import msgspec

from tests.chaos.evidence import Evidence, Fault, Limit, Price, Row
from tests.chaos.history import Answered, Asked, Exchange
from tests.chaos.ledger_log import Admission, Height, LedgerLog
from tests.journal_process import Entry

DAY = "2026-11-23"
T0 = 1_795_600_000.0
PRICE = Price(100, 1_000)
WAIT = {"x-should-retry": "true", "retry-after": "1", "retry-after-ms": "1000"}


def asked(request: str, at: float, tenant: str = "acme", **more: Any) -> Asked:
    said = f"canary-{tenant}-{more.get('idem') or request}"
    return Asked(id=request, at=T0 + at, gateway=0, tenant=tenant, key="main", said=said, **more)


def ok(one: Asked, call: str, took: float = 0.5, **more: Any) -> Answered:
    return Answered(
        id=one.id, at=one.at + took, what="ok", status=200, digest=f"of {call}", call=call, said=one.said,
        canaries=(one.tenant,), **more,
    )  # fmt: skip


def refused(one: Asked, status: int, kind: str, code: str, headers: dict[str, str]) -> Answered:
    return Answered(
        id=one.id, at=one.at + 0.1, what="fail", status=status, type=kind, code=code, source="gateway", headers=headers
    )


def entry(call: str, started: float, outcome: str = "complete", **more: Any) -> Entry:
    facts: dict[str, Any] = {
        "call": call, "number": 1, "model": "m", "started": T0 + started, "ended": T0 + started + 0.3, "status": 200,
        "stream": False, "outcome": outcome, "input_tokens": 10, "output_tokens": 5, "reported": True,
        "authorization": "", "bytes_in": 40, **more,
    }  # fmt: skip
    return msgspec.convert(facts, Entry)


def row(one: Asked, call: str, **more: Any) -> Row:
    facts: dict[str, Any] = {
        "id": call, "revision": 1, "occurred_at": one.at, "tenant": one.tenant, "key": "main", "request": one.id,
        "model": "m", "upstream_model": "m", "status": 200, "outcome": "completed", "error_code": None, "attempts": 1,
        "cost": 6_000, "hold": 50_000, "basis": "reported", "budget_day": DAY, "idempotency": "none", "latency": 0.4,
        **more,
    }  # fmt: skip
    return Row(**facts)


def admission(one: Asked, call: str, **more: Any) -> Admission:
    at_us = round((one.at + 0.01) * 1e6)
    return Admission(call, one.tenant, "main", one.id, at_us, 50_000, **{"revision": 1, **more})


def clean() -> Evidence:
    """
    What happens: r1 a call; r2 with key k1, replayed to r3; r4 of a tenant with one call a minute, and r5 refused;
    r6 with key k2 whose worker is killed, run again for r7; r8 whose provider fails; r9 while Redis is away; r10 whose
    client leaves; r11 without usage.
    """
    r1, r2, r3 = asked("r1", 0), asked("r2", 1, idem="k1", stream=True), asked("r3", 2, idem="k1", stream=True)
    r4, r5 = asked("r4", 3, "tight"), asked("r5", 4, "tight")
    r6, r7, r8 = asked("r6", 5, idem="k2"), asked("r7", 13, idem="k2"), asked("r8", 14)
    r9, r10, r11 = asked("r9", 15), asked("r10", 16, stream=True, leaves=True), asked("r11", 17)
    exchanges = [
        Exchange(r1, ok(r1, "c1", headers={"x-perpetuo-cost-usd": "0.000006"})),
        Exchange(r2, ok(r2, "c2")),
        Exchange(r3, ok(r3, "c2", headers={"idempotent-replayed": "true"})),
        Exchange(r4, ok(r4, "c4")),
        Exchange(r5, refused(r5, 429, "rate_limit_error", "rate_limit_exceeded", WAIT)),
        Exchange(r6, Answered(id="r6", at=r6.at + 1, what="lost", how="reset")),
        Exchange(r7, ok(r7, "c7")),
        Exchange(r8, refused(r8, 502, "upstream_error", "upstream_error", {"x-should-retry": "false"})),
        Exchange(r9, refused(r9, 503, "store_error", "store_unavailable", WAIT)),
        Exchange(r10, Answered(id="r10", at=r10.at + 1, what="lost", how="left")),
        Exchange(r11, ok(r11, "c11")),
    ]
    rows = [
        row(r1, "c1"),
        row(r2, "c2", idempotency="stored"),
        row(r4, "c4"),
        row(r6, "c6", outcome="abandoned", basis="bound", cost=50_000, status=0, latency=0.0, attempts=0),
        row(r7, "c7", idempotency="reexecuted"),
        row(r8, "c8", outcome="failed", status=502, error_code="upstream_error", basis="estimated", cost=1_000),
        row(r10, "c10", outcome="cancelled", status=499, basis="estimated", cost=9_000),
        row(r11, "c11", basis="estimated", cost=9_000),
    ]
    entries = [entry("c1", 0.1), entry("c2", 1.1), entry("c4", 3.1), entry("c6", 5.1, "left", reported=False)]
    entries += [entry("c7", 13.1), entry("c8", 14.1, "error", status=500, output_tokens=0, reported=False)]
    entries += [entry("c10", 16.1, "left", output_tokens=2, reported=False), entry("c11", 17.1, reported=False)]
    asks = {"c1": r1, "c2": r2, "c4": r4, "c6": r6, "c7": r7, "c8": r8, "c10": r10, "c11": r11}
    admissions = {call: admission(one, call) for call, one in asks.items()}
    admissions["c9"] = admission(r9, "c9", revision=0, cancelled=True)
    spent = {"acme": 87_000, "tight": 6_000}
    counters = {(f"{s}{k}", w): (n, 0) for s, n in spent.items() for k in ("", "/main") for w in (DAY, DAY[:7])}
    return Evidence(
        exchanges=exchanges,
        entries=entries,
        rows=rows,
        ledger=LedgerLog(admissions=admissions, heights=[Height("acme", DAY, 130_000, T0 + 18)]),
        counters=counters,
        limits=[Limit(T0 - 60, "tight", rate=1), Limit(T0 - 60, "acme", budget=200_000)],
        faults=[Fault("kill_worker", T0 + 5.9, T0 + 5.9, 0)],
        prices={"m": PRICE},
        left={"holds": 0, "in_flight": 0, "events": 0, "set_aside": 0},
    )


Lie = Callable[[Evidence], Evidence]


def _changed(found: Sequence[Any], name: str, value: str, **change: Any) -> list[Any]:
    replace = msgspec.structs.replace if found and isinstance(found[0], msgspec.Struct) else attrs.evolve
    return [replace(one, **change) if getattr(one, name) == value else one for one in found]


def with_row(call: str, **change: Any) -> Lie:
    return lambda e: attrs.evolve(e, rows=_changed(e.rows, "id", call, **change))


def without_row(call: str) -> Lie:
    return lambda e: attrs.evolve(e, rows=[one for one in e.rows if one.id != call])


def with_entry(call: str, **change: Any) -> Lie:
    return lambda e: attrs.evolve(e, entries=_changed(e.entries, "call", call, **change))


def with_answer(request: str, **change: Any) -> Lie:
    def lie(e: Evidence) -> Evidence:
        return attrs.evolve(
            e,
            exchanges=[
                Exchange(x.asked, attrs.evolve(x.answered, **change)) if x.asked.id == request and x.answered else x
                for x in e.exchanges
            ],
        )

    return lie


def with_admission(call: str, **change: Any) -> Lie:
    """Change what Redis wrote down of a call; of one unknown so far: add it."""

    def lie(e: Evidence) -> Evidence:
        known = e.ledger.admissions.get(call) or Admission(call, "acme", "main", call, round(T0 * 1e6), 50_000)
        admissions = {**e.ledger.admissions, call: attrs.evolve(known, **change)}
        return attrs.evolve(e, ledger=attrs.evolve(e.ledger, admissions=admissions))

    return lie


def with_ledger(**change: Any) -> Lie:
    return lambda e: attrs.evolve(e, ledger=attrs.evolve(e.ledger, **change))


def with_evidence(**change: Any) -> Lie:
    return lambda e: attrs.evolve(e, **change)


def all_of(*lies: Lie) -> Lie:
    def lie(e: Evidence) -> Evidence:
        for one in lies:
            e = one(e)
        return e

    return lie
