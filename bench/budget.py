"""
On which steps of a call does the CPU time go? ``python -m bench.budget [chat|stream …]`` (``make bench-budget``).

py-spy looks at a gateway under load 500 times a second, whenever its Python is running. Each sample belongs to the
innermost frame that is named in `STEPS`. What the worker's main thread took is divided by these shares; Granian's own
threads are a row of their own. ``--flame FILE`` also writes the samples for a flame graph (keep that out of git).

Rule 1: shares are good to a few percent of the whole: samples are a few thousand, and a row below 2 µs is noise.
Rule 2: the watched gateway is a little slower than it would be, so rows are scaled to what a run without it took.
Rule 3: a sample sees a thread that has the interpreter, running or not. On one core Granian's thread takes over as soon
as an answer is handed to it, so that "answer sent" has some of its time.
"""

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

from bench import machine, subjects
from bench.load import run
from bench.subjects import OTHER_CORE, Subject
from bench.upstream import MissingToolError, tool
from tests.servers import gateway_workers

RATE = 500
SECONDS = 8

STEPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("event: the row, priced and traced", ("_event (", "decision_of (", "charge_for (", "encode_event", "skeleton (")),
    ("metrics, log", ("telemetry/",)),
    ("stream: events checked", ("dialects/sse.py", "dialects/alike.py", "dialects/chunks.py", "Responder.stream")),
    ("answer read, usage found", ("dialects/openai_answers.py", "transport/response.py", "OpenAIProvider._receive")),
    ("accept: head and body", ("http/intake.py", "http/patience.py", "Calls._caller", "Calls._address")),
    ("decode the request", ("dialects/",)),
    ("key", ("authenticate (",)),
    ("send upstream", ("adapters/providers/",)),
    ("route, price", ("gateway/prepare.py", "policy/routing.py", "Dispatcher.route", "breaker.py", "breakers.py")),
    ("relay of events to SQL", ("gateway/relay.py", "redis/stream.py", "adapters/sql/", "sqlalchemy", "asyncpg")),
    ("admit", ("gateway/admit.py", "RedisLedger.admit", "_admitted (", "policy/windows.py")),
    ("settle", ("gateway/settle.py", "RedisLedger.settle", "gateway/recover.py", "codec.py")),
    ("Redis: writes and replies", ("adapters/redis/",)),
    ("attempts, dispatch", ("gateway/dispatch.py",)),
    ("answer sent", ("http/client.py", "gateway/respond.py")),
    ("call path itself", ("gateway/complete.py", "http/calls.py", "http/app.py", "domain/")),
)  # fmt: skip
OTHER = "event loop, socket writes, rest"
SERVER = "Granian's own threads: HTTP, sockets"


def step_of(frames: Iterable[str]) -> str:
    """The step of a stack, its innermost frame last."""
    for frame in reversed(list(frames)):
        for step, names in STEPS:
            if any(name in frame for name in names):
                return step
    return OTHER


def shares(raw: str) -> dict[str, float]:
    """Of all samples, by step; ``raw`` is py-spy's: a line for each stack, frames by ``;``, then how often."""
    counts: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        counts[step_of(stack.split(";"))] += int(count)
    return {step: count / counts.total() for step, count in counts.items()}


def table(columns: Mapping[str, Mapping[str, float]]) -> str:
    """µs a call: a row for each step, a column for each case."""
    out = [f"| µs of CPU | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for row in (*(step for step, _ in STEPS), OTHER, SERVER):
        values = [column.get(row, 0.0) for column in columns.values()]
        if any(round(value) for value in values):
            out.append(f"| {row} | {' | '.join(f'{value:.0f}' for value in values)} |")
    totals = [f"**{sum(column.values()):.0f}**" for column in columns.values()]
    return "\n".join([*out, f"| **in all** | {' | '.join(totals)} |"])


def measure(live: Subject, case: str, flame: Path | None) -> dict[str, float]:
    """A run without py-spy for the times, one with it for the shares."""
    assert live.pid is not None
    (worker,) = gateway_workers(live.pid)
    port, load = live.asked(case)
    run(port, load, 1, core=OTHER_CORE)
    whole, main = machine.cpu_seconds(live.pid), machine.thread_seconds(worker)
    answers = run(port, load, SECONDS, core=OTHER_CORE).answers
    whole, main = machine.cpu_seconds(live.pid) - whole, machine.thread_seconds(worker) - main
    with tempfile.NamedTemporaryFile("r", suffix=".raw") as raw:
        command = [
            tool("py-spy", "py-spy"),
            "record",
            "--pid",
            str(worker),
            "--gil",
            "--nonblocking",
            "--format",
            "raw",
        ]
        command += ["--rate", str(RATE), "--duration", str(SECONDS), "--output", raw.name]
        spy = subprocess.Popen(
            ["taskset", "-c", str(OTHER_CORE), *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        run(port, load, SECONDS + 1, core=OTHER_CORE)
        if spy.wait(30) != 0:
            raise MissingToolError("py-spy may not look at another process here; run as root")
        text = raw.read()
    if flame is not None:
        flame.write_text(text)
    found = {step: share * main * 1e6 / answers for step, share in shares(text).items()}
    return {**found, SERVER: (whole - main) * 1e6 / answers}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.budget", description=__doc__)
    parser.add_argument("cases", nargs="*", default=["chat", "stream"])
    parser.add_argument("--flame", type=Path, help="where to put the samples of the last case, for a flame graph")
    asked = parser.parse_args()
    try:
        with ExitStack() as stack:
            live = subjects.perpetuo(stack, subjects.provider(stack))
            print(table({case: measure(live, case, asked.flame) for case in asked.cases}))
    except MissingToolError as missing:
        print(missing, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
