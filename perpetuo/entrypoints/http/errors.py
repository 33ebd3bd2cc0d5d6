"""
How does a refusal look from outside?

One table: `Reason` → status, type, should-retry. Everything a client sees of a refusal is made here.
"""

import attrs
import msgspec

from perpetuo.domain.model.errors import Reason, Refusal

Headers = list[tuple[str, str]]


@attrs.frozen
class Row:
    """``retry``: may an SDK try again by itself?"""

    status: int
    type: str
    retry: bool = False


_INVALID = "invalid_request_error"
_CONFLICT = "conflict_error"
_UPSTREAM = "upstream_error"
_STORE = "store_error"

TABLE: dict[Reason, Row] = {
    Reason.INVALID_API_KEY: Row(401, "authentication_error"),
    Reason.API_KEY_EXPIRED: Row(401, "authentication_error"),
    Reason.MODEL_NOT_FOUND: Row(404, _INVALID),
    Reason.MODEL_NOT_ALLOWED: Row(403, "permission_error"),
    Reason.RATE_LIMIT_EXCEEDED: Row(429, "rate_limit_error", retry=True),
    Reason.CONCURRENCY_LIMIT_EXCEEDED: Row(429, "rate_limit_error", retry=True),
    Reason.BUDGET_EXCEEDED: Row(403, "budget_error"),
    Reason.BUDGET_RESERVED: Row(429, "rate_limit_error", retry=True),
    Reason.MODEL_NOT_PRICED: Row(403, "budget_error"),
    Reason.COST_NOT_BOUNDED: Row(403, "budget_error"),
    Reason.REQUEST_TIMEOUT: Row(408, _INVALID, retry=True),
    Reason.INVALID_REQUEST: Row(400, _INVALID),
    Reason.REQUEST_TOO_LARGE: Row(413, _INVALID),
    Reason.UNSUPPORTED_ENCODING: Row(415, _INVALID),
    Reason.IDEMPOTENCY_KEY_INVALID: Row(400, _INVALID),
    Reason.IDEMPOTENCY_KEY_REUSED: Row(422, _INVALID),
    Reason.IDEMPOTENCY_NOT_STORED: Row(409, _CONFLICT),
    Reason.IDEMPOTENCY_OUTCOME_UNKNOWN: Row(409, _CONFLICT),
    Reason.IDEMPOTENCY_IN_PROGRESS: Row(409, _CONFLICT, retry=True),
    Reason.UPSTREAM_CREDENTIALS: Row(502, _UPSTREAM),
    Reason.UPSTREAM_ERROR: Row(502, _UPSTREAM),
    Reason.UPSTREAM_RATE_LIMITED: Row(429, _UPSTREAM, retry=True),
    Reason.NO_HEALTHY_UPSTREAM: Row(503, _UPSTREAM, retry=True),
    Reason.UPSTREAM_TIMEOUT: Row(504, _UPSTREAM),
    Reason.STORE_UNAVAILABLE: Row(503, _STORE, retry=True),
    Reason.AUDIT_UNAVAILABLE: Row(503, _STORE, retry=True),
    Reason.SHUTTING_DOWN: Row(503, _STORE, retry=True),
    Reason.NOT_FOUND: Row(404, _INVALID),
    Reason.METHOD_NOT_ALLOWED: Row(405, _INVALID),
}


def status_of(refusal: Refusal, budget_status: int = 403) -> int:
    """The status; ``errors.budgetStatus`` replaces the 403 of a spent budget."""
    return budget_status if refusal.reason is Reason.BUDGET_EXCEEDED else TABLE[refusal.reason].status


def envelope(refusal: Refusal) -> bytes:
    """The error as OpenAI's SDKs expect it, with ``source``."""
    return msgspec.json.encode(
        {
            "error": {
                "message": refusal.message,
                "type": TABLE[refusal.reason].type,
                "param": refusal.param,
                "code": refusal.reason.value,
                "source": "gateway",
            }
        }
    )


def retry_headers(refusal: Refusal) -> Headers:
    """``x-should-retry``, which official SDKs obey, and the exact wait where it is known (rounded up)."""
    headers: Headers = [("x-should-retry", "true" if TABLE[refusal.reason].retry else "false")]
    if refusal.retry_after_us is not None:
        milliseconds = -(-refusal.retry_after_us // 1_000)
        headers += [("retry-after", str(-(-milliseconds // 1_000))), ("retry-after-ms", str(milliseconds))]
    return headers
