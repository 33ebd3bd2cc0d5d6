"""
How are steps written down for the scripts, and what do the scripts' answers mean?

Money and times travel as text, admissions as one line (see ``admit.lua``), refusals as lists that begin with a word.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import msgspec

from perpetuo.adapters.redis.plans import RequestPlan
from perpetuo.domain.model.admission import (
    AdmitDecision,
    AdmitRefused,
    AdmitRequest,
    Admitted,
    BudgetLimit,
    BudgetReading,
    BudgetRefused,
    Claim,
    ClaimRefused,
    ConcurrencyRefused,
    Hold,
    Keep,
    RateReading,
    RateRefused,
    Replay,
    Settled,
    Settlement,
    StoredAnswer,
    UnknownOutcome,
)
from perpetuo.domain.model.budgets import AdjustDecision, Adjusted, Adjustment, Uncovered
from perpetuo.domain.model.events import Event
from perpetuo.domain.model.money import Nano
from perpetuo.domain.model.settings import IdempotencySettings

encode_event = msgspec.json.Encoder().encode
decode_event = msgspec.json.Decoder(Event).decode
_encode_head = msgspec.json.Encoder().encode


_decode_head = msgspec.json.Decoder(tuple[int, str, tuple[tuple[str, str], ...]]).decode

_WORDS: dict[bytes, AdmitRefused | ClaimRefused] = {
    b"cancelled": AdmitRefused.CANCELLED,
    b"no_room": AdmitRefused.NO_ROOM,
    b"unseeded": AdmitRefused.UNSEEDED,
    b"reused": ClaimRefused.REUSED,
    b"not_stored": ClaimRefused.NOT_STORED,
    b"in_progress": ClaimRefused.IN_PROGRESS,
    b"outcome_unknown": ClaimRefused.OUTCOME_UNKNOWN,
}


# --- admit ---------------------------------------------------------------------------------------


def row_if_abandoned(request: AdmitRequest, plan: RequestPlan) -> Event:
    """The row to keep with the call; ``admit.lua`` changes its day when the boundary has been passed."""
    if plan.day is None or plan.day == request.abandoned.budget_day:
        return request.abandoned
    return attrs.evolve(request.abandoned, budget_day=plan.day)


def claim_arguments(claim: Claim) -> tuple[Any, ...]:
    fail = claim.on_unknown is UnknownOutcome.FAIL
    return claim.fingerprint, claim.ttl_us, claim.lease_us, b"1" if fail else b"0"


def admit_decision(reply: Any, request: AdmitRequest, plan: RequestPlan, row: Event) -> AdmitDecision:
    if isinstance(reply, bytes):
        return _admitted(reply, request, plan, row)
    match reply:
        case [b"rate", which, wait]:
            rate = request.rates[which - 1]
            return RateRefused(rate.scope, rate.limit, int(wait))
        case [b"replays", wait] if request.replays is not None:
            return RateRefused(request.replays.scope, request.replays.limit, int(wait))
        case [b"concurrency", which]:
            concurrency = request.concurrency[which - 1]
            return ConcurrencyRefused(concurrency.scope, concurrency.limit)
        case [b"budget", which, spent, held, at, reserved]:
            reading = budget_reading(request.budgets[which - 1], int(spent), int(held), int(at))
            return BudgetRefused(reading, bool(reserved))
        case [b"replay", head, body, call]:
            status, content_type, headers = _decode_head(head)
            return Replay(StoredAnswer(status, content_type, headers, body, call.decode()))
        case [word]:
            return _WORDS[word]
    raise ValueError(f"admit.lua answered {reply!r}")


def _admitted(line: bytes, request: AdmitRequest, plan: RequestPlan, row: Event) -> Admitted:
    words = line.split()
    at, now = int(words[2]), int(words[3])
    money: Iterator[Nano] = map(Nano, map(int, words[6:]))
    if at < plan.until_us:
        readings = tuple([BudgetReading(*window, next(money), next(money)) for window in plan.windows])
    else:
        readings = tuple([budget_reading(b, next(money), next(money), at) for b in request.budgets])
    left = list(money)  # of a call that was put back nothing: its rate slot is not
    rates = tuple([RateReading(r.scope, r.limit, n, at + r.window_us - now) for r, n in zip(request.rates, left)])  # noqa: B905
    day = next((read.window for read in readings if read.period == "day"), row.budget_day)
    hold = Hold(
        call=request.call,
        tenant=request.tenant,
        at_us=at,
        amount=Nano(int(words[0])),
        budgets=readings,
        concurrency=plan.concurrency_scopes,
        rates=plan.rate_scopes,
        claim=request.claim,
        fence=int(words[1]),
        epoch=words[5].decode(),
        abandoned=row if day == row.budget_day else attrs.evolve(row, budget_day=day),
        lease_us=request.lease_us,
    )
    return Admitted(hold, rates, words[4] == b"1")


def budget_reading(limit: BudgetLimit, spent: int, held: int, at_us: int) -> BudgetReading:
    current = at_us < limit.boundary_us
    return BudgetReading(
        limit.scope,
        limit.period,
        limit.current if current else limit.following,
        limit.limit,
        limit.boundary_us if current else limit.following_end_us,
        Nano(spent),
        Nano(held),
    )


def line_of(hold: Hold) -> str:
    """What ``admit.lua`` answered for this hold, for a record that has to be put back; without rates."""
    money = [f"{read.spent} {read.held}" for read in hold.budgets]
    return " ".join([str(hold.amount), str(hold.fence), str(hold.at_us), str(hold.at_us), "0", hold.epoch, *money])


# --- what ends or keeps up a call ----------------------------------------------------------------


def keep_arguments(settlement: Settlement, keeping: IdempotencySettings, accepts: bool) -> tuple[Any, ...]:
    """What is to become of the idempotency key; an answer that is not to be kept is not sent either."""
    hold, answer = settlement.hold, settlement.answer
    claim = hold.claim
    if claim is None:
        return ()
    if settlement.keep is Keep.FREE or claim.ttl_us == 0:
        return "F", hold.fence, claim.fingerprint, claim.ttl_us, "", "", 0
    if settlement.keep is Keep.MARK or answer is None or not accepts or len(answer.body) > keeping.max_bytes:
        return "M", hold.fence, claim.fingerprint, claim.ttl_us, "", "", 0
    head = _encode_head((answer.status, answer.content_type, answer.headers))
    return (
        "S",
        hold.fence,
        claim.fingerprint,
        claim.ttl_us,
        head,
        answer.body,
        keeping.max_bytes_per_tenant,
        answer.call,
    )


def settled(reply: Sequence[Any], hold: Hold) -> Settled:
    stored, revision, repeated = reply[:3]
    numbers: Any = map(int, reply[3:])
    return Settled(bool(stored), revision, bool(repeated), hold.budgets, tuple(zip(numbers, numbers, strict=True)))


def refused_growth(reply: Sequence[Any], hold: Hold) -> BudgetRefused | AdmitRefused:
    match reply:
        case [b"budget", which, spent, held, reserved]:
            reading = attrs.evolve(hold.budgets[which - 1], spent=Nano(int(spent)), held=Nano(int(held)))
            return BudgetRefused(reading, bool(reserved))
        case [b"unseeded"]:
            return AdmitRefused.UNSEEDED
    return AdmitRefused.CANCELLED


# --- adjust --------------------------------------------------------------------------------------


def adjust_decision(reply: Sequence[Any], adjustment: Adjustment) -> AdjustDecision:
    word, *rest = reply
    if word == b"uncovered":
        which, spent, held = rest
        return Uncovered(_with_money(adjustment.windows[which - 1], spent, held))
    if not rest:
        return AdmitRefused(word.decode())
    pairs = zip(adjustment.windows, rest[::2], rest[1::2], strict=True)
    return Adjusted(tuple(_with_money(read, *money) for read, *money in pairs if money[0]), word == b"repeated")


def _with_money(read: BudgetReading, spent: bytes, held: bytes) -> BudgetReading:
    return attrs.evolve(read, spent=Nano(int(spent)), held=Nano(int(held)))
