"""
The contract's error table, written down once more: what a client may rely on, independent of the code that does it.

`check` holds one answer to its row.
"""

from typing import Any

import attrs
import httpx

from perpetuo.domain.model.errors import Reason


@attrs.frozen
class Row:
    """``wait``: the wait in ms that ``retry-after-ms`` names exactly; ``some`` wait, or none."""

    status: int
    type: str
    retry: bool = False
    wait: int | str | None = None


ROWS: dict[Reason, Row] = {
    Reason.INVALID_API_KEY: Row(401, "authentication_error"),
    Reason.API_KEY_EXPIRED: Row(401, "authentication_error"),
    Reason.MODEL_NOT_FOUND: Row(404, "invalid_request_error"),
    Reason.MODEL_NOT_ALLOWED: Row(403, "permission_error"),
    Reason.RATE_LIMIT_EXCEEDED: Row(429, "rate_limit_error", True, "some"),
    Reason.CONCURRENCY_LIMIT_EXCEEDED: Row(429, "rate_limit_error", True, 1_000),
    Reason.BUDGET_EXCEEDED: Row(403, "budget_error", wait="some"),
    Reason.BUDGET_RESERVED: Row(429, "rate_limit_error", True, 1_000),
    Reason.MODEL_NOT_PRICED: Row(403, "budget_error"),
    Reason.COST_NOT_BOUNDED: Row(403, "budget_error"),
    Reason.REQUEST_TIMEOUT: Row(408, "invalid_request_error", True),
    Reason.INVALID_REQUEST: Row(400, "invalid_request_error"),
    Reason.REQUEST_TOO_LARGE: Row(413, "invalid_request_error"),
    Reason.UNSUPPORTED_ENCODING: Row(415, "invalid_request_error"),
    Reason.IDEMPOTENCY_KEY_INVALID: Row(400, "invalid_request_error"),
    Reason.IDEMPOTENCY_KEY_REUSED: Row(422, "invalid_request_error"),
    Reason.IDEMPOTENCY_NOT_STORED: Row(409, "conflict_error"),
    Reason.IDEMPOTENCY_OUTCOME_UNKNOWN: Row(409, "conflict_error"),
    Reason.IDEMPOTENCY_IN_PROGRESS: Row(409, "conflict_error", True, 1_000),
    Reason.UPSTREAM_CREDENTIALS: Row(502, "upstream_error"),
    Reason.UPSTREAM_ERROR: Row(502, "upstream_error"),
    Reason.UPSTREAM_RATE_LIMITED: Row(429, "upstream_error", True, "some"),
    Reason.NO_HEALTHY_UPSTREAM: Row(503, "upstream_error", True, "some"),
    Reason.UPSTREAM_TIMEOUT: Row(504, "upstream_error"),
    Reason.STORE_UNAVAILABLE: Row(503, "store_error", True, 1_000),
    Reason.AUDIT_UNAVAILABLE: Row(503, "store_error", True, 5_000),
    Reason.SHUTTING_DOWN: Row(503, "store_error", True, 1_000),
    Reason.NOT_FOUND: Row(404, "invalid_request_error"),
    Reason.METHOD_NOT_ALLOWED: Row(405, "invalid_request_error"),
}


def check(answer: httpx.Response, reason: Reason, param: str | None = None) -> dict[str, Any]:
    """Is this answer what the contract says of ``reason``, in body and headers? Returns the error."""
    row = ROWS[reason]
    assert answer.headers["content-type"].startswith("application/json"), answer.text
    assert set(answer.json()) == {"error"}
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code", "source"}
    assert (answer.status_code, error["type"], error["code"]) == (row.status, row.type, reason.value), answer.text
    assert (error["param"], error["source"]) == (param, "gateway")
    assert answer.headers["x-should-retry"] == ("true" if row.retry else "false")
    assert len(answer.headers.get_list("x-request-id")) == 1
    check_wait(answer, row)
    return error


def check_wait(answer: httpx.Response, row: Row) -> None:
    """``retry-after`` in whole seconds, rounded up, and ``retry-after-ms``: both, or none where no time is known."""
    seconds, exact = answer.headers.get("retry-after"), answer.headers.get("retry-after-ms")
    if row.wait is None:
        assert (seconds, exact) == (None, None)
        return
    assert seconds is not None
    assert exact is not None
    assert int(seconds) == -(-int(exact) // 1_000)
    assert int(exact) == row.wait if isinstance(row.wait, int) else int(exact) > 0
