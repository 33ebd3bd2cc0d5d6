"""``bench/SCALE.md`` and ``bench/scale.png``: what was measured, and does it keep its bounds?"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import machine
from bench.scale import admin, plot
from perpetuo import __version__

HERE = Path(__file__).parents[1]
FLAT = 0.15
MOST_KIB = 64
MOST_STALL_MS = 50
Figures = Mapping[str, Sequence[Mapping[str, Any]]]


def broken(figures: Figures) -> Iterator[str]:
    """What does not keep its bound, in words."""
    for part in ("tenants", "workers", "rows"):
        first = figures[part][0]["cpu_us"]
        for one in figures[part]:
            if abs(one["cpu_us"] / first - 1) > FLAT:
                yield f"{one['of']:,} {part}: {one['cpu_us']:.0f} µs a call, not within 15% of {first:.0f}"
            if one["lost"]:
                yield f"{one['of']:,} {part}: {one['lost']} answers were wrong or left no row"
    many = figures["streams"][-1]
    if many["kib"] > MOST_KIB:
        yield f"{many['count']:,} silent streams take {many['kib']:.0f} KiB each, more than {MOST_KIB}"
    last = figures["reload"][-1]
    if last["longest"] > MOST_STALL_MS:
        stall = f"a call took {last['longest']:.0f} ms while {last['tenants']:,} tenants were read"
        yield f"{stall}, more than {MOST_STALL_MS}"
    slow = max(figures["admin"][1:], key=lambda one: one["ms"])
    if slow["ms"] >= admin.BOUND_MS:
        yield f"{slow['address']} took {slow['ms']:.0f} ms, more than {admin.BOUND_MS}"


def write(figures: Figures) -> int:
    """Write both; the exit status."""
    problems = list(broken(figures))
    title = f"make bench-scale: Perpetuo {__version__}, {datetime.now(UTC):%Y-%m-%d}"
    plot.write(list(_panels(figures)), HERE / "scale.png", title)
    text = "\n".join(_page(figures, problems)) + "\n"
    (HERE / "SCALE.md").write_text(text)
    print(text)
    return 1 if problems else 0


def _page(figures: Figures, problems: list[str]) -> Iterator[str]:
    yield "# Results of `make bench-scale`\n"
    yield (
        f"Perpetuo {__version__}, {datetime.now(UTC):%Y-%m-%d}, {machine.described()}. Everything on, "
        "64 connections a worker, calls of all tenants in turn; gateway on one core, everything else on the other.\n"
    )
    for part, what in (
        ("tenants", "tenants in the file"),
        ("workers", "workers (1,000 tenants)"),
        ("rows", "rows in `events` (1,000 tenants)"),
    ):
        yield f"| {what} | CPU µs/call | calls/s | p99 ms | RSS MiB of a worker |\n|---|---|---|---|---|"
        for one in figures[part]:
            yield f"| {one['of']:,} | {one['cpu_us']:.0f} | {one['rate']:,.0f} | {one['p99']:.0f} | {one['rss']:.0f} |"
        yield ""
    columns = "tenants", "`check` s", "start s", "RSS MiB", "after a reload", "reload s", "calls before, p50 ms"
    yield f"| {' | '.join(columns)} | during | longest |\n|---|---|---|---|---|---|---|---|---|"
    for one in figures["reload"]:
        seconds = (
            f"{one['check']:.2f} | {one['start']:.2f} | {one['rss']:.0f} | {one['rss_after']:.0f} | {one['took']:.2f}"
        )
        delays = f"{one['usual']:.1f} | {one['during']:.1f} | {one['longest']:.1f}"
        yield f"| {one['tenants']:,} | {seconds} | {delays} |"
    yield "\n| open streams | KiB each, silent | CPU while silent | CPU µs/event | events/s |\n|---|---|---|---|---|"
    for one in figures["streams"]:
        kib = f"{one['kib']:.0f}" if one["count"] >= 100 else "–"
        yield f"| {one['count']:,} | {kib} | {one['idle_cpu']:.1f}% | {one['cpu_us']:.0f} | {one['rate']:,.0f} |"
    yield from _of_admin(figures["admin"])
    yield "\n" + ("\n".join(f"- BROKEN: {problem}" for problem in problems) or "All bounds hold.")
    yield "\n![What grew, and what it cost](scale.png)"


def _of_admin(asked: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    first, *others = asked
    ordered = sorted(others, key=lambda one: -one["ms"])
    yield "\n`/admin` and `/admin/api` at 1,000,000 events in 98 days' partitions and 10,000 tenants: "
    yield f"{len(asked)} addresses with every combination of up to three filters, each asked once, and once more "
    yield "when it took too long. Median "
    middle = ordered[len(ordered) // 2]["ms"]
    yield f"{middle:.0f} ms; the first of all, which connects to SQL, {first['ms']:.0f} ms. "
    yield f"{sum(map(_cut, asked))} came before all was looked at, and said how far back they go. The slowest:\n"
    yield "| ms | rows | address |\n|---|---|---|"
    for one in ordered[:8]:
        yield f"| {one['ms']:.0f} | {one['rows']} | `{one['address']}` |"


def _cut(one: Mapping[str, Any]) -> bool:
    return bool(one.get("cut"))  # figures of an earlier release don't say


def _panels(figures: Figures) -> Iterator[plot.Panel]:
    for part, what in (("tenants", "tenants"), ("workers", "workers"), ("rows", "rows in events")):
        bars = [(f"{one['of']:,}", one["cpu_us"]) for one in figures[part]]
        yield plot.Panel(f"Microseconds of CPU a call, by {what}", bars, flat=FLAT)
    streams = figures["streams"]
    yield plot.Panel(
        "Microseconds of CPU an event, by open streams", [(f"{one['count']:,}", one["cpu_us"]) for one in streams]
    )
    silent = [(f"{one['count']:,}", one["kib"]) for one in streams if one["count"] >= 100]
    yield plot.Panel("KiB for a silent stream, by open streams", silent, bound=MOST_KIB)
    longest = [(f"{one['tenants']:,}", one["longest"]) for one in figures["reload"]]
    yield plot.Panel("Longest call during a reload, ms, by tenants", longest, bound=MOST_STALL_MS)
