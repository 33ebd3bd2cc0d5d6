"""
Does a call cost much more CPU than it did? ``make bench-smoke``, 25 s.

Rule 1: never absolute time. What is judged is the ratio of a call's CPU to that of a ruler, measured in the same run.
Rule 2: the least of several short rounds on both sides: a neighbour can only add, and he comes and goes.
Rule 3: what is too much is measured once more, with processes of its own; a call that got dearer is so both times.
Rule 4: exit 1 for wrong answers, lost rows or a ratio above what is written in ``guard.json`` times its margin; exit 2
when a tool is missing; never for a slow machine.

``--record`` writes down what was seen as the new expectation, after a change that was meant. Both rulers, nginx's plain
proxy and a fixed server in Python, are shown; `docs/decisions/0021-*` says which one judges, and why.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import attrs

from bench import machine, subjects
from bench.load import run
from bench.subjects import OTHER_CORE, Subject
from bench.upstream import MissingToolError, tool
from tests import servers

GUARD = Path(__file__).with_name("guard.json")
CASES = ("chat", "stream")
RULERS = ("nginx", "python")
ROUNDS = 4


@attrs.frozen
class Round:
    """µs of CPU, taken one after the other."""

    nginx: float
    python: float
    chat: float
    stream: float


@attrs.frozen
class Guard:
    """What is expected: the ratio of each case to the ruler, and how far above it is too far."""

    ruler: str
    margin: float
    ratios: dict[str, float]


def ratio(rounds: Sequence[Round], case: str, ruler: str) -> float:
    """The least that the case cost to the least that the ruler did."""
    return float(min(getattr(one, case) for one in rounds) / min(getattr(one, ruler) for one in rounds))


def regressions(rounds: Sequence[Round], guard: Guard) -> list[str]:
    """A sentence for each case that costs too much."""
    found = []
    for case, expected in guard.ratios.items():
        seen = ratio(rounds, case, guard.ruler)
        if seen > expected * guard.margin:
            found.append(
                f"{case} costs {seen:.2f} times the ruler ({guard.ruler}): {seen / expected:.2f} times the expected "
                f"{expected:.2f}, and at most {guard.margin:g} times is let through. If that is meant: "
                "python -m bench.smoke --record"
            )
    return found


def told(rounds: Sequence[Round], guard: Guard) -> str:
    """A line for each case and ruler."""
    out = []
    for case in CASES:
        for ruler in RULERS:
            seen = ratio(rounds, case, ruler)
            judged = f", expected {guard.ratios[case]:.2f}, at most {guard.ratios[case] * guard.margin:.2f}"
            out.append(f"{case} / {ruler}: {seen:.2f}{judged if ruler == guard.ruler else ''}")
    return "\n".join(out)


def cost(subject: Subject, case: str, seconds: int = 1, after: float = 0.0) -> tuple[float, int]:
    """µs of CPU per answer, that of ``after`` seconds included, and the answers; wrong ones end the run."""
    port, load = subject.asked(case)
    before = machine.cpu_seconds(subject.pid)
    measured = run(port, load, seconds, core=OTHER_CORE)
    time.sleep(after)
    cpu = machine.cpu_seconds(subject.pid) - before
    if measured.wrong or not measured.answers:
        raise WrongAnswersError(f"{subject.who}, {case}: {measured.wrong} of {measured.answers} answers were wrong")
    return cpu * 1e6 / measured.answers, measured.answers


class WrongAnswersError(RuntimeError):
    """What was measured is worth nothing."""


def smoke(rounds: int) -> list[Round]:
    """The rounds; the gateway's rows are counted at the end."""
    tool("wrk", "wrk")
    seen, answers = [], 0
    with ExitStack() as stack:
        provider = subjects.provider(stack)
        proxy, python = subjects.nginx(stack, provider), subjects.yardstick(stack)
        gateway = subjects.perpetuo(stack, provider)
        for case in CASES:
            answers += cost(gateway, case)[1]
        for _ in range(rounds):
            nginx, plain = (cost(ruler, "chat")[0] for ruler in (proxy, python))
            chat, stream = (cost(gateway, case) for case in CASES)
            seen.append(Round(nginx, plain, chat[0], stream[0]))
            answers += chat[1] + stream[1]
        assert gateway.database is not None
        rows = subjects.counted(gateway.database)
    if rows < answers:
        raise WrongAnswersError(f"{answers} answers but only {rows} rows in events")
    return seen


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.smoke", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--record", action="store_true", help="what is seen is expected from now on")
    options = parser.parse_args()
    guard = Guard(**json.loads(GUARD.read_text()))
    try:
        rounds = smoke(options.rounds)
        if regressions(rounds, guard) and not options.record:
            print(f"{told(rounds, guard)}\nThat is too much; whether it stays so:", file=sys.stderr)
            rounds = smoke(options.rounds)
    except (MissingToolError, servers.NoServerError) as missing:
        print(missing, file=sys.stderr)
        return 2
    except WrongAnswersError as wrong:
        print(wrong, file=sys.stderr)
        return 1
    for one in rounds:
        print(" ".join(f"{name} {value:.1f} µs" for name, value in attrs.asdict(one).items()))
    print(told(rounds, guard))
    if options.record:
        ratios = {case: round(ratio(rounds, case, guard.ruler), 2) for case in CASES}
        GUARD.write_text(json.dumps(attrs.asdict(attrs.evolve(guard, ratios=ratios)), indent=2) + "\n")
        return 0
    problems = regressions(rounds, guard)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
