"""
Would the contracts notice if a policy were wrong?

One bug is planted at a time in a copy of the package; the scripted traces over memory must fail. A line that is not
found any more means that the policy changed: bring the table up to date.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mutants import CAUGHT_BY, PLANTED, missing

ROOT = Path(__file__).parents[3]
POLICY = Path("perpetuo/domain/policy")
KEPT_CLAIM = (
    "attrs.evolve(state, claim=idempotency.start(request.claim, run.fence, request.call, now_us))"
    " if request.claim else state"
)

MUTANTS = {
    # rate
    "≥ for > in rate: one too many": ("rate.py", "len(log.times) < limit.limit:", "len(log.times) <= limit.limit:"),
    "≥ for > in rate: the window's edge": (
        "rate.py",
        "bisect_right(log.times, at_us",
        "bisect_right(log.times, -1 + at_us",
    ),
    "clock followed backwards": ("rate.py", "[now_us, *(log.times[-1] for log in logs if log.times)]", "[now_us]"),
    "wait by the clamped clock": ("rate.py", "limit.window_us - now_us\n", "limit.window_us - at_us\n"),
    "slot not given back": ("rate.py", "if at_us not in log.times:", "if True:"),
    # budget
    "money held does not count": ("budget.py", "read.remaining < hold_min", "read.limit - read.spent < hold_min"),
    "last nano refused": ("budget.py", "read.remaining < hold_min", "read.remaining <= hold_min"),
    "reserved for spent": ("budget.py", "reserved=read.spent + hold_min <= read.limit", "reserved=True"),
    "wrong day": ("budget.py", "limit.current if at_us < limit.boundary_us", "limit.current if True"),
    "hold not released": ("budget.py", "held=Nano(window.held - held)", "held=window.held"),
    "growth unchecked": ("budget.py", "read.remaining < extra", "read.remaining < 0"),
    # concurrency
    "dead calls count": ("concurrency.py", "sum(end > now_us for end in leases.ends.values())", "len(leases.ends)"),
    # idempotency
    "no fence check": ("idempotency.py", "state.call == call and state.fence == fence", "True"),
    "no fence check: another call's fence will do": (
        "idempotency.py",
        "state.call == call and state.fence",
        "state.fence",
    ),
    "fingerprint ignored": ("idempotency.py", "if state.fingerprint != claim.fingerprint:", "if False:"),
    "second run does not say so": ("idempotency.py", "reexecuted=True)", "reexecuted=False)"),
    "store trusted after a pause": ("idempotency.py", "now_us < end or not trusted", "now_us < end"),
    "missing TTL: an idempotency key": (
        "idempotency.py",
        "return state if now_us < state.expires_us else UNSEEN",
        "return state",
    ),
    "too large, and kept": ("idempotency.py", "size <= room.max_bytes and ", ""),
    "too large, and free": ("idempotency.py", "return NotKept(fence, claim.fingerprint, ", "return Free(fence, "),
    # replays
    "replays without end": ("admission.py", "Replay) and request.replays is not None:", "Replay) and False:"),
    "replays not counted": ("admission.py", "rates={**state.rates, limit.scope: log}", "rates=state.rates"),
    "a refused replay counts": (
        "admission.py",
        "return log, state\n",
        "return log, attrs.evolve(state, rates={s: rate.enter(g, limit, now_us) for s, g in state.rates.items()})\n",
    ),
    # calls
    "missing TTL: a tombstone": ("calls.py", "now_us >= call.expires_us", "False"),
    "pause not noticed": ("calls.py", "pulse.stamp_us is None or now_us - pulse.stamp_us > GAP_US", "False"),
    # the steps
    "claim kept at a refusal: for rate": (
        "admission.py",
        "return refused, state\n    readings",
        f"return refused, {KEPT_CLAIM}\n    readings",
    ),
    "claim kept at a refusal: for money": (
        "admission.py",
        "return granted, state\n",
        f"return granted, {KEPT_CLAIM}\n",
    ),
    "tombstone ignored": ("admission.py", "case Reaped() | Tombstone():", "case Reaped():"),
    "unseeded admits": ("admission.py", "if not state.seeded and request.has_budget:", "if False:"),
    "wrong day: in the row": ("admission.py", "(request.abandoned, budget_day=day)", "(request.abandoned)"),
    "extension counted twice": ("admission.py", "more = Nano(whole - record.amount)", "more = extra"),
    "double settle": ("admission.py", "case None if settlement.hold.epoch == state.epoch:", "case None if False:"),
    "double settle: a late one on top": ("admission.py", "Nano(settlement.charge - charge)", "settlement.charge"),
    "late settlement keeps its revision": ("admission.py", "revision = 2\n", "revision = 1\n"),
    "reaped before its lease ends": ("admission.py", "now_us < record.lease_end_us or not", "not"),
    "reaped at its first hold": (
        "admission.py",
        "hold, charge = record.hold, record.amount\n",
        "hold, charge = record.hold, record.hold.amount\n",
    ),
    "cancelled and charged": ("admission.py", "_over(state, hold, amount, ZERO)", "_over(state, hold, amount, amount)"),
    # breakers
    "probe lease unchecked": ("breaker.py", "if holder != call and now_us < until:", "if False:"),
    "probe lease unchecked: it never ends": ("breaker.py", "holder != call and now_us < until", "holder != call"),
    "probe lease unchecked: the verdict of one that lost it": ("breaker.py", "breaker.probe.call != call", "False"),
    "stale generation counted": (
        "breaker.py",
        "Closed) or breaker.since.generation != generation",
        "Closed) or False",
    ),
    "stale generation counted: a verdict": (
        "breaker.py",
        "HalfOpen) or breaker.since.generation != generation",
        "HalfOpen) or False",
    ),
    "no new generation at a change": ("breaker.py", "Change(self.generation + 1,", "Change(self.generation,"),
    "opens one connect failure late": (
        "breaker.py",
        "tally.streak >= policy.consecutive",
        "tally.streak > policy.consecutive",
    ),
    "opens one failure late": (
        "breaker.py",
        "tally.failures >= policy.failure_rate",
        "tally.failures > policy.failure_rate",
    ),
    "opens before there are enough calls": ("breaker.py", "tally.outcomes >= policy.minimum_calls and", ""),
    "old outcomes count": ("breaker.py", "if number - BUCKETS <= b.number < number", "if b.number < number"),
    "a success ends no streak": (
        "breaker.py",
        "streak = delta.streak if delta.connected else self.streak + delta.streak",
        "streak = self.streak + delta.streak",
    ),
    "clients' errors count": (
        "breaker.py",
        "return fault is None or fault in FAILURES",
        "return fault is not Fault.ABORTED",
    ),
    "an operator's deletion is no reset": ("breaker.py", "case Open() if key is Key.DELETED:", "case Open() if False:"),
    "a probe whose client left keeps the lease": (
        "breaker.py",
        "return HalfOpen(breaker.since)\n    return",
        "return breaker\n    return",
    ),
    # what an operator adjusts
    "adjusted twice": ("adjustment.py", "call=Tombstone(now_us + REMEMBERED_US),", ""),
    "adjusted below zero": ("adjustment.py", "if not 0 <= read.spent", "if not -(10**18) <= read.spent"),
    "adjusted: the last nano refused": ("adjustment.py", "if not 0 <= read.spent", "if not 0 < read.spent"),
    "adjusted while the counters are lost": ("adjustment.py", "if not state.seeded:", "if False:"),
    "adjusted without room": ("adjustment.py", "if not state.room:", "if False:"),
    "adjusted without an event": ("adjustment.py", "appended=(*state.appended, Appended(adjustment.event, 1)),", ""),
    "adjusted: a window over and forgotten": (
        "adjustment.py",
        "now_us < read.resets_at_us + WINDOW_KEPT_US and",
        "",
    ),
    "adjusted: a window made after its end": (
        "adjustment.py",
        " and (read.scope, read.window) in state.budgets",
        "",
    ),
    # the steps again
    "lost call stays lost": ("admission.py", "return False, _restored(state, hold, now_us)", "return False, state"),
}


TRACES = (
    "tests/*.py", "scripts/promise_table.py", "docs/promises.md",  # what conftest needs
    "tests/unit/test_memory_ledger.py", "tests/unit/policy/test_breaker.py",
    "tests/unit/policy/test_breaker_board.py", "tests/unit/policy/test_adjustment.py",
)  # fmt: skip
FAILED = re.compile(r"^FAILED \S*?::(?:\w+::)?(\w+)", re.MULTILINE)


def test_each_of_the_ten_is_planted() -> None:
    """By name; none is forgotten when the table changes."""
    assert missing(MUTANTS) == []


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("mutants")
    for part in ("perpetuo", "tests/contract"):
        shutil.copytree(ROOT / part, target / part, ignore=shutil.ignore_patterns("__pycache__", "static"))
    for path in (ROOT / "pyproject.toml", *(path for pattern in TRACES for path in ROOT.glob(pattern))):
        place = target / path.relative_to(ROOT)
        place.parent.mkdir(exist_ok=True, parents=True)
        shutil.copy(path, place)
    assert caught_by(target) is None, "the traces fail without any mutant"
    return target


def caught_by(target: Path) -> str | None:
    """The first trace that fails, if one does."""
    command = [sys.executable, "-B", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/unit"]
    ended = subprocess.run(command, cwd=target, capture_output=True, text=True, check=False, timeout=280)
    if ended.returncode == 0:
        return None
    found = FAILED.search(ended.stdout)
    assert found is not None, ended.stdout + ended.stderr  # nothing was run
    return found[1]


@pytest.mark.slow
@pytest.mark.timeout(300)  # the first one waits for the traces to pass without any
@pytest.mark.parametrize("name", MUTANTS)
def test_the_contract_notices(copy: Path, name: str, record_property: Callable[[str, object], None]) -> None:
    """The traces fail on this mutant."""
    file, right, wrong = MUTANTS[name]
    path = copy / POLICY / file
    source = path.read_text()
    assert source.count(right) >= 1, f"not in {file} any more: {right}"
    path.write_text(source.replace(right, wrong, 1))
    record_property(PLANTED, f"{file}: {name}")
    try:
        found = caught_by(copy)
    finally:
        path.write_text(source)
    record_property(CAUGHT_BY, found)
    assert found is not None
