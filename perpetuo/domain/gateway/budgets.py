"""
How does an operator raise a budget for a while, end that, or adjust what was spent?

Rule 1: each is one step in a store, and the event that tells of it is part of that step. A store that is away: nothing
        was changed, and it is said (`StoreUnavailable`, or a `Refusal`).
Rule 2: each may be repeated by its id, a UUIDv7 of the last hour, and then changes nothing. The store remembers an
        adjustment for a day; whether it was made before the store lost its data, SQL has to say first.
Rule 3: what makes no sense is refused with the value seen and what is possible; amounts are never rounded.
"""

import re
from datetime import date, datetime, time
from zoneinfo import ZoneInfo

import attrs

from perpetuo.domain.gateway.operate import KIND, Actor
from perpetuo.domain.model.admission import AdmitRefused, BudgetReading
from perpetuo.domain.model.budgets import Adjusted, Adjustment, PastRaises, Raise, Uncovered
from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.domain.model.events import Event, EventFilter, Outcome
from perpetuo.domain.model.money import MAX_BUDGET, ZERO, Nano, usd
from perpetuo.domain.model.tenants import Limits, Tenant
from perpetuo.domain.policy import raises as raising
from perpetuo.domain.policy.budget import MOST_CHARGED
from perpetuo.domain.policy.windows import SECOND_US, Window, day_at, key_scope, month_at
from perpetuo.domain.ports import EventHistory, EventStore, Journal, Ledger, Raises, System

HOUR_US = 3_600 * SECOND_US
PAGE = 1_000
ADJUSTED = "budget_adjust"
UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@attrs.frozen
class Whose:
    """A tenant's own budgets, or those of one of its keys."""

    tenant: Tenant
    key: str | None = None

    @property
    def scope(self) -> str:
        return self.tenant.id if self.key is None else key_scope(self.tenant.id, self.key)

    @property
    def limits(self) -> Limits:
        """Of the tenant or of the key; a key that is not there has none."""
        if self.key is None:
            return self.tenant.limits
        return next((key.limits for key in self.tenant.keys if key.name == self.key), Limits())

    def __str__(self) -> str:
        return self.tenant.id if self.key is None else f"the key {self.key} of {self.tenant.id}"


@attrs.frozen
class Operation:
    """What every one of these needs: who asks, why, and under which id it may be repeated."""

    id: str
    actor: Actor
    reason: str


@attrs.frozen
class Raised:
    """``repeated``: it had been done before."""

    raised: Raise
    repeated: bool


async def raise_budget(
    raises: Raises, journal: Journal, system: System, asked: Operation, whose: Whose, amount: Nano, period: str,
    until_us: int,
) -> Raised | Refusal:  # fmt: skip
    """Let a budget be higher until an instant; may raise `StoreUnavailable`."""
    now_us = system.now_us()
    refused = _wrong_id(asked.id, now_us) or wrong_raise(whose, amount, period, until_us, now_us)
    if refused is not None:
        return refused
    one = Raise(asked.id, whose.tenant.id, whose.scope, period, amount, until_us, asked.actor.name, asked.reason)
    await raises.refresh()  # another worker may have raised it a moment ago
    before = limit_of(raises, whose, period, now_us, without=one.id)
    limits = {"limit_before_nano_usd": before, "limit_after_nano_usd": before + amount}
    event = _event(asked, whose, now_us, {"action": raising.RAISED, **raising.as_decision(one), **limits})
    done = await raises.put(one, event)
    _told(journal, asked, raising.RAISED, whose, usd=usd(amount), period=period, repeated=not done)
    return Raised(one, repeated=not done)


def limit_of(raises: Raises, whose: Whose, period: str, now_us: int, without: str = "") -> Nano:
    """A budget with the raises in force, but for the one whose id is ``without``: that may be a repetition."""
    configured = whose.limits.budget_day if period == "day" else whose.limits.budget_month
    counting = raising.in_force(raises.of(whose.tenant.id), now_us)
    same = [one for one in counting if (one.scope, one.period) == (whose.scope, period) and one.id != without]
    return raising.raised(configured, same) or ZERO


async def end_raise(
    raises: Raises, journal: Journal, system: System, asked: Operation, raise_id: str
) -> Raised | Refusal:
    """End a raise before its time; may raise `StoreUnavailable`."""
    await raises.refresh()  # it may have been made a moment ago, through another worker
    now_us = system.now_us()
    one = next((each for each in raising.in_force(raises.all(), now_us) if each.id == raise_id), None)
    if one is None:
        text = f"There is no raise {raise_id:.100} in force. See which there are: `perpetuo budget raises`."
        return Refusal(Reason.NOT_FOUND, text, "raise")
    decision = {
        "action": raising.ENDED, "raise": one.id, "scope": one.scope, "period": one.period,
        "amount_nano_usd": one.amount, "until_us": one.until_us, "actor": asked.actor.name, "reason": asked.reason,
    }  # fmt: skip
    whose = Whose(Tenant(one.tenant, "", Limits()), one.scope[len(one.tenant) + 1 :] or None)
    done = await raises.end(one, _event(asked, whose, now_us, decision))
    _told(journal, asked, raising.ENDED, whose, usd=usd(one.amount), period=one.period, repeated=not done)
    return Raised(one, repeated=not done)


async def adjust_budget(
    ledger: Ledger, store: EventStore, history: EventHistory, journal: Journal, system: System, asked: Operation,
    whose: Whose, amount: Nano, day: str | None = None,
) -> Adjusted | Refusal:  # fmt: skip
    """
    Change what was spent on a day (``None``: today) and in its month; may raise `StoreUnavailable`.

    A key's adjustment is the tenant's too, as its calls are.
    """
    now_us = system.now_us()
    refused = _wrong_id(asked.id, now_us) or _wrong_adjustment(amount)
    if refused is not None:
        return refused
    windows = _windows_of(whose, now_us, day)
    if isinstance(windows, Refusal):
        return windows
    decision = {
        "action": ADJUSTED, "scope": whose.scope, "amount_nano_usd": amount, "actor": asked.actor.name,
        "reason": asked.reason,
    }  # fmt: skip
    event = attrs.evolve(_event(asked, whose, now_us, decision), cost_nano_usd=amount, budget_day=windows[0].window)
    before = await _done_before(history, event)
    if isinstance(before, Refusal):
        return before
    if before:
        return Adjusted((), repeated=True)
    adjustment = Adjustment(asked.id, whose.tenant.id, amount, windows, event)
    decided = await _uncovered_in_sql(store, adjustment, now_us) or await ledger.adjust(adjustment)
    if not isinstance(decided, Adjusted):
        return _unadjusted(decided, amount)
    _told(journal, asked, ADJUSTED, whose, usd=usd(amount), day=windows[0].window, repeated=decided.repeated)
    return decided


async def past_raises(history: EventHistory, system: System) -> PastRaises:
    """What SQL knows of raises that may still be in force; may raise `StoreUnavailable`."""
    where = EventFilter(model="", since_us=system.now_us() - raising.LONGEST_US)
    found: list[Event] = []
    page = await history.latest(where, limit=PAGE)
    found += page
    while len(page) == PAGE:
        page = await history.latest(where, before=page[-1].id, limit=PAGE)
        found += page
    return raising.past(found)


# --- what can't be done --------------------------------------------------------------------------


def _wrong_id(text: str, now_us: int) -> Refusal | None:
    """An id is remembered for a day: an old one could be one that was forgotten (rule 2)."""
    if not UUID7.fullmatch(text):
        return Refusal(Reason.INVALID_REQUEST, "`id` must be a UUIDv7 in lower case, or be left out.", "id")
    if abs((_number(text) >> 80) * 1_000 - now_us) > HOUR_US:
        text = "This `id` was not made within the last hour. Load the form again, or leave the id out."
        return Refusal(Reason.INVALID_REQUEST, text, "id")
    return None


def _number(uuid: str) -> int:
    return int(uuid.replace("-", ""), 16)


def wrong_raise(whose: Whose, amount: Nano, period: str, until_us: int, now_us: int) -> Refusal | None:
    """Why this could not be done: for `raise_budget`, and for whoever asks before."""
    limit = whose.limits.budget_day if period == "day" else whose.limits.budget_month
    if limit is None:
        other = whose.limits.budget_month if period == "day" else whose.limits.budget_day
        text = f"There is nothing to raise: {whose} has no {period} budget, so no call is refused for it."
        if other is not None:
            text += f" Its budget is by the {'month' if period == 'day' else 'day'}."
        return Refusal(Reason.INVALID_REQUEST, text, "window")
    if not 0 < amount <= MAX_BUDGET:
        text = f"The amount must be above 0 and at most {usd(MAX_BUDGET)} USD; it is {usd(amount)}."
        return Refusal(Reason.INVALID_REQUEST, text, "usd")
    if not now_us < until_us <= now_us + raising.LONGEST_US:
        text = (
            "A raise ends in the future and within 31 days; a budget that stays higher belongs into the configuration."
        )
        return Refusal(Reason.INVALID_REQUEST, text, "until")
    return None


def _wrong_adjustment(amount: Nano) -> Refusal | None:
    if amount == 0 or abs(amount) > MAX_BUDGET:
        text = f"The amount must not be 0, and at most {usd(MAX_BUDGET)} USD up or down; it is {usd(amount)}."
        return Refusal(Reason.INVALID_REQUEST, text, "usd")
    return None


def wrong_adjustment(whose: Whose, amount: Nano, day: str | None, now_us: int) -> Refusal | None:
    """Why this could not be done, as far as it is known without asking a store."""
    windows = _windows_of(whose, now_us, day)
    return _wrong_adjustment(amount) or (windows if isinstance(windows, Refusal) else None)


def _unadjusted(decided: Uncovered | AdmitRefused, amount: Nano) -> Refusal:
    match decided:
        case Uncovered(reading=read) if amount < 0:
            text = (
                f"Nothing was changed: {usd(-amount)} USD can't be taken off the {read.period} {read.window} of "
                f"{read.scope}: {usd(read.spent)} USD was spent there, and {usd(read.held)} USD is only held."
            )
        case Uncovered(reading=read):
            text = (
                f"Nothing was changed: the {read.period} {read.window} of {read.scope} would be above "
                f"{usd(MOST_CHARGED)} USD, the most a counter holds."
            )
        case AdmitRefused.NO_ROOM:
            text = "Nothing was changed: there is no room left to write it down. Try again in a few seconds."
            return Refusal(Reason.AUDIT_UNAVAILABLE, text, retry_after_us=5 * SECOND_US)
        case _:
            text = "Nothing was changed: the counters are being read back from SQL. Try again in a second."
            return Refusal(Reason.STORE_UNAVAILABLE, text, retry_after_us=SECOND_US)
    return Refusal(Reason.INVALID_REQUEST, text, "usd")


async def _done_before(history: EventHistory, event: Event) -> bool | Refusal:
    """Does SQL have this adjustment? A store that lost its memory would make it again."""
    after = f"{_number(event.id) + 1:032x}"
    after = "-".join((after[:8], after[8:12], after[12:16], after[16:20], after[20:]))
    found = await history.latest(EventFilter(), before=after, limit=1)
    if not found or found[0].id != event.id:
        return False
    there = found[0]
    if (there.kind, there.tenant_id, there.key_name, there.cost_nano_usd) != (
        KIND, event.tenant_id, event.key_name, event.cost_nano_usd,
    ):  # fmt: skip
        return Refusal(Reason.INVALID_REQUEST, "Another event has this `id`. Leave it out.", "id")
    return True


async def _uncovered_in_sql(store: EventStore, adjustment: Adjustment, now_us: int) -> Uncovered | None:
    """A window that is over may have no counter left: then the sum of its events must not fall below zero."""
    over = [read for read in adjustment.windows if read.resets_at_us <= now_us]
    if not over or adjustment.amount > 0:
        return None
    days, months = ([r.window for r in over if r.period == period] for period in ("day", "month"))
    sums = await store.sums(adjustment.tenant, days, months)
    scopes = {(one.tenant if one.key_name is None else key_scope(one.tenant, one.key_name), one.window): one.spent
              for one in sums}  # fmt: skip
    for read in over:
        spent = scopes.get((read.scope, read.window), Nano(0))
        if spent + adjustment.amount < 0:
            return Uncovered(attrs.evolve(read, spent=spent))
    return None


# --- windows and events --------------------------------------------------------------------------


def _windows_of(whose: Whose, now_us: int, day: str | None) -> tuple[BudgetReading, ...] | Refusal:
    """Day and month of the tenant, and of the key; a past day only where its month, or its counter, is still there."""
    zone = ZoneInfo(whose.tenant.time_zone)
    today, month = day_at(now_us, zone), month_at(now_us, zone)
    at_us = now_us
    if day is not None and day != today.current:
        wanted = _date(day)
        yesterday = day_at(today.boundary_us - 36 * HOUR_US, zone).current
        if wanted is None or not ((month.current <= day[:7] and day < today.current) or day == yesterday):
            first = min(f"{month.current}-01", yesterday)
            text = f"`day` must be a date from {first} to {today.current}, today in {zone.key}; it is {day:.40}."
            return Refusal(Reason.INVALID_REQUEST, text, "day")
        at_us = int(datetime.combine(wanted, time(12), zone).timestamp()) * SECOND_US
        today, month = day_at(at_us, zone), month_at(at_us, zone)
    scopes = [whose.tenant.id] if whose.key is None else [whose.tenant.id, whose.scope]
    return tuple(_reading(scope, window) for scope in scopes for window in (today, month))


def _date(text: str) -> date | None:
    try:
        return datetime.strptime(text, "%Y-%m-%d").date() if len(text) == len("2026-11-25") else None  # noqa: DTZ007
    except ValueError:
        return None


def _reading(scope: str, window: Window) -> BudgetReading:
    return BudgetReading(scope, window.period, window.current, None, window.boundary_us, Nano(0), Nano(0))


def _event(asked: Operation, whose: Whose, now_us: int, decision: dict[str, object]) -> Event:
    """``key_name`` is the key whose budget it is, so that sums of the key have it; who acted is in the decision."""
    return Event(
        id=asked.id,
        occurred_at_us=now_us,
        tenant_id=whose.tenant.id,
        key_name=whose.key or "",
        kind=KIND,
        model="",
        request_id=asked.actor.request_id,
        status=200,
        outcome=Outcome.COMPLETED.value,
        decision=decision,
        client_ip=asked.actor.client_ip,
    )


def _told(journal: Journal, asked: Operation, action: str, whose: Whose, **more: object) -> None:
    actor = asked.actor
    journal.log(
        "warning", "admin_action", action=action, actor=actor.name, tenant=whose.tenant.id, key=whose.key, **more,
        reason=asked.reason, event_id=asked.id, request_id=actor.request_id, client_ip=actor.client_ip,
    )  # fmt: skip
