"""
What do the measurements say? Pure: values in, Markdown and verdicts out.

Rule 1: CPU is compared with the mean of nginx's runs before and after, since both move with the machine.
Rule 2: a delay is what a call takes longer than the same call straight to the provider.
Rule 3: a wrong answer or a lost row makes a run void; a ratio that is missed does not.
"""

from collections.abc import Iterator, Sequence

import attrs

from bench.load import Measured
from bench.subjects import DIRECT, NGINX, PERPETUO

LIKE = {"replay": "chat", "refused": "chat"}
"""What a case without a baseline of its own is compared with."""
MANY, FEW = 64, 4


@attrs.frozen
class Line:
    """One case of one subject."""

    who: str
    case: str
    cpu_us: float
    measured: Measured
    one: Measured | None = None
    """Over a single connection."""
    connections: int = MANY
    rss: float = 0.0
    started: float | None = None
    answers: int = 0
    """All right answers it was asked for, warm-up included."""
    rows: int | None = None


@attrs.frozen
class Aim:
    """``who`` may take ``most`` times the CPU of ``than`` for a case."""

    case: str
    than: str
    most: float
    said: str


AIMS = (
    Aim("chat", NGINX, 10.0, "at most 10 times nginx's plain proxy"),
    Aim("chat", "Portkey", 1 / 5, "at most a 5th of Portkey's"),
    Aim("chat", "LiteLLM, master key", 1 / 50, "at most a 50th of LiteLLM's"),
)


def wrong(line: Line) -> str | None:
    """What is wrong with a run; ``None``: nothing."""
    failed = line.measured.wrong + (line.one.wrong if line.one else 0)
    if failed:
        return f"{line.who}, {line.case}: {failed} wrong or failed answers"
    if not line.measured.answers:
        return f"{line.who}, {line.case}: not one answer"
    if line.rows is not None and line.case not in LIKE and line.rows < line.answers:
        return f"{line.who}, {line.case}: {line.answers} answers but only {line.rows} rows in events"
    return None


def cpu(lines: Sequence[Line], who: str, case: str) -> float | None:
    """Mean over the runs of one subject and case; the subject is known by how its name begins."""
    found = [line.cpu_us for line in lines if line.who.startswith(who) and line.case == case]
    return sum(found) / len(found) if found else None


def times_nginx(lines: Sequence[Line], line: Line) -> float | None:
    baseline = cpu(lines, NGINX, LIKE.get(line.case, line.case))
    return line.cpu_us / baseline if baseline else None


def once(lines: Sequence[Line]) -> Iterator[Line]:
    """Each subject and case once, runs before and after taken together."""
    seen = set()
    for line in lines:
        if (line.who, line.case) in seen or line.who == DIRECT:
            continue
        seen.add((line.who, line.case))
        mean = cpu(lines, line.who, line.case)
        assert mean is not None
        yield attrs.evolve(line, cpu_us=mean)


def added(lines: Sequence[Line], line: Line, single: bool) -> str:
    """p50 and p99 above the direct call's."""
    same = [other for other in lines if other.who == DIRECT and other.case == LIKE.get(line.case, line.case)]
    ours = line.one if single else line.measured
    theirs = (same[0].one if single else same[0].measured) if same else None
    if ours is None or theirs is None or (not single and line.connections != MANY):
        return "–"
    return f"{ours.p50 - theirs.p50:.2f} / {ours.p99 - theirs.p99:.2f}"


def table(lines: Sequence[Line]) -> str:
    """One row for each subject and case."""
    out = [
        "| | case | CPU, µs a call | × nginx | calls/s | added p50 / p99, ms, 1 connection | the same, 64 connections "
        "| RSS, MiB | start, s | rows |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for line in once(lines):
        ratio = times_nginx(lines, line)
        case = line.case if line.connections == MANY else f"{line.case} ({line.connections} connections)"
        cells = [
            line.who, case, f"{line.cpu_us:,.0f}", "–" if ratio is None else f"{ratio:,.1f}",
            f"{line.measured.rate:,.0f}" if line.measured.rate >= 10 else f"{line.measured.rate:.1f}",
            added(lines, line, True), added(lines, line, False), f"{line.rss:.0f}",
            "–" if line.started is None else f"{line.started:.2f}", "–" if line.rows is None else f"{line.rows:,}",
        ]  # fmt: skip
        out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out)


def ratios(lines: Sequence[Line]) -> str:
    """What was aimed at, and what was seen; only for those that were measured."""
    out = []
    for aim in AIMS:
        ours, theirs = cpu(lines, PERPETUO, aim.case), cpu(lines, aim.than, aim.case)
        if ours and theirs:
            ratio = ours / theirs
            seen = f"{ratio:.1f} ×" if ratio >= 1 else f"1/{1 / ratio:.1f}"
            out.append(f"| {aim.case}: {aim.said} | {seen} | {'yes' if ratio <= aim.most else '**no**'} |")
    return "\n".join(["| Perpetuo's CPU | seen | reached |", "|---|---|---|", *out]) if out else ""


def spread(lines: Sequence[Line]) -> str:
    """How far apart nginx's runs before and after were."""
    parts = []
    for case in dict.fromkeys(line.case for line in lines if line.who == NGINX):
        seen = [line.cpu_us for line in lines if line.who == NGINX and line.case == case]
        if len(seen) > 1:
            parts.append(f"{case} {' and '.join(f'{value:.1f}' for value in seen)}")
    return "nginx's runs before and after, µs: " + "; ".join(parts) + "." if parts else ""
