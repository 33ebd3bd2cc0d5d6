"""
How much CPU does one call cost, with everything on?

``python -m bench [--seconds N] [--smoke]`` (``make bench``): the gateway pinned to one core with a real Redis and
PostgreSQL, 1,000 tenants in its file, every limit set; nginx as the provider and wrk as the clients on the other core.
CPU is user and system time of the gateway's process tree, divided by the answers. Every answer is checked, and the
rows in ``events`` are counted afterwards: a run that lost one is void (exit 1). The figures go to ``bench/RESULTS.md``.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import attrs

from bench import machine
from bench.load import Load, Measured, run
from bench.upstream import MissingToolError, Nginx, start_proxy, start_upstream
from perpetuo import __version__
from tests import servers
from tests.live import LiveGateway

GATEWAY_CORE, OTHER_CORE = 0, 1
KEY = "sk-bench-{:04d}-0123456789abcdef"
TENANTS = 1_000
RESULTS = Path(__file__).with_name("RESULTS.md")

BIG = '{"model":"%s","max_tokens":100,%s"messages":[{"role":"user","content":"%s"}]}'
CASES = {
    "chat": Load("/v1/chat/completions", KEY.format(1), BIG % ("chat", "", "a" * 220), 200, "bench-model"),
    "chat-8k": Load("/v1/chat/completions", KEY.format(2), BIG % ("chat", "", "word " * 1_600), 200, "bench-model"),
    "stream": Load("/v1/chat/completions", KEY.format(3), BIG % ("stream", '"stream":true,', "hi"), 200, "[DONE]"),
    "replay": Load(
        "/v1/chat/completions", KEY.format(4), BIG % ("chat", "", "again"), 200, "bench-model",
        'wrk.headers["X-Idempotency-Key"] = "the-one"',
    ),
    "refused": Load(
        "/v1/chat/completions", KEY.format(0), BIG % ("chat", "", "no"), 429, "rate_limit_exceeded"
    ),
}  # fmt: skip


@attrs.frozen
class Line:
    """One row of the table."""

    who: str
    case: str
    cpu_us: float
    measured: Measured
    rss: float
    rows: int | None = None


def config(upstream: int) -> str:
    """1,000 tenants, each with a rate, a concurrency and two budgets; tenant 0 may call once a minute."""
    tenants = "\n".join(
        f'  - {{id: t{n:04d}, plan: {"tiny" if n == 0 else "pro"}, apiKeys: ["{KEY.format(n)}"]}}'
        for n in range(TENANTS)
    )
    return f"""
providers:
  - {{id: chat, kind: openai, baseUrl: "http://127.0.0.1:{upstream}/chat/v1", apiKey: sk-up}}
  - {{id: stream, kind: openai, baseUrl: "http://127.0.0.1:{upstream}/stream/v1", apiKey: sk-up}}
models:
  - {{name: chat, targets: [{{provider: chat, model: m}}], maxOutputTokens: 4096,
      price: {{inputPerMTok: 0.5, outputPerMTok: 1.5}}}}
  - {{name: stream, targets: [{{provider: stream, model: m}}], maxOutputTokens: 4096,
      price: {{inputPerMTok: 0.5, outputPerMTok: 1.5}}}}
plans:
  - {{id: pro, limits: {{rateLimitMin: 1000000, concurrency: 10000, budgetDay: 1000000, budgetMonth: 1000000}}}}
  - {{id: tiny, limits: {{rateLimitMin: 1, concurrency: 10, budgetDay: 1000000, budgetMonth: 1000000}}}}
tenants:
{tenants}
redis: {{timeout: 1s}}
"""


@contextmanager
def gateway(stack: ExitStack, upstream: Nginx) -> Iterator[tuple[LiveGateway, str]]:
    """Perpetuo with stores of its own; Redis shares the gateway's other core, as it would another machine."""
    redis = servers.RedisServer()
    redis.start()
    stack.callback(redis.close)
    machine.pin(redis.pid, OTHER_CORE)
    postgres = servers.PostgresServer()
    postgres.start()
    stack.callback(postgres.close)
    machine.pin(postgres.pid, OTHER_CORE)
    database = servers.new_database(postgres.url)
    live = LiveGateway(
        config(upstream.port), redis_url=redis.url, database_url=database, workers=1, environ={"LOG_LEVEL": "warning"}
    )
    with live:
        assert live.process is not None
        machine.pin(live.process.pid, GATEWAY_CORE)
        yield live, database


def measure(who: str, case: str, pid: int, port: int, load: Load, seconds: int) -> Line:
    """Warm up, then measure."""
    run(port, load, max(1, round(seconds / 5)), core=OTHER_CORE)
    before = machine.cpu_seconds(pid)
    measured = run(port, load, seconds, core=OTHER_CORE)
    cpu = machine.cpu_seconds(pid) - before
    return Line(who, case, cpu * 1e6 / max(1, measured.answers), measured, machine.rss_mib(pid))


def counted(database: str) -> int:
    """Rows in ``events`` once they stop growing."""
    last = -1
    while True:
        now = int(servers.sql(database, "select count(*) from events")[0][0])
        if now == last:
            return now
        last = now
        time.sleep(1.5)


def bench(seconds: int, cases: list[str]) -> list[Line]:
    lines: list[Line] = []
    with ExitStack() as stack:
        upstream = start_upstream(servers.free_port())
        stack.callback(upstream.close)
        machine.pin(upstream.pid, OTHER_CORE)
        proxy = start_proxy(servers.free_port(), upstream.port)
        stack.callback(proxy.close)
        machine.pin(proxy.pid, GATEWAY_CORE)
        for case in ("chat", "stream"):
            load = attrs.evolve(CASES[case], path=f"/{case}{CASES[case].path}")
            lines.append(measure("nginx, plain proxy", case, proxy.pid, proxy.port, load, seconds))
        live, database = stack.enter_context(gateway(stack, upstream))
        assert live.process is not None
        before = counted(database)
        for case in cases:
            load = CASES[case]
            if case == "replay":
                live.chat(load.key, headers={"x-idempotency-key": "warm-up"}, model="chat")
            line = measure("Perpetuo, everything on", case, live.process.pid, live.port, load, seconds)
            after = counted(database)
            lines.append(attrs.evolve(line, rows=after - before))
            before = after
    return lines


def wrong(line: Line) -> str | None:
    """What is wrong with a run; ``None``: nothing."""
    if line.measured.wrong:
        return f"{line.who}, {line.case}: {line.measured.wrong} wrong or failed answers of {line.measured.answers}"
    if line.rows is not None and line.case not in ("replay", "refused") and line.rows < line.measured.answers:
        return f"{line.who}, {line.case}: {line.measured.answers} answers but only {line.rows} rows in events"
    return None


def table(lines: list[Line]) -> str:
    out = [
        "| | case | CPU µs/request | requests/s | p50 ms | p99 ms | RSS MiB | rows written |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        m = line.measured
        rows = "–" if line.rows is None else f"{line.rows:,}"
        out.append(
            f"| {line.who} | {line.case} | {line.cpu_us:.0f} | {m.rate:,.0f} | {m.p50:.1f} | {m.p99:.1f} | "
            f"{line.rss:.0f} | {rows} |"
        )
    return "\n".join(out)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--seconds", type=int, default=8, help="length of each run; wrk takes whole ones")
    parser.add_argument("--smoke", action="store_true", help="2 s runs of chat and stream; results are not written")
    asked = parser.parse_args()
    try:
        lines = bench(2 if asked.smoke else asked.seconds, ["chat", "stream"] if asked.smoke else [*CASES])
    except MissingToolError as missing:
        print(missing, file=sys.stderr)
        return 2
    print(table(lines))
    problems = [problem for line in lines if (problem := wrong(line))]
    for problem in problems:
        print(problem, file=sys.stderr)
    if not asked.smoke and not problems:
        now = datetime.now(UTC)
        RESULTS.write_text(
            f"# Results of `make bench`\n\nPerpetuo {__version__}, {now:%Y-%m-%d}, {machine.described()}. "
            f"64 connections, {asked.seconds} s a run, gateway on one core, everything else on the other.\n\n"
            f"{table(lines)}\n"
        )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
