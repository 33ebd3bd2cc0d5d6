"""
Would the ledger contract notice if a policy were wrong?

One bug is planted at a time in a copy of the package; the scripted traces over memory must fail. A line that is not
found any more means that the policy changed: bring the table up to date.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
POLICY = Path("perpetuo/domain/policy")
KEPT_CLAIM = (
    "attrs.evolve(state, claim=idempotency.start(request.claim, run.fence, request.call, now_us))"
    " if request.claim else state"
)

MUTANTS = {
    # rate
    "one too many": ("rate.py", "len(log.times) < limit.limit:", "len(log.times) <= limit.limit:"),
    "≥ for > at the window's edge": ("rate.py", "bisect_right(log.times, at_us", "bisect_right(log.times, -1 + at_us"),
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
    "fence without the call": ("idempotency.py", "state.call == call and state.fence", "state.fence"),
    "fingerprint ignored": ("idempotency.py", "if state.fingerprint != claim.fingerprint:", "if False:"),
    "second run does not say so": ("idempotency.py", "reexecuted=True)", "reexecuted=False)"),
    "store trusted after a pause": ("idempotency.py", "now_us < end or not trusted", "now_us < end"),
    "no time to live": ("idempotency.py", "return state if now_us < state.expires_us else UNSEEN", "return state"),
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
    "tombstone never ends": ("calls.py", "now_us >= call.expires_us", "False"),
    "pause not noticed": ("calls.py", "pulse.stamp_us is None or now_us - pulse.stamp_us > GAP_US", "False"),
    # the steps
    "claim kept at a refusal for rate": (
        "admission.py",
        "return refused, state\n    readings",
        f"return refused, {KEPT_CLAIM}\n    readings",
    ),
    "claim kept at a refusal for money": (
        "admission.py",
        "return granted, state\n",
        f"return granted, {KEPT_CLAIM}\n",
    ),
    "tombstone ignored": ("admission.py", "case Reaped() | Tombstone():", "case Reaped():"),
    "unseeded admits": ("admission.py", "if not state.seeded and request.has_budget:", "if False:"),
    "row without its day": ("admission.py", "(request.abandoned, budget_day=day)", "(request.abandoned)"),
    "extension counted twice": ("admission.py", "more = Nano(whole - record.amount)", "more = extra"),
    "settled twice": ("admission.py", "case None if settlement.hold.epoch == state.epoch:", "case None if False:"),
    "late settlement on top": ("admission.py", "Nano(settlement.charge - charge)", "settlement.charge"),
    "late settlement keeps its revision": ("admission.py", "revision = 2\n", "revision = 1\n"),
    "reaped before its lease ends": ("admission.py", "now_us < record.lease_end_us or not", "not"),
    "reaped at its first hold": (
        "admission.py",
        "hold, charge = record.hold, record.amount\n",
        "hold, charge = record.hold, record.hold.amount\n",
    ),
    "cancelled and charged": ("admission.py", "_over(state, hold, amount, ZERO)", "_over(state, hold, amount, amount)"),
    "lost call stays lost": ("admission.py", "return False, _restored(state, hold, now_us)", "return False, state"),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("mutants")
    for part in ("perpetuo", "tests/contract"):
        shutil.copytree(ROOT / part, target / part, ignore=shutil.ignore_patterns("__pycache__", "static"))
    around = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").glob("*.py"))  # what conftest needs
    around += ["scripts/promise_table.py", "docs/promises.md"]
    for part in ("pyproject.toml", "tests/unit/test_memory_ledger.py", *around):
        (target / part).parent.mkdir(exist_ok=True, parents=True)
        shutil.copy(ROOT / part, target / part)
    assert traces(target) == 0, "the traces fail without any mutant"
    return target


def traces(target: Path) -> int:
    """pytest's exit code: 0 all passed, 1 some failed, else nothing was run."""
    command = [sys.executable, "-B", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/unit"]
    return subprocess.run(command, cwd=target, capture_output=True, check=False, timeout=50).returncode


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_the_contract_notices(copy: Path, name: str) -> None:
    """The traces fail on this mutant."""
    file, right, wrong = MUTANTS[name]
    path = copy / POLICY / file
    source = path.read_text()
    assert source.count(right) >= 1, f"not in {file} any more: {right}"
    path.write_text(source.replace(right, wrong, 1))
    try:
        assert traces(copy) == 1
    finally:
        path.write_text(source)
