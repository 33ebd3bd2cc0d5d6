"""
What happens to a call in the ledger: admitted, extended, settled, cancelled, renewed, reaped?

Every function is one atomic step on one call: ``(state, asked, now) -> (decision, next state)``. It composes the
policies beside it and is the specification that every store follows to the letter.

Rule 1: the order of admission is: known call → room → seeded → idempotency → rate → concurrency → budget.
        The first that refuses answers, and the state is returned as it was: a refusal leaves no trace.
        A replay takes a slot of ``replays``, a rate of its own, and touches nothing else.
Rule 2: admitting a call again is answered as the first time, without a second effect. One that is over
        (settled, cancelled, reaped) is refused as CANCELLED.
Rule 3: money, event and answer of a settlement are one step, once per call. Repeated: ``repeated``, with the
        first answer's ``stored`` and ``revision``. Of a call the store does not know: settled before, if this
        life of the store admitted it; else its record was lost, and it is charged and recorded now.
Rule 4: a reaped call is charged at its hold (revision 1). Its late settlement corrects the charge in the windows
        of admission and the row (revision 2), and never touches the idempotency key.
Rule 5: cancelling undoes an admission for which nothing was sent: hold, concurrency, key and rate slot are given
        back, no event. Reaped meanwhile: the charge goes back and the row is corrected to 0 (revision 2).
Rule 6: a hold grows to ``hold.amount + extra``, where ``hold.amount`` is what its worker knows: repeated, it
        changes nothing. Extending renews the leases.
Rule 7: leases (call, concurrency, key) end at the store's clock plus their length, and renewing never shortens one.
        ``at_us`` is the clamped time of admission (see `rate`): rate slot and budget window. The row of an abandoned
        call gets the day it was admitted on.
Rule 8: renewing a call of another life of the store that is not known puts its record, holds and leases back (not
        its rate slot), and its key unless somebody else has it.
"""

from collections.abc import Mapping, Sequence

import attrs

from perpetuo.domain.model.admission import (
    Abandoned,
    AdmitDecision,
    AdmitRefused,
    AdmitRequest,
    Admitted,
    BudgetReading,
    BudgetRefused,
    ExtendDecision,
    Extended,
    Hold,
    RateLimit,
    Replay,
    Settled,
    Settlement,
)
from perpetuo.domain.model.events import Event
from perpetuo.domain.model.money import ZERO, Nano
from perpetuo.domain.model.settings import IdempotencySettings
from perpetuo.domain.policy import budget, calls, concurrency, idempotency, rate
from perpetuo.domain.policy.budget import BudgetWindow
from perpetuo.domain.policy.calls import CallRecord, CallState, Pulse, Reaped, Tombstone
from perpetuo.domain.policy.concurrency import Leases
from perpetuo.domain.policy.idempotency import UNSEEN, ClaimState, Room, Run
from perpetuo.domain.policy.rate import RateLog

WindowKey = tuple[str, str]
"""Scope and window: ``("acme", "2026-11-23")``."""


@attrs.frozen
class Appended:
    """An event row a step adds to the stream. ``charged`` overrides the row's hold and cost."""

    event: Event
    revision: int
    charged: Nano | None = None


@attrs.frozen
class AdmissionState:
    """The pieces one step touches; a piece that is missing is an empty one. ``appended`` only ever grows."""

    epoch: str
    call: CallState = None
    claim: ClaimState = UNSEEN
    rates: Mapping[str, RateLog] = attrs.field(factory=dict)
    in_flight: Mapping[str, Leases] = attrs.field(factory=dict)
    budgets: Mapping[WindowKey, BudgetWindow] = attrs.field(factory=dict)
    pulse: Pulse = Pulse()
    seeded: bool = True
    """Are this tenant's counters those of ``epoch``?"""
    room: bool = True
    """Is there room for further events?"""
    keeps_answers: bool = True
    kept_bytes: int = 0
    """Bodies kept for this tenant that have not expired."""
    appended: tuple[Appended, ...] = ()


@attrs.frozen
class Touched:
    """Which pieces a step needs."""

    tenant: str
    claim: str | None
    rates: tuple[str, ...]
    in_flight: tuple[str, ...]
    budgets: tuple[WindowKey, ...]


def touched_by_request(request: AdmitRequest) -> Touched:
    """Both windows of a budget are needed, since the store's clock picks."""
    return Touched(
        tenant=request.tenant,
        claim=request.claim.key if request.claim else None,
        rates=tuple(limit.scope for limit in (*request.rates, request.replays) if limit is not None),
        in_flight=tuple(limit.scope for limit in request.concurrency),
        budgets=tuple((b.scope, window) for b in request.budgets for window in (b.current, b.following)),
    )


def touched_by_hold(hold: Hold) -> Touched:
    return Touched(
        tenant=hold.tenant,
        claim=hold.claim.key if hold.claim else None,
        rates=hold.rates,
        in_flight=hold.concurrency,
        budgets=tuple((read.scope, read.window) for read in hold.budgets),
    )


# --- admit ---------------------------------------------------------------------------------------


def admit(state: AdmissionState, request: AdmitRequest, now_us: int) -> tuple[AdmitDecision, AdmissionState]:
    """Idempotency claim → rate → concurrency → budget hold, all or nothing (rules 1 and 2)."""
    known = _known(state, request, now_us)
    if known is not None:
        return known, state
    run = _run(state, request, now_us)
    if isinstance(run, Replay) and request.replays is not None:
        return _replayed(state, run, request.replays, now_us)
    if not isinstance(run, Run):
        return run, state
    at = rate.instant((state.rates[r.scope] for r in request.rates if r.scope in state.rates), now_us)
    refused = rate.refusal(request.rates, state.rates, at, now_us) or concurrency.refusal(
        request.concurrency, state.in_flight, now_us
    )
    if refused is not None:
        return refused, state
    readings = [budget.reading(b, _window(state, b.scope, budget.window_at(b, at)), at) for b in request.budgets]
    granted = budget.grant(readings, request.hold, request.hold_min)
    if isinstance(granted, BudgetRefused):
        return granted, state
    return _enter(state, request, run, granted, readings, at, now_us)


def _known(state: AdmissionState, request: AdmitRequest, now_us: int) -> Admitted | AdmitRefused | None:
    match calls.seen(state.call, now_us):
        case CallRecord(admitted=admitted):
            return admitted
        case Reaped() | Tombstone():
            return AdmitRefused.CANCELLED
    if not state.room:
        return AdmitRefused.NO_ROOM
    if not state.seeded and request.has_budget:
        return AdmitRefused.UNSEEDED
    return None


def _run(state: AdmissionState, request: AdmitRequest, now_us: int) -> Run | AdmitDecision:
    if request.claim is None:
        return Run(fence=0)
    return idempotency.ask(state.claim, request.claim, now_us, calls.trusted(state.pulse, now_us))


def _replayed(
    state: AdmissionState, replay: Replay, limit: RateLimit, now_us: int
) -> tuple[AdmitDecision, AdmissionState]:
    log = rate.take(state.rates.get(limit.scope, rate.EMPTY), limit, now_us)
    if not isinstance(log, RateLog):
        return log, state
    return replay, attrs.evolve(state, rates={**state.rates, limit.scope: log})


def _enter(
    state: AdmissionState,
    request: AdmitRequest,
    run: Run,
    granted: Nano,
    readings: Sequence[BudgetReading],
    at_us: int,
    now_us: int,
) -> tuple[Admitted, AdmissionState]:
    hold = _hold(state.epoch, request, run, granted, readings, at_us)
    logs = {r.scope: rate.enter(state.rates.get(r.scope, rate.EMPTY), r, at_us) for r in request.rates}
    rates = tuple(rate.reading(logs[r.scope], r, at_us, now_us) for r in request.rates)
    admitted = Admitted(hold, rates, run.reexecuted)
    state = attrs.evolve(
        state,
        rates={**state.rates, **logs},
        claim=idempotency.start(hold.claim, hold.fence, hold.call, now_us) if hold.claim else state.claim,
    )
    return admitted, _in_flight(state, admitted, now_us)


def _hold(
    epoch: str, request: AdmitRequest, run: Run, granted: Nano, readings: Sequence[BudgetReading], at_us: int
) -> Hold:
    day = next((read.window for read in readings if read.period == "day"), request.abandoned.budget_day)
    return Hold(
        call=request.call,
        tenant=request.tenant,
        at_us=at_us,
        amount=granted,
        budgets=tuple(attrs.evolve(read, held=Nano(read.held + granted)) for read in readings),
        concurrency=tuple(limit.scope for limit in request.concurrency),
        rates=tuple(limit.scope for limit in request.rates),
        claim=request.claim,
        fence=run.fence,
        epoch=epoch,
        abandoned=attrs.evolve(request.abandoned, budget_day=day),
        lease_us=request.lease_us,
    )


def _in_flight(state: AdmissionState, admitted: Admitted, now_us: int) -> AdmissionState:
    """Put a call's record, money and concurrency leases in."""
    hold, end = admitted.hold, now_us + admitted.hold.lease_us
    leases = {s: concurrency.enter(_leases(state, s), hold.call, end, now_us) for s in hold.concurrency}
    state = attrs.evolve(state, call=CallRecord(admitted, hold.amount, end), in_flight={**state.in_flight, **leases})
    return _moved(state, hold, {key: budget.hold(w, hold.amount) for key, w in _windows(state, hold).items()})


# --- extend, renew -------------------------------------------------------------------------------


def extend(state: AdmissionState, hold: Hold, extra: Nano, now_us: int) -> tuple[ExtendDecision, AdmissionState]:
    """Grow a hold to ``hold.amount + extra`` if every budget still allows it (rule 6)."""
    record = calls.seen(state.call, now_us)
    if not isinstance(record, CallRecord):
        lost = record is None and hold.epoch != state.epoch
        return AdmitRefused.UNSEEDED if lost else AdmitRefused.CANCELLED, state
    whole = budget.as_held(Nano(hold.amount + extra), hold.budgets)
    more = Nano(whole - record.amount)
    if more > 0:
        if not state.seeded and any(read.limit is not None for read in hold.budgets):
            return AdmitRefused.UNSEEDED, state
        refused = budget.growth(_readings(state, record.hold), more, whole)
        if refused is not None:
            return refused, state
        record = attrs.evolve(record, amount=whole)
        grown = {key: budget.hold(w, more) for key, w in _windows(state, record.hold).items()}
        state = _moved(attrs.evolve(state, call=record), record.hold, grown)
    return Extended(record.amount), _renewed(state, record, now_us)


def renew(state: AdmissionState, hold: Hold, now_us: int) -> tuple[bool, AdmissionState]:
    """Renew a call's leases, or put back what the store has lost (rule 8). True: it was reaped meanwhile."""
    match calls.seen(state.call, now_us):
        case CallRecord() as record:
            return False, _renewed(state, record, now_us)
        case Reaped():
            return True, state
        case None if hold.epoch != state.epoch:
            return False, _restored(state, hold, now_us)
    return False, state


def _renewed(state: AdmissionState, record: CallRecord, now_us: int) -> AdmissionState:
    hold = record.hold
    end = max(record.lease_end_us, now_us + hold.lease_us)
    claim = state.claim
    if hold.claim is not None:
        claim = idempotency.renew(claim, hold.claim, hold.fence, hold.call, now_us)
    leases = {s: concurrency.renew(_leases(state, s), hold.call, end) for s in hold.concurrency}
    return attrs.evolve(
        state,
        call=attrs.evolve(record, lease_end_us=end),
        claim=claim,
        in_flight={**state.in_flight, **leases},
    )


def _restored(state: AdmissionState, hold: Hold, now_us: int) -> AdmissionState:
    if hold.claim is not None:
        claim = idempotency.restore(state.claim, hold.claim, hold.fence, hold.call, now_us)
        state = attrs.evolve(state, claim=claim)
    return _in_flight(state, Admitted(hold, ()), now_us)


# --- settle, cancel, reap ------------------------------------------------------------------------


def settle(
    state: AdmissionState, settlement: Settlement, keeping: IdempotencySettings, now_us: int
) -> tuple[Settled, AdmissionState]:
    """Release, charge, keep the answer, append the event: once (rules 3 and 4). May raise `UncountableError`."""
    budget.check_charge(settlement.charge)
    stored, revision = False, 1
    match calls.seen(state.call, now_us):
        case CallRecord(hold=hold, amount=amount):
            state, stored = _answered(state, settlement, keeping, now_us)
            state = _over(state, hold, amount, settlement.charge)
        case Reaped(hold=hold, charge=charge):
            revision = 2
            state = _over(state, hold, ZERO, Nano(settlement.charge - charge))
        case Tombstone() as done:
            return _settled(state, settlement.hold, done.stored, done.revision, repeated=True), state
        case None if settlement.hold.epoch == state.epoch:
            return _settled(state, settlement.hold, False, 1, repeated=True), state
        case _:
            hold = settlement.hold
            state = _over(state, hold, ZERO, settlement.charge)
    state = attrs.evolve(
        state,
        call=calls.tombstone(hold, state.epoch, now_us, stored=stored, revision=revision),
        appended=(*state.appended, Appended(settlement.event, revision)),
    )
    return _settled(state, hold, stored, revision, repeated=False), state


def _answered(
    state: AdmissionState, settlement: Settlement, keeping: IdempotencySettings, now_us: int
) -> tuple[AdmissionState, bool]:
    """Finish the idempotency key if this run still holds it; was the answer kept?"""
    hold = settlement.hold
    if hold.claim is None or not idempotency.ours(state.claim, hold.call, hold.fence, now_us):
        return state, False
    room = Room(keeping.max_bytes, keeping.max_bytes_per_tenant, state.kept_bytes, state.keeps_answers)
    claim = idempotency.finish(hold.claim, hold.fence, settlement.keep, settlement.answer, room, now_us)
    return attrs.evolve(state, claim=claim), isinstance(claim, idempotency.Done)


def _settled(state: AdmissionState, hold: Hold, stored: bool, revision: int, *, repeated: bool) -> Settled:
    return Settled(stored, revision, repeated, hold.budgets, tuple((r.spent, r.held) for r in _readings(state, hold)))


def cancel(state: AdmissionState, now_us: int) -> AdmissionState:
    """Undo an admission nothing was sent for; one that has not arrived yet never will (rule 5)."""
    match calls.seen(state.call, now_us):
        case Tombstone():
            return state
        case CallRecord(hold=hold, amount=amount):
            state = _over(state, hold, amount, ZERO)
            if hold.claim and idempotency.ours(state.claim, hold.call, hold.fence, now_us):
                free = idempotency.Free(hold.fence, now_us + idempotency.FREED_KEPT_US)
                state = attrs.evolve(state, claim=free)
            state = _slots_back(state, hold)
        case Reaped(hold=hold, charge=charge):
            state = _slots_back(_over(state, hold, ZERO, Nano(-charge)), hold)
            undone = Appended(hold.abandoned, revision=2, charged=ZERO)
            state = attrs.evolve(state, appended=(*state.appended, undone))
    return attrs.evolve(state, call=Tombstone(now_us + calls.TOMBSTONE_US))


def _slots_back(state: AdmissionState, hold: Hold) -> AdmissionState:
    logs = {s: rate.give_back(state.rates.get(s, rate.EMPTY), hold.at_us) for s in hold.rates}
    return attrs.evolve(state, rates={**state.rates, **logs})


def reap(state: AdmissionState, now_us: int) -> tuple[Abandoned | None, AdmissionState]:
    """Settle a call whose lease has ended at its hold (rule 4); ``None``: alive, over, or not to be judged now."""
    record = state.call
    if not isinstance(record, CallRecord) or now_us < record.lease_end_us or not calls.trusted(state.pulse, now_us):
        return None, state
    hold, charge = record.hold, record.amount
    state = attrs.evolve(
        _over(state, hold, charge, charge),
        call=Reaped(hold, charge, now_us + calls.REAPED_KEPT_US),
        appended=(*state.appended, Appended(hold.abandoned, revision=1, charged=charge)),
    )
    return Abandoned(hold.call, hold.tenant, charge), state


# --- pieces --------------------------------------------------------------------------------------


def row_if_abandoned(record: CallRecord) -> Event:
    """The row an unfinished call would leave."""
    return attrs.evolve(record.hold.abandoned, hold_nano_usd=record.amount, cost_nano_usd=record.amount)


def _over(state: AdmissionState, hold: Hold, held: Nano, charge: Nano) -> AdmissionState:
    """Take a call out of its scopes and move its money in the windows of its admission."""
    leases = {s: concurrency.leave(_leases(state, s), hold.call) for s in hold.concurrency}
    state = attrs.evolve(state, in_flight={**state.in_flight, **leases})
    return _moved(state, hold, {key: budget.settle(w, held, charge) for key, w in _windows(state, hold).items()})


def _moved(state: AdmissionState, hold: Hold, windows: Mapping[WindowKey, BudgetWindow]) -> AdmissionState:
    return attrs.evolve(state, budgets={**state.budgets, **windows})


def _windows(state: AdmissionState, hold: Hold) -> dict[WindowKey, BudgetWindow]:
    return {(r.scope, r.window): _window(state, r.scope, r.window) for r in hold.budgets}


def _readings(state: AdmissionState, hold: Hold) -> list[BudgetReading]:
    return [budget.again(read, _window(state, read.scope, read.window)) for read in hold.budgets]


def _window(state: AdmissionState, scope: str, window: str) -> BudgetWindow:
    return state.budgets.get((scope, window), budget.EMPTY)


def _leases(state: AdmissionState, scope: str) -> Leases:
    return state.in_flight.get(scope, concurrency.EMPTY)
