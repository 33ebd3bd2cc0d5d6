"""
What does the ledger know of one call, and can it trust its clock of leases?

    unknown      --admitted; lost and renewed-->  CallRecord
    unknown      --cancelled-->                   Tombstone (60 s)
    CallRecord   --settled, cancelled-->          Tombstone (60 s)
    CallRecord   --lease ended, reaped-->         Reaped (24 h)
    Reaped       --settled late, cancelled-->     Tombstone (60 s)
    Tombstone, Reaped  --time over-->             unknown

A tombstone of a call that another life of the store admitted stays 24 h: of such a call "unknown" would
mean "lost, charge it", not "settled before".

The pulse: every renewal and every sweep of the reaper stamps the shard. A gap of more than 10 s between two
stamps means that the store was paused or away, so leases may have ended only because nobody could renew
them: nothing is reaped and no idempotency key claimed again for one full lease from the stamp that found
the gap. A shard that was never stamped has such a gap. An admission reads the pulse and never changes it.
"""

import attrs

from perpetuo.domain.model.admission import LEASE_US, Admitted, Hold
from perpetuo.domain.model.money import Nano

TOMBSTONE_US = 60_000_000
REAPED_KEPT_US = 86_400_000_000
GAP_US = 10_000_000


@attrs.frozen
class CallRecord:
    """A call in flight. ``amount`` is what it holds now; ``admitted`` the answer its admission was given."""

    admitted: Admitted
    amount: Nano
    lease_end_us: int

    @property
    def hold(self) -> Hold:
        return self.admitted.hold


@attrs.frozen
class Reaped:
    """A call that was settled at its hold because its lease had ended."""

    hold: Hold
    charge: Nano
    expires_us: int


@attrs.frozen
class Tombstone:
    """A call that is over; ``stored`` and ``revision`` are what its settlement was answered."""

    expires_us: int
    stored: bool = False
    revision: int = 1


CallState = CallRecord | Reaped | Tombstone | None


@attrs.frozen
class Pulse:
    """The last sign of life of a shard, and until when its leases prove nothing. µs."""

    stamp_us: int | None = None
    quiet_until_us: int = 0


def seen(call: CallState, now_us: int) -> CallState:
    """``call``, or ``None`` when its tombstone's time is over. A call in flight stays until settled or reaped."""
    if isinstance(call, Reaped | Tombstone) and now_us >= call.expires_us:
        return None
    return call


def tombstone(hold: Hold, epoch: str, now_us: int, *, stored: bool = False, revision: int = 1) -> Tombstone:
    """What is left of a settled call under the store's current ``epoch``."""
    kept = TOMBSTONE_US if hold.epoch == epoch else REAPED_KEPT_US
    return Tombstone(now_us + kept, stored, revision)


def beat(pulse: Pulse, now_us: int) -> Pulse:
    """Stamp the shard; a gap begins a quiet lease."""
    gap = pulse.stamp_us is None or now_us - pulse.stamp_us > GAP_US
    return Pulse(
        stamp_us=max(now_us, pulse.stamp_us or now_us),
        quiet_until_us=now_us + LEASE_US if gap else pulse.quiet_until_us,
    )


def trusted(pulse: Pulse, now_us: int) -> bool:
    """Does an ended lease prove that its worker is gone?"""
    return pulse.stamp_us is not None and now_us - pulse.stamp_us <= GAP_US and now_us >= pulse.quiet_until_us
