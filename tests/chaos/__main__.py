"""``python -m tests.chaos --seed 7 --seconds 600``: one run; prints its sums; exit 1 if a promise was broken."""

import argparse
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.checks import Violation
from tests.chaos.driver import run
from tests.chaos.faults import HAND, LOSSY

SHOWN = 20
"""Violations of one kind that are printed; the file has all."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Histories under faults.")
    parser.add_argument("--seed", type=int, default=None, help="of faults and traffic; none: a random one")
    parser.add_argument("--seconds", type=float, default=600.0, help="of traffic")
    parser.add_argument("--lossy", action="store_true", help="FLUSHALL too, with the checks that then still hold")
    parser.add_argument("--only", default="", help="these faults of processes and stores, with commas between them")
    keep = parser.add_mutually_exclusive_group()
    keep.add_argument("--keep", action="store_true", help="keep what a good run leaves behind as well")
    keep.add_argument("--throw-away", action="store_true", help="keep nothing of a bad one either")
    asked = parser.parse_args()
    seed = random.randrange(1_000_000) if asked.seed is None else asked.seed
    began = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that no gateway is left behind

    def tell(what: str) -> None:
        print(f"  {time.monotonic() - began:6.1f} s  {what}", flush=True)

    print(f"make chaos SEED={seed} SECONDS={asked.seconds:g}{' LOSSY=1' if asked.lossy else ''}", flush=True)
    deck = asked.only.split(",") if asked.only else LOSSY if asked.lossy else HAND
    keep_it = True if asked.keep else False if asked.throw_away else None
    verdict = run(seed, asked.seconds, tell, deck, keep=keep_it)
    print(f"\nseed            {seed}\nduration        {time.monotonic() - began:.0f} s, {asked.seconds:g} s of traffic")
    print("\n".join(verdict.sums.lines()))
    print(f"violations      {len(verdict.violations)}")
    _print(verdict.violations, verdict.kept)
    return 1 if verdict.violations else 0


def _print(violations: Sequence[Violation], kept: Path | None) -> None:
    shown: Counter[str] = Counter()
    for violation in violations:
        shown[violation.name] += 1
        if shown[violation.name] <= SHOWN:
            print(f"  {violation}")
    if kept is not None:
        print(f"kept            {kept}")


if __name__ == "__main__":
    sys.exit(main())
