"""
Does a gateway stay as it is, hour after hour? ``make soak``, or ``python -m bench.soak --seconds 600``.

Traffic of all kinds over a gateway of two workers, of which a fifth is left by its client and a twentieth meets a fault
at the provider. Writes ``bench/SOAK.md`` and ``bench/soak.png``; exit status 1 when a bound of `verdict` is broken.
"""

import argparse
import random
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from bench import machine
from bench.soak import plot
from bench.soak.run import soak
from bench.soak.verdict import LEAST_SECONDS, MOST_GROWTH, Run, broken, growth, quantile
from perpetuo import __version__
from tests import servers

HERE = Path(__file__).parents[1]
OUT = HERE / "out"


def summary(run: Run, clients: int, seed: int, problems: list[str]) -> Iterator[str]:
    """The page: what was done, what was left, what it looked like."""
    heard, faults = run.heard, run.faults
    delays = [delay for _, delay in heard.delays]
    met = sum(count for name, count in faults.items() if name not in ("calls", "left"))
    yield "# Results of `make soak`\n"
    yield (
        f"Perpetuo {__version__}, {datetime.now(UTC):%Y-%m-%d}, {machine.described()}. {run.seconds:g} s, "
        f"{clients} clients, 2 workers, everything on one machine, seed {seed}.\n"
    )
    yield f"{heard.calls():,} calls: " + ", ".join(f"{n:,} × {s}" for s, n in sorted(heard.statuses.items()))
    yield f"and {heard.left:,} left by their clients ({heard.left / max(1, heard.calls()):.0%}). The provider got"
    yield f"{faults['calls']:,} attempts and spoilt {met:,} of them ({met / max(1, faults['calls']):.1%}):"
    yield ", ".join(f"{count:,} {name}" for name, count in faults.items() if name not in ("calls", "left")) + "."
    yield f"{len(heard.wrong)} wrong answers. Plain calls took {quantile(delays, 0.5):.0f} ms (p50),"
    yield f"{quantile(delays, 0.99):.0f} ms (p99), of which the provider's own are 5 to 50 ms.\n"
    yield "| | at rest before | most during | at rest after |\n|---|---|---|---|"
    for name, label in (
        ("busy", "connections busy with a provider"), ("in_flight", "calls in flight"),
        ("holds", "holds in Redis"), ("backlog", "events SQL does not have"),
    ):  # fmt: skip
        most = max(getattr(sample, name) for sample in run.during)
        yield f"| {label} | {getattr(run.before, name)} | {most} | {getattr(run.after, name)} |"
    tasks, files = max(max(s.tasks) for s in run.during), max(s.files() for s in run.during)
    yield f"| tasks, by worker | {run.before.tasks} | {tasks} | {run.after.tasks} |"
    yield f"| descriptors, all workers | {run.before.files()} | {files} | {run.after.files()} |"
    for number, (pid, worker) in enumerate(run.after.workers.items()):
        most = max(sample.workers[pid].rss for sample in run.during)
        first = run.before.workers[pid].rss
        yield f"| memory of worker {number}, MB | {first / 1e6:.1f} | {most / 1e6:.1f} | {worker.rss / 1e6:.1f} |"
    yield ""
    grown = ", ".join(f"{growth(run, pid) / 1e6:+.2f} MB" for pid in run.after.workers)
    judged = "" if run.seconds >= LEAST_SECONDS else f", not judged below {LEAST_SECONDS:g} s"
    yield "Slope of the memory over the second half, for ten minutes:"
    yield f"{grown} (at most {MOST_GROWTH / 1e6:g} MB{judged}).\n"
    yield "\n".join(f"- BROKEN: {problem}" for problem in problems) or "All bounds hold."
    yield "\n![Memory and delay over time](soak.png)"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    redis, postgres = servers.RedisServer(), servers.PostgresServer()
    try:
        redis.start()
        postgres.start()
        run = soak(asked.seconds, asked.clients, asked.seed, redis, servers.new_database(postgres.url))
    finally:
        redis.close()
        postgres.close()
    problems = list(broken(run))
    text = "\n".join(summary(run, asked.clients, asked.seed, problems)) + "\n"
    print(text)
    where = HERE if asked.seconds >= LEAST_SECONDS and not problems else OUT
    title = f"make soak: Perpetuo {__version__}, {datetime.now(UTC):%Y-%m-%d}, {asked.seconds:g} s, seed {asked.seed}"
    plot.write(run, where / "soak.png", title)
    (where / "SOAK.md").write_text(text)
    print(f"wrote {where / 'SOAK.md'} and soak.png")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
