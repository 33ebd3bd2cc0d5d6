"""
Would a run notice? ``python -m tests.chaos.planted`` plants one bug at a time in a copy of the gateway and runs it.

A bug is caught when the run breaks a promise; which ones it may be called by stands beside it.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import attrs

ROOT = Path(__file__).parent.parent.parent
REDIS = "perpetuo/adapters/redis"
GATEWAY = "perpetuo/domain/gateway"
VIOLATION = re.compile(r"^  ([a-z_0-9]+): ", re.MULTILINE)


@attrs.frozen
class Bug:
    """One text for another in one file; ``faults`` are those that bring it to light, none: any."""

    name: str
    file: str
    old: str
    new: str
    faults: Sequence[str] = ()
    seconds: float = 25.0
    """Of traffic, in which it comes to light."""


BUGS = (
    Bug("a rate of one more", f"{REDIS}/admit.lua", "'LINDEX', log, limit - 1", "'LINDEX', log, limit"),
    Bug("a rate that is never used up", f"{REDIS}/admit.lua", "if limit <= 0 then return window", "do return 0"),
    Bug("a budget that sees no holds", f"{REDIS}/admit.lua", "tonumber(w[2] or '0')\n    if left", "0\n    if left"),
    Bug("a hold that is not released", f"{REDIS}/settle.lua", "held = minus(amount)", "held = '0'"),
    Bug("a settlement without its charge", f"{REDIS}/settle.lua", "'0', charge, 0, 1", "'0', '0', 0, 1"),
    Bug(
        "a kept answer that is run again",
        f"{REDIS}/admit.lua",
        "elseif c[1] == 'D' then",
        "elseif c[1] == 'D' then\n    fence = c[3] + 1\n  elseif false then",
    ),
    Bug("a lease that nobody looks at", f"{REDIS}/admit.lua", "elseif now < tonumber(c[4]) or", "elseif false and"),
    Bug(
        "an answer stored over a newer run's",
        f"{REDIS}/common.lua",
        "return c[1] == 'R' and c[2] == id and c[3] == fence and now < tonumber(c[4])",
        "return true",
        ("stop_worker",),
        60.0,
    ),
    Bug(
        "a dead worker's call that costs nothing",
        f"{REDIS}/reap.lua",
        "amount, minus(amount))",
        "'0', minus(amount))",
        ("kill_worker", "kill_gateway"),
    ),
    Bug(
        "an event acknowledged before it is written",
        f"{GATEWAY}/relay.py",
        "await _insist(batch, store, journal, writing)",
        "await stream.ack(batch)\n                await _insist(batch, store, journal, writing)",
        ("kill_gateway",),
    ),
    Bug(
        "a settlement given up when Redis is away",
        f"{GATEWAY}/settle.py",
        "self._in_flight.settle_later(settlement, settings.idempotency)",
        "self._in_flight.settled(call.id)",
        ("stop_redis", "kill_redis"),
    ),
    Bug("a client that leaves does not pay", f"{GATEWAY}/settle.py", "if not ended.sent:", "if ended.status == 499:"),
    Bug(
        "a stream that breaks just ends",
        f"{GATEWAY}/respond.py",
        "        if refusal is not None:\n            await client.fail(refusal)\n        else:",
        "        if refusal is None:",
    ),
    Bug(
        "counters that are not read back",
        f"{REDIS}/open.lua",
        "'HINCRBY', KEYS[i], 'spent', ARGV[i]",
        "'HINCRBY', KEYS[i], 'spent', 0",
        ("kill_redis",),
    ),
)


def plant(bug: Bug, place: Path) -> None:
    """Write the file with the bug in it below ``place``."""
    text = (ROOT / bug.file).read_text()
    assert text.count(bug.old) == 1, f"{bug.name}: {text.count(bug.old)} places in {bug.file}"
    (place / bug.file).write_text(text.replace(bug.old, bug.new))


def caught(bug: Bug, seed: int) -> set[str]:
    """The promises that a run with this bug breaks, by the names of the violations."""
    with tempfile.TemporaryDirectory(prefix="planted-") as directory:
        for name in ("perpetuo", "alembic"):
            shutil.copytree(ROOT / name, Path(directory, name), ignore=shutil.ignore_patterns("__pycache__"))
        plant(bug, Path(directory))
        command = [
            sys.executable,
            "-m",
            "tests.chaos",
            "--seed",
            str(seed),
            "--seconds",
            str(bug.seconds),
            "--throw-away",
        ]
        command += ["--only", ",".join(bug.faults)] if bug.faults else []
        environ = {**os.environ, "PYTHONPATH": directory}
        run = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
        return set(VIOLATION.findall(run.stdout)) if "violations" in run.stdout else set()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.planted", description="Are planted bugs found?")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("bugs", nargs="*", help="words in the names of those to plant; none: all")
    asked = parser.parse_args()
    chosen = [bug for bug in BUGS if all(word in bug.name for word in asked.bugs)]
    found = 0
    for bug in chosen:
        names = caught(bug, asked.seed)
        found += bool(names)
        print(f"{'caught' if names else 'MISSED'}  {bug.name}: {', '.join(sorted(names)) or 'nothing'}", flush=True)
    print(f"{found} of {len(chosen)} planted bugs caught")
    return 0 if found == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
