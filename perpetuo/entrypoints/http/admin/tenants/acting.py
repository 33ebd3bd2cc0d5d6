"""What can an operator do to a budget from here? The same for forms and for JSON."""

from datetime import datetime
from zoneinfo import ZoneInfo

from perpetuo.bootstrap import Container
from perpetuo.domain.gateway.budgets import (
    Operation,
    Raised,
    Whose,
    adjust_budget,
    end_raise,
    limit_of,
    raise_budget,
    wrong_adjustment,
    wrong_raise,
)
from perpetuo.domain.model.budgets import Adjusted
from perpetuo.domain.model.errors import Refusal
from perpetuo.domain.model.money import usd
from perpetuo.domain.policy import raises as raising
from perpetuo.domain.policy.windows import SECOND_US
from perpetuo.domain.ports import StoreUnavailable
from perpetuo.entrypoints.http.account import store_away
from perpetuo.entrypoints.http.admin.facts import Facts
from perpetuo.entrypoints.http.admin.tenants.facts import budget, raise_facts
from perpetuo.entrypoints.http.admin.tenants.look import look_again
from perpetuo.entrypoints.http.admin.tenants.orders import AdjustOrder, RaiseOrder
from perpetuo.entrypoints.http.refusals import RefusedError


async def carry_out_raise(container: Container, asked: Operation, order: RaiseOrder) -> Facts:
    """Raise it, and say so; raises `RefusedError`."""
    try:
        done = await raise_budget(
            container.stores.raises, container.journal, container.system, asked,
            order.whose, order.amount, order.period, order.until_us,
        )  # fmt: skip
    except StoreUnavailable as error:
        raise RefusedError(store_away("ledger")) from error
    if isinstance(done, Refusal):
        raise RefusedError(done)
    return _told(done, f"{_already(done.repeated)}{sentence(order)}")


async def carry_out_end(container: Container, asked: Operation, raise_id: str) -> Facts:
    try:
        done = await end_raise(container.stores.raises, container.journal, container.system, asked, raise_id)
    except StoreUnavailable as error:
        raise RefusedError(store_away("ledger")) from error
    if isinstance(done, Refusal):
        raise RefusedError(done)
    one = done.raised
    return _told(done, f"The raise of the {one.period} budget of {one.scope} by {usd(one.amount)} USD has ended.")


async def carry_out_adjustment(container: Container, asked: Operation, order: AdjustOrder) -> Facts:
    try:
        done = await adjust_budget(
            container.ledger, container.store, container.store, container.journal, container.system, asked,
            order.whose, order.amount, order.day,
        )  # fmt: skip
    except StoreUnavailable as error:
        raise RefusedError(store_away("stores")) from error
    if isinstance(done, Refusal):
        raise RefusedError(done)
    return {
        "id": asked.id,
        "tenant": order.whose.tenant.id,
        "key": order.whose.key,
        "usd": usd(order.amount),
        "budgets": [budget(reading) for reading in done.budgets],
        "repeated": done.repeated,
        "message": f"{_already(done.repeated)}{adjusted_sentence(order)}{_now(done, order.whose)}",
    }


def check(container: Container, order: RaiseOrder | AdjustOrder) -> None:
    """Before somebody is asked to confirm it; raises `RefusedError`."""
    now_us = container.system.now_us()
    if isinstance(order, RaiseOrder):
        wrong = wrong_raise(order.whose, order.amount, order.period, order.until_us, now_us)
    else:
        wrong = wrong_adjustment(order.whose, order.amount, order.day, now_us)
    if wrong is not None:
        raise RefusedError(wrong)


async def in_force(container: Container, tenant: str | None = None) -> list[Facts]:
    """The raises that count now, whichever worker made them."""
    await look_again(container)
    return known_in_force(container, tenant)


def known_in_force(container: Container, tenant: str | None = None) -> list[Facts]:
    """Those that this worker knows of, those that end first at the top."""
    raises = container.stores.raises.all() if tenant is None else container.stores.raises.of(tenant)
    counting = raising.in_force(raises, container.system.now_us())
    return [raise_facts(one) for one in sorted(counting, key=lambda one: (one.until_us, one.id))]


NOTICES = {
    "raise": "The budget is raised. It holds on all workers within a second.",
    "end": "The raise has ended.",
    "adjust": "What was spent is adjusted. The event is in the list below within two seconds.",
    "gone": "That raise had already ended.",
    "again": "That had been done before, and was not done again.",
}

# --- in words ------------------------------------------------------------------------------------


def sentence(order: RaiseOrder) -> str:
    """What a raise does, with the tenant's own clock."""
    at = local(order.until_us, order.whose)
    return f"The {order.period} budget of {order.whose} is higher by {usd(order.amount)} USD until {at}."


async def before_and_after(container: Container, order: RaiseOrder) -> tuple[str, str]:
    """The limit now, with raises in force, and as it would be."""
    await look_again(container)
    now = limit_of(container.stores.raises, order.whose, order.period, container.system.now_us())
    return usd(now), usd(now + order.amount)


def adjusted_sentence(order: AdjustOrder) -> str:
    direction = "less" if order.amount < 0 else "more"
    day = f"on {order.day} and in its month" if order.day else "today and this month"
    return f"{usd(abs(order.amount))} USD {direction} counts as spent by {order.whose} {day}."


def local(at_us: int, whose: Whose) -> str:
    """An instant on the tenant's clock."""
    zone = ZoneInfo(whose.tenant.time_zone)
    return f"{datetime.fromtimestamp(at_us // SECOND_US, zone):%Y-%m-%d %H:%M} ({zone.key})"


def _now(done: Adjusted, whose: Whose) -> str:
    spent = [
        f"{read.period} {read.window}: {usd(read.spent)} USD" for read in done.budgets if read.scope == whose.scope
    ]
    return f" Spent now: {', '.join(spent)}." if spent else ""


def _already(repeated: bool) -> str:
    return "It had been done before and was not done again. " if repeated else ""


def _told(done: Raised, message: str) -> Facts:
    return {**raise_facts(done.raised), "repeated": done.repeated, "message": message}
