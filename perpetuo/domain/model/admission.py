"""
The words of the ledger's atomic steps: what `admit`, `extend`, `settle`, `cancel` take and answer.

Times are µs since the epoch on the ledger's clock, spans are µs, money is nano-USD.
A *scope* is whose limit it is: a tenant (``acme``) or one key of it (``acme/batch``).
"""

from enum import Enum

import attrs

from perpetuo.domain.model.events import Event
from perpetuo.domain.model.money import ZERO, Nano
from perpetuo.domain.model.records import record

LEASE_US = 30_000_000
"""How long a call in flight is believed to be alive without a renewal."""
MINUTE_US = 60_000_000


# --- what is asked -------------------------------------------------------------------------------


@attrs.frozen
class RateLimit:
    """At most ``limit`` admissions of ``scope`` in any ``window_us``."""

    scope: str
    limit: int
    window_us: int = MINUTE_US


@attrs.frozen
class ConcurrencyLimit:
    scope: str
    limit: int


@attrs.frozen
class BudgetLimit:
    """
    A budget over a calendar window. ``limit`` ``None`` counts spending and refuses nothing.

    The ledger's clock picks the window: ``current`` before ``boundary_us``, ``following`` from then on.
    """

    scope: str
    period: str
    """``day`` or ``month``."""
    limit: Nano | None
    current: str
    """``2026-11-23`` or ``2026-11``."""
    following: str
    boundary_us: int
    following_end_us: int


class UnknownOutcome(Enum):
    """What a retry gets when the first run's worker died."""

    REEXECUTE = "reexecute"
    FAIL = "fail"


@attrs.frozen
class Claim:
    """A claim on an idempotency key. ``key`` is hex SHA-256 over tenant, method, path and the client's key."""

    key: str
    fingerprint: str
    ttl_us: int
    lease_us: int = LEASE_US
    on_unknown: UnknownOutcome = UnknownOutcome.REEXECUTE


@record
class AdmitRequest:
    """Everything one admission touches: all of it or nothing."""

    call: str
    tenant: str
    rates: tuple[RateLimit, ...]
    concurrency: tuple[ConcurrencyLimit, ...]
    budgets: tuple[BudgetLimit, ...]
    hold: Nano
    hold_min: Nano
    """Grant ``min(hold, what is left)`` if that is at least this; equal to ``hold`` unless lowering is configured."""
    claim: Claim | None
    abandoned: Event
    """The row to write if this call's worker dies (cost and hold are filled in by the ledger)."""
    lease_us: int = LEASE_US
    replays: RateLimit | None = None
    """How often kept answers are given out; a replay counts here and nowhere else."""

    @property
    def has_budget(self) -> bool:
        return any(b.limit is not None for b in self.budgets)


# --- what is answered ----------------------------------------------------------------------------


@record
class BudgetReading:
    """A budget window as the decision saw it, the call's own hold included when admitted."""

    scope: str
    period: str
    window: str
    limit: Nano | None
    resets_at_us: int
    spent: Nano
    held: Nano

    @property
    def remaining(self) -> Nano | None:
        return None if self.limit is None else Nano(self.limit - self.spent - self.held)


@record
class RateReading:
    """A rate window after the admission. ``reset_us`` is the wait until all of the limit is free again."""

    scope: str
    limit: int
    remaining: int
    reset_us: int


@record
class Hold:
    """A call in flight: what its worker keeps to renew, settle and, after data loss, re-create it."""

    call: str
    tenant: str
    at_us: int
    amount: Nano
    budgets: tuple[BudgetReading, ...]
    concurrency: tuple[str, ...]
    rates: tuple[str, ...]
    claim: Claim | None
    fence: int
    epoch: str
    """Which life of the store admitted it (Redis's run id)."""
    abandoned: Event
    lease_us: int = LEASE_US

    @property
    def left(self) -> Nano | None:
        """What its tightest budget still had; ``None``: none is limited."""
        return min([read.remaining for read in self.budgets if read.remaining is not None], default=None)


@record
class Admitted:
    hold: Hold
    rates: tuple[RateReading, ...]
    reexecuted: bool = False
    """The idempotency key's first run died without an outcome; this is a second run."""


@attrs.frozen
class StoredAnswer:
    """An answer as kept under an idempotency key; replayed byte for byte."""

    status: int
    content_type: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    call: str = ""
    """Whose answer it is: the id of that call's event. Empty: kept before this was."""


@attrs.frozen
class Replay:
    answer: StoredAnswer


@attrs.frozen
class RateRefused:
    scope: str
    limit: int
    retry_after_us: int


@attrs.frozen
class ConcurrencyRefused:
    scope: str
    limit: int


@attrs.frozen
class BudgetRefused:
    """``reserved``: the call would fit what is spent, but not what calls in flight hold."""

    reading: BudgetReading
    reserved: bool


class ClaimRefused(Enum):
    """The idempotency key says no."""

    IN_PROGRESS = "in_progress"
    REUSED = "reused"
    NOT_STORED = "not_stored"
    OUTCOME_UNKNOWN = "outcome_unknown"


class AdmitRefused(Enum):
    UNSEEDED = "unseeded"
    """The store lost its counters; budgets are closed until they are read back from SQL."""
    CANCELLED = "cancelled"
    """A cancel of this call came first."""
    NO_ROOM = "no_room"
    """No room left for events."""


AdmitDecision = Admitted | Replay | RateRefused | ConcurrencyRefused | BudgetRefused | ClaimRefused | AdmitRefused


@attrs.frozen
class Extended:
    amount: Nano
    """The hold as it is now."""


ExtendDecision = Extended | BudgetRefused | AdmitRefused


class Keep(Enum):
    """What becomes of the idempotency key at settlement."""

    STORE = "store"
    """Keep the answer, if there is room."""
    MARK = "mark"
    """Done, but not kept: the same key gets 409 from now on."""
    FREE = "free"
    """Worth retrying: the key is free again."""


@record
class Settlement:
    """The end of a call: charge, release, event and answer, as one fact."""

    hold: Hold
    charge: Nano
    event: Event
    keep: Keep = Keep.FREE
    answer: StoredAnswer | None = None


@record
class Settled:
    """
    ``stored``: the answer is kept. ``revision``: of the event row (2 corrects an abandoned call).
    ``repeated``: this settlement had been done before and did nothing.

    ``windows``: as the hold knows them; ``money``: what is spent and held in each now.
    """

    stored: bool = False
    revision: int = 1
    repeated: bool = False
    windows: tuple[BudgetReading, ...] = ()
    money: tuple[tuple[Nano, Nano], ...] = ()

    @property
    def budgets(self) -> tuple[BudgetReading, ...]:
        """The windows with the money they have now."""
        pairs = zip(self.windows, self.money, strict=True)
        return tuple(attrs.evolve(window, spent=spent, held=held) for window, (spent, held) in pairs)

    @property
    def left(self) -> Nano | None:
        """What the tightest budget still has, below zero when it is exceeded; ``None``: none is limited."""
        pairs = zip(self.windows, self.money, strict=True)
        return min([Nano(w.limit - spent - held) for w, (spent, held) in pairs if w.limit is not None], default=None)


@attrs.frozen
class Abandoned:
    """A call the reaper settled, for logs and metrics."""

    call: str
    tenant: str
    charge: Nano = ZERO
