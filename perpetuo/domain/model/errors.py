"""
Why does a call not get the answer it asked for?

A refusal is a value. ``Reason`` names every row of the contract's error table, by its code; the
edge turns it into status, type and headers in one table of its own.
"""

from collections.abc import Mapping
from enum import Enum

import attrs


class Reason(Enum):
    INVALID_API_KEY = "invalid_api_key"
    API_KEY_EXPIRED = "api_key_expired"
    MODEL_NOT_FOUND = "model_not_found"
    MODEL_NOT_ALLOWED = "model_not_allowed"
    RATE_LIMIT_EXCEEDED = "rate_limit_exceeded"
    CONCURRENCY_LIMIT_EXCEEDED = "concurrency_limit_exceeded"
    BUDGET_EXCEEDED = "budget_exceeded"
    BUDGET_RESERVED = "budget_reserved"
    MODEL_NOT_PRICED = "model_not_priced"
    COST_NOT_BOUNDED = "cost_not_bounded"
    REQUEST_TIMEOUT = "request_timeout"
    INVALID_REQUEST = "invalid_request"
    REQUEST_TOO_LARGE = "request_too_large"
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    IDEMPOTENCY_KEY_INVALID = "idempotency_key_invalid"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    IDEMPOTENCY_NOT_STORED = "idempotency_not_stored"
    IDEMPOTENCY_OUTCOME_UNKNOWN = "idempotency_outcome_unknown"
    IDEMPOTENCY_IN_PROGRESS = "idempotency_in_progress"
    UPSTREAM_CREDENTIALS = "upstream_credentials"
    UPSTREAM_ERROR = "upstream_error"
    UPSTREAM_RATE_LIMITED = "upstream_rate_limited"
    NO_HEALTHY_UPSTREAM = "no_healthy_upstream"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    STORE_UNAVAILABLE = "store_unavailable"
    AUDIT_UNAVAILABLE = "audit_unavailable"
    SHUTTING_DOWN = "shutting_down"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"


@attrs.frozen
class Refusal:
    """
    A call that gets no answer of a provider.

    ``message`` is for the caller: what happened, which limit, what remains, when to try again; it
    never names internal hosts. ``retry_after_us`` is the exact wait where one is known.
    """

    reason: Reason
    message: str
    param: str | None = None
    retry_after_us: int | None = None
    reached: Mapping[str, str | int | None] | None = None
    """The limit that said no, and how full it was: for operators, beside the sentence for the caller."""
