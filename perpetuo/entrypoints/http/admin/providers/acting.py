"""What can an operator do to a breaker from here? The same for forms and for JSON."""

import re
from collections.abc import Mapping
from typing import Any

import attrs

from perpetuo.bootstrap import Container
from perpetuo.domain.gateway.operate import Done, force_breaker
from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.entrypoints.http.admin.asked import json_object, wrong
from perpetuo.entrypoints.http.admin.door import AnyRequest, Door, Operator
from perpetuo.entrypoints.http.admin.facts import SECOND_US, Facts
from perpetuo.entrypoints.http.refusals import RefusedError

LONGEST_OPEN = 86_400
DIGITS = re.compile(r"[0-9]{1,5}")


@attrs.frozen
class BreakerOrder:
    """``open_for_us`` ``None``: close it now."""

    provider: str
    open_for_us: int | None


def breaker_order(container: Container, order: Mapping[str, Any]) -> BreakerOrder:
    """Read ``provider``, ``action`` and ``seconds``; raises `RefusedError`."""
    provider, action = order.get("provider"), order.get("action")
    if not isinstance(provider, str) or provider not in container.settings.providers:
        raise RefusedError(Refusal(Reason.NOT_FOUND, f"There is no provider {provider!s:.200}.", "provider"))
    if action == "close":
        return BreakerOrder(provider, None)
    seconds = str(order.get("seconds", ""))
    if action != "open" or not (DIGITS.fullmatch(seconds) and 1 <= int(seconds) <= LONGEST_OPEN):
        text = f"`action` is `close`, or `open` with `seconds` from 1 to {LONGEST_OPEN}."
        raise RefusedError(Refusal(Reason.INVALID_REQUEST, text, "action"))
    return BreakerOrder(provider, int(seconds) * SECOND_US)


async def carry_out(
    container: Container, door: Door, request: AnyRequest, operator: Operator, order: BreakerOrder
) -> Done:
    return await force_breaker(
        container.stores.breakers,
        container.store,
        container.journal,
        container.system,
        door.actor(request, operator),
        order.provider,
        order.open_for_us,
    )


def breaker_fields(body: bytes) -> dict[str, Any]:
    """The JSON of an order; what its members may be is for `breaker_order`, but ``"5"`` is no number here."""
    found = json_object(body)
    seconds = found.get("seconds", 1)
    if type(seconds) is not int or not 1 <= seconds <= LONGEST_OPEN:
        raise wrong("seconds", f"must be an integer from 1 to {LONGEST_OPEN}")
    return found


def told(provider: str, verb: str, *, everywhere: bool, recorded: bool) -> Facts:
    """What an action did, in words."""
    text = f"The breaker of {provider} was {verb} on all workers."
    if not everywhere:
        text = f"Redis is away: the breaker of {provider} was {verb} on one worker only, until Redis is back."
    if not recorded:
        text += " The event table is away, so only the log says that it was you."
    return {"text": text, "level": "ok" if everywhere and recorded else "warn"}


def notice(query: Mapping[str, str], container: Container) -> Facts | None:
    """What the last form did: nothing of the address is shown but a provider we know."""
    provider, verb = query.get("provider", ""), query.get("breaker", "")
    if verb not in {"closed", "opened"} or provider not in container.settings.providers:
        return None
    return told(provider, verb, everywhere="only" not in query, recorded="recorded" not in query)
