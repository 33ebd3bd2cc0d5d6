"""Was every client told something, in time, of its own call, in words of the contract (S2, O5, and the error table)?"""

from collections import defaultdict
from collections.abc import Iterator

from perpetuo.domain.model.errors import Reason
from tests.chaos.checks import Violation
from tests.chaos.evidence import DEATHS, STOPS, STORES, Evidence
from tests.chaos.history import Answered, Asked
from tests.integration.gateway.contract import ROWS, Row

SLACK = 6.0
"""Seconds over the deadline that a busy machine and the network may take."""
RECOVERED = 10.0
"""Seconds after the end of a store's outage in which calls are admitted again, on a busy machine."""
RELOADED = 5.0
"""Seconds in which every worker that is not stopped has heard of a change."""
PASSED_ON = frozenset({400, 404, 413, 422})
"""Statuses of the provider's own that a client may see."""


def contract(evidence: Evidence) -> Iterator[Violation]:
    """Every answer is a 200 or a line of the error table."""
    for exchange in evidence.exchanges:
        answered = exchange.answered
        if answered is not None and answered.what == "fail":
            why = out_of_contract(answered)
            if why is not None:
                yield Violation("not_in_the_contract", f"{answered.id}: {why} ({answered})")


def out_of_contract(answered: Answered) -> str | None:
    """What of an error is not as the table says."""
    if answered.source == "provider":
        known = answered.status in PASSED_ON and answered.headers.get("x-should-retry") == "false"
        return None if known else "the provider's error was passed on"
    try:
        row = ROWS[Reason(answered.code)]
    except ValueError:
        return "no such code"
    if answered.type != row.type:
        return f"its type is {row.type}"
    if answered.status == 200:  # an error event in a stream has no headers any more
        return None
    if answered.status != row.status:
        return f"its status is {row.status}"
    if answered.headers.get("x-should-retry") != ("true" if row.retry else "false"):
        return "x-should-retry"
    return _wrong_wait(answered, row)


def _wrong_wait(answered: Answered, row: Row) -> str | None:
    seconds, exact = answered.headers.get("retry-after"), answered.headers.get("retry-after-ms")
    if row.wait is None:
        return None if seconds is None and exact is None else "it names a wait"
    if seconds is None or exact is None:
        return "it names no wait"
    if int(seconds) != -(-int(exact) // 1_000):
        return "two different waits"
    right = int(exact) == row.wait if isinstance(row.wait, int) else int(exact) > 0
    return None if right else f"a wait of {exact} ms"


def times(evidence: Evidence) -> Iterator[Violation]:
    """Nobody waits past the deadline, but for the time that a process was stopped."""
    for exchange in evidence.exchanges:
        asked, answered = exchange.asked, exchange.answered
        if answered is None:
            yield Violation("unanswered", f"{asked.id} of {asked.tenant}, sent at {asked.at:.3f}")
            continue
        stopped = evidence.faults_at(STOPS, asked.at, answered.at, asked.gateway)
        allowed = evidence.deadline + SLACK + sum(fault.ended - fault.began for fault in stopped)
        if answered.at - asked.at > allowed:
            yield Violation("late", f"{asked.id} of {asked.tenant}: {answered.at - asked.at:.1f} s")


def losses(evidence: Evidence) -> Iterator[Violation]:
    """
    A connection breaks only where a process died, or its client left (O1, O5).

    An orderly restart breaks none that was there before it, unless its worker was stopped and could not answer.
    """
    for exchange in evidence.exchanges:
        asked, answered = exchange.asked, exchange.answered
        if answered is None or answered.what != "lost" or answered.how in {"left", "timeout"}:
            continue
        died = evidence.faults_at(DEATHS, asked.at, answered.at, asked.gateway)
        left = evidence.faults_at(frozenset({"restart_gateway"}), asked.at, answered.at, asked.gateway)
        stopped = evidence.faults_at(STOPS, asked.at, answered.at, asked.gateway)
        if not died and not any(restart.began <= asked.at or stopped for restart in left):
            about = f"{asked.id} of {asked.tenant}: {answered.how} at gateway {asked.gateway}, {answered.at:.3f}"
            yield Violation("lost_without_a_fault", about)


def outages(evidence: Evidence) -> Iterator[Violation]:
    """R5: when Redis and SQL have been well for a while, calls are not refused for want of them."""
    seconds: dict[int, list[bool]] = defaultdict(list)
    for exchange in evidence.exchanges:
        if exchange.answered is not None:
            seconds[int(exchange.answered.at)].append(exchange.answered.code == "store_unavailable")
    for second, found in seconds.items():
        refused = sum(found)
        if refused < 5 or 2 * refused <= len(found):
            continue
        if not evidence.faults_at(STORES, second - RECOVERED, second + 1):
            yield Violation("unavailable_without_a_fault", f"{refused} of {len(found)} answers at {second}")


def strangers(evidence: Evidence) -> Iterator[Violation]:
    """S2: no byte of another tenant in any answer, and every answer is one to its own question."""
    for exchange in evidence.exchanges:
        asked, answered = exchange.asked, exchange.answered
        if answered is None:
            continue
        made_for = evidence.by_id.get(answered.call)
        foreign = {*answered.canaries, made_for.tenant if made_for is not None else asked.tenant} - {asked.tenant}
        if foreign:
            yield Violation("foreign_answer", f"{asked.id} of {asked.tenant} saw {', '.join(sorted(foreign))}")
        elif answered.what == "ok" and not _is_its_own(evidence, asked, answered):
            yield Violation("wrong_answer", f"{asked.id} asked {asked.said}, was answered {answered.said}")


def _is_its_own(evidence: Evidence, asked: Asked, answered: Answered) -> bool:
    """To what was asked, and made by the call that its row says."""
    row = next(iter(evidence.rows_of.get(asked.id, ())), None)
    return asked.said == answered.said and (answered.replayed or row is None or row.id == answered.call)


def revoked(evidence: Evidence) -> Iterator[Violation]:
    """S6: a key that was taken away opens nothing, once every worker has heard of it."""
    for fault in evidence.faults:
        if fault.what != "take_key_away":
            continue
        for exchange in evidence.exchanges:
            asked, answered = exchange.asked, exchange.answered
            within = fault.began + RELOADED < asked.at and answered is not None and answered.at < fault.ended
            if not within or answered is None or asked.key != fault.about or answered.what != "ok":
                continue
            if not evidence.faults_at(STOPS, fault.began, asked.at, asked.gateway):
                yield Violation("revoked_key_worked", f"{asked.id}, {asked.at - fault.began:.1f} s after")


def defects(evidence: Evidence) -> Iterator[Violation]:
    """No traceback in a log, nothing left over."""
    for line in evidence.defects:
        yield Violation("defect_logged", line)
    for what, name in (("events", "event_left"), ("set_aside", "event_set_aside")):
        if evidence.left.get(what):
            yield Violation(name, f"{evidence.left[what]} {what}")
