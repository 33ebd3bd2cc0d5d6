"""``/v1/models``, ``/v1/key``, ``/v1/requests/{id}``: what a key can ask about itself."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from litestar import Request, Response, Router, get
from litestar.di import Provide

from perpetuo.domain.gateway.account import Standing, callable_models, find_request, standing
from perpetuo.domain.model.admission import BudgetReading
from perpetuo.domain.model.budgets import Raise
from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.domain.model.events import Event, RefusalNote
from perpetuo.domain.model.models import Model
from perpetuo.domain.model.money import usd
from perpetuo.domain.model.tenants import Limits
from perpetuo.domain.policy.raises import of_budget
from perpetuo.domain.ports import StoreUnavailable
from perpetuo.entrypoints.http import intake
from perpetuo.entrypoints.http.refusals import RefusedError
from perpetuo.entrypoints.http.request_id import RequestIdMiddleware
from perpetuo.entrypoints.http.wired import Caller, Container


async def provide_caller(request: Request[Any, Any, Any], container: Container) -> Caller:
    """The caller of a `GET`: the same checks as a call's."""
    head = intake.read_head(request.scope["headers"])
    refusal = intake.check_framing(head, container.gateway.settings.server)
    if refusal is not None:
        raise RefusedError(refusal, close=True)
    key = intake.credential(head)
    caller = key if isinstance(key, Refusal) else container.gateway.authenticate(key)
    if isinstance(caller, Refusal):
        raise RefusedError(caller)
    return caller


@get("/models", summary="Models this key may call", sync_to_thread=False)
def list_models(caller: Caller, container: Container) -> dict[str, Any]:
    models = callable_models(container.gateway.settings, caller)
    return {"object": "list", "data": [_model(model) for model in models]}


@get("/models/{model_id:path}", summary="One model", sync_to_thread=False)
def get_model(model_id: str, caller: Caller, container: Container) -> dict[str, Any]:
    name = model_id.lstrip("/")
    for model in callable_models(container.gateway.settings, caller):
        if model.name == name:
            return _model(model)
    raise RefusedError(Refusal(Reason.MODEL_NOT_FOUND, "There is no such model, or your key may not call it.", "model"))


@get("/key", summary="The calling key: tenant, plan, limits, what is used, held and left")
async def get_key(caller: Caller, container: Container) -> dict[str, Any]:
    try:
        return _standing(await standing(container.ledger, container.gateway.admission, caller))
    except StoreUnavailable as error:
        raise RefusedError(store_away("ledger")) from error


@get("/requests/{request_id:str}", summary="One of your own calls, by its x-request-id")
async def get_request(request_id: str, caller: Caller, container: Container) -> Response[dict[str, Any]]:
    try:
        found = await find_request(container.ledger, container.store, container.recent, caller, request_id)
    except StoreUnavailable as error:
        raise RefusedError(store_away("event store")) from error
    match found:
        case Event():
            return Response(_event(found))
        case RefusalNote():
            return Response(_refused(found))
        case _:
            raise RefusedError(
                Refusal(
                    Reason.NOT_FOUND,
                    "No call of yours with this request id is known. A finished call can be asked for after at most "
                    "2 seconds, a refused one for 10 minutes.",
                )
            )


def store_away(what: str) -> Refusal:
    return Refusal(
        Reason.STORE_UNAVAILABLE,
        f"The gateway can't reach its {what} at the moment. Try again in a second.",
        retry_after_us=1_000_000,
    )


def _model(model: Model) -> dict[str, Any]:
    return {"id": model.name, "object": "model", "created": 0, "owned_by": "perpetuo"}


def _standing(standing: Standing) -> dict[str, Any]:
    caller = standing.caller
    return {
        "object": "key",
        "tenant": caller.tenant.id,
        "plan": caller.tenant.plan,
        "key": caller.key.name,
        "expires_at": iso(caller.key.expires_us) if caller.key.expires_us is not None else None,
        "models": list(caller.key.models or caller.tenant.models),
        "limits": _limits(caller.tenant.limits),
        "key_limits": _limits(caller.key.limits),
        "budgets": [_budget(reading, of_budget(standing.raises, reading)) for reading in standing.budgets],
        "use": [
            {
                "scope": use.scope,
                "requests_last_minute": use.admitted_last_minute,
                "next_slot_in_ms": -(-use.oldest_leaves_us // 1_000),
                "in_flight": use.in_flight,
            }
            for use in standing.usage
        ],
    }


def _limits(limits: Limits) -> dict[str, Any]:
    return {
        "rate_per_minute": limits.rate_per_minute,
        "concurrency": limits.concurrency,
        "budget_day_usd": usd(limits.budget_day) if limits.budget_day is not None else None,
        "budget_month_usd": usd(limits.budget_month) if limits.budget_month is not None else None,
    }


def _budget(reading: BudgetReading, raises: Sequence[Raise]) -> dict[str, Any]:
    """``limit_usd`` has what an operator raised it by; ``raised_until``: when the first of that ends."""
    raises = raises if reading.limit is not None else ()
    return {
        "scope": reading.scope,
        "period": reading.period,
        "window": reading.window,
        "limit_usd": usd(reading.limit) if reading.limit is not None else None,
        "used_usd": usd(reading.spent),
        "held_usd": usd(reading.held),
        "remaining_usd": usd(reading.remaining) if reading.remaining is not None else None,
        "resets_at": iso(reading.resets_at_us),
        "raised_usd": usd(sum(one.amount for one in raises)) if raises else None,
        "raised_until": iso(min(one.until_us for one in raises)) if raises else None,
    }


def _event(event: Event) -> dict[str, Any]:
    running = event.status == 0
    return {
        "object": "request",
        "request_id": event.request_id,
        "id": event.id,
        "created_at": iso(event.occurred_at_us),
        "status": None if running else event.status,
        "outcome": "in_progress" if running else event.outcome,
        "error_code": None if running else event.error_code,
        "model": event.model,
        "provider": event.provider,
        "stream": event.stream,
        "attempts": [
            {name: attempt.get(name) for name in ("provider", "model", "outcome", "status", "ms")}
            for attempt in event.attempts
        ],
        "usage": {
            "input_tokens": event.input_tokens,
            "output_tokens": event.output_tokens,
            "cached_tokens": event.cached_tokens,
            "basis": event.usage_basis,
        },
        "cost_usd": None if running else usd(event.cost_nano_usd),
        "held_usd": usd(event.hold_nano_usd),
        "latency_ms": event.latency_ms,
        "idempotency": event.idempotency,
        "tag": event.tag,
    }


def _refused(note: RefusalNote) -> dict[str, Any]:
    return {
        "object": "request",
        "request_id": note.request_id,
        "created_at": iso(note.at_us),
        "status": note.status,
        "outcome": "replayed" if note.reason == "replayed" else "refused",
        "error_code": None if note.reason == "replayed" else note.reason,
        "model": note.model,
        "attempts": [],
        "cost_usd": "0",
    }


def iso(at_us: int) -> str:
    """UTC, to the millisecond."""
    moment = datetime.fromtimestamp(at_us / 1_000_000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


account_router = Router(
    path="/v1",
    route_handlers=[list_models, get_model, get_key, get_request],
    dependencies={"caller": Provide(provide_caller)},
    middleware=[RequestIdMiddleware()],
    tags=["Account"],
)
