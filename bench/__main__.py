"""
How much CPU does one call cost, with everything on?

``python -m bench`` (``make bench``): the gateway pinned to one core with a real Redis and PostgreSQL, 1,000 tenants in
its file, every limit set; nginx as the provider and wrk as the clients on the other core. In the same run: nginx as a
plain proxy, before and after, and each other gateway that ``make bench-peers`` has installed. CPU is user and system
time of a process tree, divided by the answers, in the round of three that took least. Every answer is checked, and the
rows in ``events`` are counted: a run that lost one is void (exit 1). Everything goes to ``bench/RESULTS.md``,
``bench/cpu.svg`` and ``bench/cpu.png``.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import attrs

from bench import chart, machine, subjects
from bench.cases import CASES, PROVIDERS
from bench.load import Load, Measured, run
from bench.peers import CASES as PEER_CASES
from bench.peers import PEERS
from bench.subjects import OTHER_CORE, Provider, Subject
from bench.table import FEW, MANY, Line, once, ratios, spread, table, wrong
from bench.upstream import MissingToolError, tool
from perpetuo import __version__

HERE = Path(__file__).parent
ROUNDS = 3
"""Of each run over many connections the one counts that took least: whoever else is on the machine can only add."""


def measure(subject: Subject, case: str, seconds: int, *, single: bool = True) -> Line:
    """Warm up, measure over many connections, then over one."""
    port, load = subject.asked(case)
    few = case in subject.few
    connections, length = (FEW, seconds * 2) if few else (MANY, seconds)
    warm = run(port, load, 3 if few else 1, core=OTHER_CORE, connections=connections)
    rounds = [_round(subject, port, load, length, connections) for _ in range(ROUNDS)]
    cpu_us, measured = min(rounds, key=lambda one: one[0])
    rss = machine.rss_mib(subject.pid)
    one = run(port, load, max(1, seconds // 2), core=OTHER_CORE, connections=1) if single else None
    return Line(
        subject.who, case, cpu_us, attrs.evolve(measured, wrong=sum(seen.wrong for _, seen in rounds)),
        one, connections, rss, subject.started,
        warm.answers + sum(seen.answers for _, seen in rounds) + (one.answers if one else 0),
    )  # fmt: skip


def _round(subject: Subject, port: int, load: Load, seconds: int, connections: int) -> tuple[float, Measured]:
    """µs of CPU an answer, and what was seen."""
    before = machine.cpu_seconds(subject.pid)
    measured = run(port, load, seconds, core=OTHER_CORE, connections=connections)
    return (machine.cpu_seconds(subject.pid) - before) * 1e6 / max(1, measured.answers), measured


def ours(stack: ExitStack, provider: Provider, asked: list[str], seconds: int) -> Iterator[Line]:
    """Perpetuo, with its rows counted after each case."""
    subject = subjects.perpetuo(stack, provider)
    assert subject.database is not None
    before = subjects.counted(subject.database)
    for case in asked:
        line = measure(subject, case, seconds)
        after = subjects.counted(subject.database)
        yield attrs.evolve(line, rows=after - before)
        before = after


def peers(provider: Provider, seconds: int, say: Callable[[str], None]) -> Iterator[Line]:
    """Each of the others that is installed, one after the other."""
    for start in PEERS:
        with ExitStack() as stack:
            try:
                subject = start(stack, provider)
            except MissingToolError as missing:
                say(str(missing))
                continue
            for case in PEER_CASES:
                yield measure(subject, case, seconds)


def bench(seconds: int, asked: list[str], others: bool, say: Callable[[str], None]) -> Iterator[Line]:
    baselines = [case for case in asked if case in PROVIDERS]
    tool("wrk", "wrk")
    with ExitStack() as stack:
        provider = subjects.provider(stack)
        straight = subjects.direct(provider)
        proxy = subjects.nginx(stack, provider)
        for case in baselines:
            yield measure(straight, case, max(1, seconds // 2))
            yield measure(proxy, case, seconds)
        with ExitStack() as inner:
            yield from ours(inner, provider, asked, seconds)
        if others:
            yield from peers(provider, seconds, say)
        for case in baselines:
            yield measure(proxy, case, seconds, single=False)


def page(lines: list[Line], seconds: int, said: list[str], busy: float) -> str:
    """``RESULTS.md``."""
    now = datetime.now(UTC)
    parts = [
        "# Results of `make bench`",
        f"Perpetuo {__version__}{machine.commit()}, {now:%Y-%m-%d %H:%M} UTC, {machine.described()}, "
        f"{subjects.versions()}. The least of {ROUNDS} rounds of {seconds} s, the gateway on one core, everything else "
        "on the other; "
        f"{busy:.0%} of the machine was busy with other things as it began. "
        "[How to read this](../docs/performance.md#measuring).",
        table(lines),
        spread(lines),
        ratios(lines),
        *said,
        "![CPU of one call](cpu.png)",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--seconds", type=int, default=4, help="length of each round; wrk takes whole ones")
    parser.add_argument("--cases", default=",".join(CASES), help="which, with commas between")
    parser.add_argument("--no-peers", action="store_true", help="leave other gateways out, also when installed")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for the results")
    options = parser.parse_args()
    said: list[str] = []
    busy, lines = machine.quiet(), []
    try:
        for line in bench(options.seconds, options.cases.split(","), not options.no_peers, said.append):
            lines.append(line)
            print(f"{line.who}, {line.case}: {line.cpu_us:,.0f} µs", file=sys.stderr, flush=True)
    except MissingToolError as missing:
        print(missing, file=sys.stderr)
        return 2
    print(text := page(lines, options.seconds, said, busy))
    problems = [problem for line in lines if (problem := wrong(line))]
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "RESULTS.md").write_text(text)
        chart.write(list(once(lines)), options.out / "cpu", f"{datetime.now(UTC):%Y-%m-%d}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
