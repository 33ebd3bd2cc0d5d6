"""
What does an order about a budget say: a form's fields or a JSON object, to be read by the same rules?

Every value that can't be meant is refused with what is allowed. Money is text or a whole number: a fraction as a JSON
number would have been rounded before it is read.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import attrs

from perpetuo.domain.gateway.budgets import Operation, Whose
from perpetuo.domain.gateway.operate import Actor
from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.domain.model.money import Nano, nano_from_usd
from perpetuo.domain.model.settings import Settings
from perpetuo.domain.policy.windows import SECOND_US, day_at
from perpetuo.domain.ports import System
from perpetuo.entrypoints.http.refusals import RefusedError

AMOUNT = re.compile(r"[+-]?[0-9]{1,9}(\.[0-9]{1,9})?")
SPAN = re.compile(r"([1-9][0-9]{0,4})(min|m|h|d)")
SPAN_US = {"min": 60 * SECOND_US, "m": 60 * SECOND_US, "h": 3_600 * SECOND_US, "d": 86_400 * SECOND_US}
LONGEST_REASON = 200
PERIODS = ("day", "month")
UNTIL = "`until` is `midnight`, a span such as `90min`, `2h` or `3d`, or an instant such as `2026-11-27T18:00`"
Order = Mapping[str, Any]


@attrs.frozen
class RaiseOrder:
    whose: Whose
    amount: Nano
    period: str
    until_us: int


@attrs.frozen
class AdjustOrder:
    """``day`` ``None``: today."""

    whose: Whose
    amount: Nano
    day: str | None


def raise_order(order: Order, settings: Settings, now_us: int) -> RaiseOrder:
    """``tenant``, ``key``, ``usd``, ``window``, ``until``; raises `RefusedError`."""
    whose = whose_of(order, settings)
    period = _text(order, "window") or "day"
    if period not in PERIODS:
        raise _no(f"`window` is `day` or `month`, not {period:.40}.", "window")
    return RaiseOrder(whose, _usd(order), period, _until(_text(order, "until"), whose, now_us))


def adjust_order(order: Order, settings: Settings) -> AdjustOrder:
    """``tenant``, ``key``, ``usd``, ``day``, and ``reason``, which must be given; raises `RefusedError`."""
    found = AdjustOrder(whose_of(order, settings), _usd(order), _text(order, "day") or None)
    if not _text(order, "reason").strip():
        raise _no("An adjustment needs a `reason`: whoever reads the books later will ask for it.", "reason")
    return found


def operation(order: Order, actor: Actor, system: System) -> Operation:
    """``reason`` and ``id``."""
    reason = _text(order, "reason").strip()
    if len(reason) > LONGEST_REASON or not (reason.isprintable() or not reason):
        raise _no(f"`reason` is one line of at most {LONGEST_REASON} characters.", "reason")
    return Operation(_text(order, "id") or system.new_id(), actor, reason)


def whose_of(order: Order, settings: Settings) -> Whose:
    tenant, key = _text(order, "tenant"), _text(order, "key")
    found = settings.tenants.get(tenant)
    if found is None:
        text = f"The configuration in force has no tenant {tenant:.100}."
        raise RefusedError(Refusal(Reason.NOT_FOUND, text, "tenant"))
    if key and key not in {one.name for one in found.keys}:
        names = ", ".join(one.name for one in found.keys[:20]) or "none"
        raise RefusedError(Refusal(Reason.NOT_FOUND, f"{tenant} has no key {key:.100}; its keys: {names}.", "key"))
    return Whose(found, key or None)


def _usd(order: Order) -> Nano:
    given = order.get("usd", "")
    text = str(given) if type(given) is int else given.strip() if isinstance(given, str) else ""
    if not AMOUNT.fullmatch(text):
        seen = f"; it is {given!s:.40}" if given != "" else ""
        kind = "" if isinstance(given, str) else ", as text"  # a number of JSON is the only thing that is no text
        raise _no(f"`usd` is an amount such as `20` or `-12.50`, with at most 9 decimals{kind}{seen}.", "usd")
    return nano_from_usd(text)


def _until(text: str, whose: Whose, now_us: int) -> int:
    zone = ZoneInfo(whose.tenant.time_zone)
    text = text.strip()
    if text == "midnight":
        return day_at(now_us, zone).boundary_us
    if span := SPAN.fullmatch(text):
        return now_us + int(span[1]) * SPAN_US[span[2]]
    try:
        at = datetime.fromisoformat(text)
        at = at if at.tzinfo is not None else at.replace(tzinfo=zone)
        return round(at.timestamp()) * SECOND_US
    except (ValueError, OverflowError) as error:
        seen = f"; it is {text:.40}" if text else ""
        raise _no(f"{UNTIL} (in {zone.key} if it names no zone){seen}.", "until") from error


def _text(order: Order, name: str) -> str:
    given = order.get(name)
    if given is None:
        return ""
    if not isinstance(given, str):
        raise _no(f"`{name}` must be text.", name)
    return given


def _no(text: str, name: str) -> RefusedError:
    return RefusedError(Refusal(Reason.INVALID_REQUEST, text, name))
