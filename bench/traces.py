"""
What do traces cost a call? ``python -m bench.traces``, two minutes.

Rule 1: the same gateway twice, with traces and without, on the same core, asked in turns; what is told is the ratio.
Rule 2: the least of the rounds on both sides: a neighbour can only add. Beside it the middle of the rounds' own ratios.
Rule 3: spans are sent after a second, and each round waits for that: what a call leaves to do is done in its own round.
Rule 4: exit 1 for wrong answers, and when the collector did not get every span.
"""

import argparse
import os
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from statistics import median

import httpx

from bench import machine, subjects, upstream
from bench.smoke import CASES, WrongAnswersError, cost
from bench.subjects import OTHER_CORE, Provider, Subject
from tests import servers

ROUNDS = 8
SECONDS = 2
DELAY_MS = 1_000
AFTER = 1.5
"""Seconds until all of a round has been sent."""
SPANS = 2
"""Of a call: its own, and that of its one attempt."""


def gateway(stack: ExitStack, provider: Provider, environ: Mapping[str, str]) -> Subject:
    """A gateway that is started with these variables."""
    os.environ.update(environ)
    try:
        return subjects.perpetuo(stack, provider)
    finally:
        for name in environ:
            del os.environ[name]


def collector(stack: ExitStack) -> str:
    port = servers.free_port()
    process = upstream.start_python("bench.collector", port)
    stack.callback(process.wait, 10)
    stack.callback(process.terminate)
    machine.pin(process.pid, OTHER_CORE)
    return f"http://127.0.0.1:{port}"


def spans(subject: Subject, what: str) -> int:
    port, _ = subject.asked("chat")
    page = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text.splitlines()
    return sum(int(float(line.split()[-1])) for line in page if line.startswith(f"perpetuo_trace_spans_{what}_total"))


def measured(rounds: int) -> dict[str, tuple[list[float], list[float]]]:
    """For each case, µs of CPU of a call without and with traces."""
    seen: dict[str, tuple[list[float], list[float]]] = {case: ([], []) for case in CASES}
    with ExitStack() as stack:
        upstream.tool("wrk", "wrk")
        provider = subjects.provider(stack)
        without = gateway(stack, provider, {})
        traced = gateway(
            stack, provider, {"OTEL_EXPORTER_OTLP_ENDPOINT": collector(stack), "OTEL_BSP_SCHEDULE_DELAY": str(DELAY_MS)}
        )
        answers = 1  # that of the start
        for number in range(rounds + 1):
            for case in CASES:
                plain, _ = cost(without, case, SECONDS, AFTER)
                on, more = cost(traced, case, SECONDS, AFTER)
                answers += more
                if number:  # the first one warms up
                    seen[case][0].append(plain)
                    seen[case][1].append(on)
        time.sleep(2)
        got, lost = spans(traced, "exported"), spans(traced, "dropped")
    print(f"{answers} calls, {got} spans exported, {lost} dropped")
    if lost or got < answers * SPANS:
        raise WrongAnswersError("spans are missing")
    return seen


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.traces", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    try:
        seen = measured(parser.parse_args().rounds)
    except (upstream.MissingToolError, servers.NoServerError) as missing:
        print(missing, file=sys.stderr)
        return 2
    except WrongAnswersError as wrong:
        print(wrong, file=sys.stderr)
        return 1
    for case, (off, on) in seen.items():
        middle = median(b / a for a, b in zip(off, on, strict=True))
        least = f"{min(off):.1f} µs off, {min(on):.1f} µs on: {min(on) / min(off):.2f} times"
        print(f"{case}: {least}; {middle:.2f} in the middle")
    return 0


if __name__ == "__main__":
    sys.exit(main())
