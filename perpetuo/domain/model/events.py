"""What is written down of a call: one record, from which row, log line, metrics and page are made."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import attrs

from perpetuo.domain.model.records import record


class Outcome(StrEnum):
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    """The client left, and the provider call was stopped."""
    TRUNCATED = "truncated"
    """The provider's stream ended without its terminal event."""
    ABANDONED = "abandoned"
    """The worker died; charged at the hold."""


@record(kw_only=True)
class Event:
    """
    One row of the table ``events``; field names are its columns. Holds no prompt, output or secret.

    ``revision`` is not in here: the ledger knows it (1, or 2 when it corrects an abandoned row).
    Times are milliseconds, ``occurred_at_us`` is µs since the epoch, money is nano-USD.
    """

    id: str
    """UUIDv7 as text; also the call id."""
    occurred_at_us: int
    tenant_id: str
    key_name: str
    kind: str
    model: str
    """The configured name (``*`` for the catch-all)."""
    request_id: str
    status: int
    outcome: str
    tag: str | None = None
    provider: str | None = None
    upstream_model: str | None = None
    error_code: str | None = None
    stream: bool = False
    attempts: tuple[Mapping[str, Any], ...] = ()
    decision: Mapping[str, Any] = attrs.field(factory=dict)
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    usage_basis: str = "reported"
    cost_nano_usd: int = 0
    price_version: str | None = None
    hold_nano_usd: int = 0
    budget_day: str | None = None
    latency_ms: float = 0.0
    first_token_ms: float | None = None
    overhead_ms: float = 0.0
    idempotency: str = "none"
    upstream_request_id: str | None = None
    trace_id: str | None = None
    client_ip: str | None = None


@record(kw_only=True)
class RefusalNote:
    """One refusal or replay, on its way to the by-the-minute table and to ``/v1/requests/{id}``."""

    at_us: int
    request_id: str
    tenant_id: str
    """Empty for a failed authentication; then ``client_ip`` is what rows are grouped by."""
    key_name: str
    reason: str
    status: int
    model: str
    client_ip: str | None = None
    decision: Mapping[str, Any] = attrs.field(factory=dict)
    count: int = 1
    """How many refusals of the same minute, reason and caller this note stands for."""
    last_us: int | None = None
    """When the last of them was; ``None``: there is only one, at ``at_us``."""


@attrs.frozen(kw_only=True)
class RefusalMinute:
    """Refusals of one tenant, key and reason (or of one client address) within one minute."""

    minute_us: int
    tenant_id: str
    key_name: str
    reason: str
    client_ip: str
    """Empty, unless the caller could not be authenticated."""
    count: int
    first_us: int
    last_us: int
    sample: Mapping[str, Any]
    """The first of them: ``request_id``, ``status``, ``model``, ``decision``."""


@attrs.frozen(kw_only=True)
class EventFilter:
    """Which events to list; ``None`` leaves a column alone. ``since_us`` is in, ``until_us`` is out."""

    tenant_id: str | None = None
    key_name: str | None = None
    model: str | None = None
    provider: str | None = None
    status: int | None = None
    outcome: str | None = None
    request_id: str | None = None
    tag: str | None = None
    kind: str | None = None
    """``call``: all that was asked for with a tenant's key; ``admin``: all that operators did; else one kind."""
    since_us: int | None = None
    until_us: int | None = None
