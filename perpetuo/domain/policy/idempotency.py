"""
Idempotency policy: does this request run, wait, replay, or conflict?

    Free         --claimed-->                                 Running (fence + 1)
    Running      --settled, answer kept-->                    Done
    Running      --settled, answer not kept-->                NotKept
    Running      --settled, worth retrying; cancelled-->      Free
    Running      --lease ended, claimed again (reexecute)-->  Running (fence + 1), ``reexecuted``
    any          --``expires_us`` reached-->                  Free, as if the key had never been seen (fence 0)

Rule 1: a key in any state but Free belongs to its fingerprint; another fingerprint is REUSED.
Rule 2: Running with a live lease is IN_PROGRESS. So is one whose lease has ended while the store is not
        trusted (see `calls.trusted`: it was away, its workers may be alive).
Rule 3: Running with an ended lease, trusted: OUTCOME_UNKNOWN if the *asking* claim says FAIL, else it
        runs again.
Rule 4: only the run that holds the key may change it: Running with the same call id *and* fence. Anybody
        else leaves it as it is and stores nothing.
Rule 5: an answer is kept iff its time to live is not 0, its body has at most ``max_bytes``, the tenant's
        kept bodies with it at most ``max_bytes_per_tenant``, and the store accepts answers. Not kept for size
        or room: NotKept. A time to live of 0: Free.
Rule 6: Done and NotKept expire ``ttl`` after settlement, Free 60 s after, Running ``max(ttl, 24 h)`` after the
        end of its lease (so that an unknown outcome is remembered even where nothing is kept).
"""

from typing import assert_never

import attrs

from perpetuo.domain.model.admission import Claim, ClaimRefused, Keep, Replay, StoredAnswer, UnknownOutcome

FREED_KEPT_US = 60_000_000
UNKNOWN_KEPT_US = 86_400_000_000


@attrs.frozen
class Free:
    fence: int = 0
    expires_us: int = 0


@attrs.frozen
class Running:
    fence: int
    call: str
    fingerprint: str
    lease_end_us: int
    expires_us: int


@attrs.frozen
class Done:
    fence: int
    fingerprint: str
    answer: StoredAnswer
    expires_us: int


@attrs.frozen
class NotKept:
    fence: int
    fingerprint: str
    expires_us: int


ClaimState = Free | Running | Done | NotKept
UNSEEN = Free()


@attrs.frozen
class Run:
    """The request may run, under this fence."""

    fence: int
    reexecuted: bool = False


@attrs.frozen
class Room:
    """What decides whether an answer can be kept: bytes, and whether the store takes any at all."""

    max_bytes: int
    max_bytes_per_tenant: int
    kept_bytes: int
    accepts: bool


def seen(state: ClaimState, now_us: int) -> ClaimState:
    """``state``, or an unseen key when its time is over."""
    return state if now_us < state.expires_us else UNSEEN


def ask(state: ClaimState, claim: Claim, now_us: int, trusted: bool) -> Run | Replay | ClaimRefused:
    """May a request with this claim run (rules 1 to 3)?"""
    state = seen(state, now_us)
    if isinstance(state, Free):
        return Run(state.fence + 1)
    if state.fingerprint != claim.fingerprint:
        return ClaimRefused.REUSED
    match state:
        case Done(answer=answer):
            return Replay(answer)
        case NotKept():
            return ClaimRefused.NOT_STORED
        case Running(lease_end_us=end) if now_us < end or not trusted:
            return ClaimRefused.IN_PROGRESS
        case Running() if claim.on_unknown is UnknownOutcome.FAIL:
            return ClaimRefused.OUTCOME_UNKNOWN
        case Running(fence=fence):
            return Run(fence + 1, reexecuted=True)
        case _:
            assert_never(state)


def start(claim: Claim, fence: int, call: str, now_us: int) -> Running:
    """The key while ``call`` runs under ``fence``."""
    end = now_us + claim.lease_us
    return Running(fence, call, claim.fingerprint, end, end + max(claim.ttl_us, UNKNOWN_KEPT_US))


def ours(state: ClaimState, call: str, fence: int, now_us: int) -> bool:
    """Does this run still hold the key (rule 4)?"""
    state = seen(state, now_us)
    return isinstance(state, Running) and state.call == call and state.fence == fence


def renew(state: ClaimState, claim: Claim, fence: int, call: str, now_us: int) -> ClaimState:
    """Renew the lease of the run that holds the key; nobody else's, and never to an earlier end."""
    if not isinstance(state, Running) or not ours(state, call, fence, now_us):
        return state
    return max(state, start(claim, fence, call, now_us), key=lambda run: run.lease_end_us)


def restore(state: ClaimState, claim: Claim, fence: int, call: str, now_us: int) -> ClaimState:
    """Claim the key again for a run the store has lost, unless somebody else has it."""
    state = seen(state, now_us)
    return start(claim, fence, call, now_us) if state == UNSEEN else state


def finish(claim: Claim, fence: int, keep: Keep, answer: StoredAnswer | None, room: Room, now_us: int) -> ClaimState:
    """The key after its own run has ended (rules 5 and 6)."""
    if keep is Keep.FREE or claim.ttl_us == 0:
        return Free(fence, now_us + FREED_KEPT_US)
    if keep is Keep.STORE and answer is not None and fits(answer, room):
        return Done(fence, claim.fingerprint, answer, now_us + claim.ttl_us)
    return NotKept(fence, claim.fingerprint, now_us + claim.ttl_us)


def fits(answer: StoredAnswer, room: Room) -> bool:
    size = len(answer.body)
    return room.accepts and size <= room.max_bytes and room.kept_bytes + size <= room.max_bytes_per_tenant
