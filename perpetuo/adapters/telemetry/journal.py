"""
What do people hear of a call, of a refusal, of a store in trouble?

Rule 1: everything comes from the one finished `Event` (or note); nothing is measured here.
Rule 2: one line per admitted call; a refusal is counted, and has a line only at level ``debug``: floods are
read in the by-the-minute rows.
Rule 3: a store in trouble has a line at once, then one every 10 s with how often it failed and what that means, and
one when it is back.
"""

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import msgspec

from perpetuo.adapters.telemetry.logs import Log, scrubbed
from perpetuo.adapters.telemetry.metrics import ABANDONED, HOLD_EXCEEDED, RELOADS, STORE_ERRORS, Labels, Metrics, Usage
from perpetuo.domain.model.admission import Abandoned
from perpetuo.domain.model.events import Event, Outcome, RefusalNote
from perpetuo.domain.model.money import usd
from perpetuo.domain.model.settings import Settings
from perpetuo.domain.policy.breaker import BreakerPhase, BreakerReading

REPEAT_SECONDS = 10.0
CALM_SECONDS = 2.5
"""Without a failure, until a store counts as back: those who fail try again each second, while others may succeed."""

MEANING = {
    "ledger": "calls are refused with 503 until Redis answers; those in flight are settled when it does",
    "stream": "finished events wait in Redis; nothing is lost",
    "sql": "finished events wait in Redis until SQL takes them; calls are not affected",
    "breakers": "each worker goes by what it sees itself",
}

_FINE = frozenset({Outcome.COMPLETED.value, Outcome.CANCELLED.value})


@attrs.define
class _Trouble:
    """A store's failures since ``began``: how many, the last one, and when the last line was written."""

    began: float
    last: float
    written: float
    failures: int = 1


class TelemetryJournal:
    """
    `perpetuo.domain.ports.Journal` into log and metrics; refusals also go to ``note``, towards SQL.

    Finished calls also go to ``trace``, where traces are on.
    """

    def __init__(
        self, log: Log, metrics: Metrics, monotonic: Callable[[], float], note: Callable[[RefusalNote], None]
    ) -> None:
        self._log = log
        self._metrics = metrics
        self._monotonic = monotonic
        self._note = note
        self._troubles: dict[str, _Trouble] = {}
        self.trace: Callable[[Event], None] | None = None

    def configure(self, settings: Settings) -> None:
        """Take over the names of a new configuration: only they become labels."""
        self._metrics.configure(Labels.of(settings.tenants, settings.models.by_name, settings.providers))

    def goes_by(self, version: str, read_us: int) -> None:
        """The configuration in force, and when it was read."""
        self._metrics.goes_by(version, read_us)

    def reloaded(self, result: str) -> None:
        """A changed configuration was loaded: ``success`` or ``failure``."""
        self._metrics.add(RELOADS, result)

    # --- the port --------------------------------------------------------------------------------

    def finished(self, event: Event) -> None:
        self._metrics.finished(event)
        level = "info" if event.outcome in _FINE else "warning"
        if self._log.enabled(level):
            self._log.trusted(level, "call", call_fields(event))
        if self.trace is not None:
            self.trace(event)

    def refused(self, note: RefusalNote) -> None:
        self._metrics.refused(note)
        self._note(note)
        if self._log.enabled("debug"):
            self.log(
                "debug", "refused", request_id=note.request_id, tenant=note.tenant_id, key=note.key_name,
                reason=note.reason, status=note.status, model=note.model, client_ip=note.client_ip,
            )  # fmt: skip

    def attempted(self, provider: str, outcome: str) -> None:
        self._metrics.attempted(provider, outcome)

    def hold_exceeded(self, event: Event) -> None:
        self._metrics.add(HOLD_EXCEEDED)
        self.log(
            "error", "hold_exceeded", request_id=event.request_id, tenant=event.tenant_id, provider=event.provider,
            model=event.upstream_model, cost_usd=usd(event.cost_nano_usd), held_usd=usd(event.hold_nano_usd),
            meaning="the provider did not keep to the output limit; charged in full",
        )  # fmt: skip

    def in_flight(self, calls: int) -> None:
        self._metrics.in_flight(calls, self._monotonic())

    def occupies(self, usage: Usage) -> None:
        """What this worker occupies, for the metrics."""
        self._metrics.occupies(usage)

    def store_error(self, store: str, text: str) -> None:
        self._metrics.add(STORE_ERRORS, store)
        now, trouble = self._monotonic(), self._troubles.get(store)
        if trouble is None:
            trouble = self._troubles[store] = _Trouble(now, now, now)
        else:
            trouble.failures += 1
            trouble.last = now
            if now - trouble.written < REPEAT_SECONDS:
                return
            trouble.written = now
        self.log(
            "error", "store_away", store=store, problem=text, failures=trouble.failures,
            seconds=round(now - trouble.began, 1), meaning=MEANING.get(store),
        )  # fmt: skip

    def store_back(self, store: str) -> None:
        trouble, now = self._troubles.get(store), self._monotonic()
        if trouble is None or now - trouble.last < CALM_SECONDS:
            return
        del self._troubles[store]
        self.log(
            "info", "store_back", store=store, seconds=round(trouble.last - trouble.began, 1), failures=trouble.failures
        )  # fmt: skip

    def abandoned(self, calls: Sequence[Abandoned]) -> None:
        self._metrics.add(ABANDONED, by=len(calls))
        for call in calls:
            self.log(
                "warning", "abandoned", request_id=call.call, tenant=call.tenant, charged_usd=usd(call.charge),
                meaning="its worker died; charged at its hold until a late settlement corrects it",
            )  # fmt: skip

    def breaker_changed(self, reading: BreakerReading) -> None:
        """For the boards' ``on_change``."""
        phase = reading.view.phase
        level = "warning" if phase is BreakerPhase.OPEN else "info"
        self.log(level, f"breaker_{phase.value}", provider=reading.provider, cause=reading.cause.value)

    def log(self, level: str, event: str, **fields: Any) -> None:
        self._log.line(level, event, fields)


def call_fields(event: Event) -> dict[str, Any]:
    """The line of a call, contract §7. What came from outside is cut and scrubbed: ids and codes can be anything."""
    return {
        "request_id": event.request_id,
        "trace_id": event.trace_id,
        "tenant": event.tenant_id,
        "key": event.key_name,
        "model": event.model,
        "provider": event.provider,
        "status": event.status,
        "outcome": event.outcome,
        "error_code": scrubbed(event.error_code) if event.error_code else None,
        "attempts": len(event.attempts),
        "input_tokens": event.input_tokens,
        "output_tokens": event.output_tokens,
        "cost_usd": msgspec.Raw(usd(event.cost_nano_usd).encode()),
        "latency_ms": round(event.latency_ms, 3),
        "overhead_ms": round(event.overhead_ms, 3),
        "first_token_ms": None if event.first_token_ms is None else round(event.first_token_ms, 3),
        "idempotency": event.idempotency,
    }
