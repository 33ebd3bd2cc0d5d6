"""
What did calls do? ``perpetuo events search | tail | show | export``.

Rule 1: filters are those of ``/admin/api/events``, and it says what is wrong with one.
Rule 2: a file has its name when it is whole: until then it is a draft beside it, which an interruption removes.
Rule 3: `tail` asks again every second. A row comes when its call ends, but its id and time are of its beginning: each
        look goes some way back and each `DEEP_EVERY`th as far as a call may last; what was shown is not shown again.
"""

import contextlib
import os
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import rich_click as click

from perpetuo.entrypoints.commands.remote import Answer, Remote, RemoteError, as_json, asks_a_gateway
from perpetuo.entrypoints.commands.tables import printable, show_pairs, show_table

FORMATS = ("csv", "jsonl")
COLUMNS = ("time", "tenant", "key", "model", "provider", "status", "outcome", "cost", "latency", "id")
NUMBERS = ("status", "cost", "latency")
LOOK_BACK_S, DEEP_S, DEEP_EVERY = 15, 660, 20
MOST_ROWS, MOST_PAGES, MOST_REMEMBERED = 500, 8, 100_000
MOST_REASONS = 5
Filters = dict[str, str | int | None]

FILTERS = (
    click.option("--tenant", "tenant_id", metavar="ID", help="Of this tenant."),
    click.option("--key", "key_name", metavar="NAME", help="With this key; for actions, by this operator."),
    click.option("--model", metavar="NAME", help="Asked for as."),
    click.option("--provider", metavar="ID", help="Answered by."),
    click.option("--status", metavar="CODE", help="HTTP status, such as 502."),
    click.option("--outcome", metavar="NAME", help="completed, failed, cancelled, truncated or abandoned."),
    click.option("--request-id", "request_id", metavar="ID", help="The x-request-id."),
    click.option("--tag", metavar="TAG", help="The x-perpetuo-tag."),
    click.option("--kind", metavar="KIND", help="call, admin, chat or embeddings."),
)
TIMES = (
    click.option("--since", metavar="WHEN", help="From then on: 30m, 2h, 7d, or 2026-11-26T10:30Z."),
    click.option("--until", metavar="WHEN", help="Before then."),
)


def _with(options: Sequence[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


@click.group()
def events() -> None:
    """Look at calls and operators' actions in a running gateway."""


# --- search and show -----------------------------------------------------------------------------


@events.command()
@asks_a_gateway
@as_json
@_with((*FILTERS, *TIMES))
@click.option("--limit", type=click.IntRange(1, MOST_ROWS), default=50, show_default=True, help="At most so many rows.")
@click.option("--before", metavar="ID", help="Older than this event: the `next` of the page before.")
def search(gateway: Remote, json: bool, **filters: str | int | None) -> None:
    """Newest first, a page at a time."""
    found = _searched(gateway, filters)
    if json:
        click.echo(found.raw)
        return
    facts = found.facts
    if facts.get("unavailable"):
        raise _away(facts)
    if not facts["items"]:
        click.echo(printable(facts.get("hint") or "Nothing matches."), err=True)
        if facts.get("around"):
            click.echo("What was refused then: `perpetuo events show` with the request id.", err=True)
        return
    show_table(COLUMNS, [line(one) for one in facts["items"]], right=NUMBERS)
    if facts["next"]:
        click.echo(f"There are older ones: --before {facts['next']}", err=True)


def _searched(gateway: Remote, filters: Filters) -> Answer:
    """
    A page that is full, or to which nothing older belongs.

    With very many rows the gateway answers before it has looked at all of them, and says where to go on.
    """
    found = gateway.get("/events", filters)
    limit, items, again = int(filters.get("limit") or 50), [*found.facts["items"]], False
    while found.facts.get("looked_back_to") and found.facts["next"] and len(items) < limit:
        again = True
        found = gateway.get("/events", {**filters, "before": found.facts["next"], "limit": limit - len(items)})
        if found.facts.get("unavailable"):
            raise _away(found.facts)
        items += found.facts["items"]
    if not again:
        return found
    whole = {**found.facts, "items": items, "hint": None if items else "Nothing matches."}
    return Answer(msgspec.json.encode(whole), whole)


def _away(facts: Mapping[str, Any]) -> RemoteError:
    return RemoteError(f"The event table is away: {facts['unavailable']}", passing=True)


def line(event: Mapping[str, Any]) -> tuple[object, ...]:
    """One event as a row of `COLUMNS`."""
    at = str(event["at"])[:19].replace("T", " ")
    if event["action"]:
        return (
            at,
            event["tenant"],
            event["actor"] or event["key"],
            event["action"],
            event["provider"],
            None,
            "operator",
            None,
            None,
            event["id"],
        )
    outcome = event["outcome"] + (f" ({event['error_code']})" if event["error_code"] else "")
    return (
        at, event["tenant"], event["key"], event["model"], event["provider"], event["status"] or None, outcome,
        f"${event['cost_usd']}", took(event["latency_ms"]), event["id"],
    )  # fmt: skip


def took(ms: float | None) -> str:
    if ms is None:
        return "–"
    return f"{ms / 1_000:.2f} s" if ms >= 1_000 else f"{ms:.1f} ms"


@events.command()
@asks_a_gateway
@as_json
@click.argument("event_id")
def show(gateway: Remote, json: bool, event_id: str) -> None:
    """One event, whole: EVENT_ID is its id, or the x-request-id of the call."""
    found = _whole(gateway, event_id)
    if json:
        click.echo(found.raw)
        return
    show_pairs([*_pairs(found.facts)])


def _whole(gateway: Remote, given: str) -> Answer:
    """The event with this id or request id; raises `RemoteError` with what is known of a call that was refused."""
    page = _searched(gateway, {"request_id": given, "limit": 1}).facts
    if page.get("unavailable"):
        raise _away(page)
    if page["items"]:
        return gateway.get(f"/events/{page['items'][0]['id']}")
    with contextlib.suppress(ValueError, RemoteError):
        return gateway.get(f"/events/{uuid.UUID(given)}")
    raise RemoteError(_refused(gateway, given, page.get("around")))


def _refused(gateway: Remote, given: str, around: Mapping[str, str] | None) -> str:
    for one in gateway.get("/refusals", {"request_id": given, "since": "90d"}).facts["items"]:
        return (
            f"That request was refused at {one['first_at']}: {one['status']} {one['reason']}"
            f" (tenant {printable(one['tenant'] or 'unknown')}, model {printable(one['model'])})."
            " A refused call has no event."
        )
    text = (
        f"There is no event with the id or request id {printable(given)}. A call that was refused has none; refusals"
        " are counted by the minute, and only the first of each minute, tenant, key and reason keeps its request id."
    )
    return text if around is None else f"{text} {_refused_around(gateway, around)}"


def _refused_around(gateway: Remote, around: Mapping[str, str]) -> str:
    """Which refusals there were when the call was made, by its id."""
    found = gateway.get("/refusals", {"since": around["since"], "until": around["until"]}).facts["items"]
    counts: Counter[str] = Counter()
    for one in found:
        counts[f"{printable(one['reason'])} (tenant {printable(one['tenant'] or 'unknown')})"] += one["count"]
    most = ", ".join(f"{count:,} times {name}" for name, count in counts.most_common(MOST_REASONS))
    further = f" and {len(counts) - MOST_REASONS:,} more" if len(counts) > MOST_REASONS else ""
    at = around["made_at"][:19].replace("T", " ")
    return f"By its id the call was made at {at} UTC; refused in that minute and the next: {most or 'none'}{further}."


def _pairs(event: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    for name, value in event.items():
        if name in {"attempts", "decision", "trace", "change"} or value in (None, ""):
            continue
        yield name.replace("_", " "), value
    for number, one in enumerate(event["attempts"], 1):
        yield f"attempt {number}", _words(one)
    for name, value in event["decision"].items():
        if isinstance(value, list):
            for one in value:
                yield name.replace("_", " "), _words(one)
        elif value is not None:
            yield name.replace("_", " "), value


def _words(found: object) -> str:
    if isinstance(found, dict):
        return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in found.items() if value is not None)
    return str(found)


# --- tail ----------------------------------------------------------------------------------------


@events.command()
@asks_a_gateway
@_with(FILTERS)
@click.option("--json", "json", is_flag=True, help="One JSON object a line.")
@click.option("--every", type=click.FloatRange(0.2, 60), default=1.0, hidden=True)
def tail(gateway: Remote, json: bool, every: float, **filters: str | int | None) -> None:
    """Follow: each event as it is recorded, until Ctrl-C. A gateway that restarts is waited for."""
    try:
        _follow(gateway, filters, every, json)
    except KeyboardInterrupt:
        raise SystemExit(0) from None  # that is how one ends it


def _follow(gateway: Remote, filters: Filters, every: float, json: bool) -> None:
    seen: dict[str, None] = {}
    looked, back, away_since = 0, LOOK_BACK_S, None
    _unseen(gateway, filters, DEEP_S, seen)  # what is there already is not news; and a first error ends it
    while True:
        time.sleep(every)
        looked += 1
        try:
            fresh = _unseen(gateway, filters, DEEP_S if looked % DEEP_EVERY == 0 else back, seen)
        except RemoteError as error:
            if not error.passing:
                raise
            if away_since is None:
                away_since = time.monotonic()
                click.echo(f"{error} Waiting for it …", err=True)
            continue
        if away_since is not None:
            click.echo("It is back.", err=True)
            fresh += _unseen(gateway, filters, int(time.monotonic() - away_since) + DEEP_S, seen)
            away_since = None
        for event in sorted(fresh, key=lambda one: str(one["id"])):
            _tell(event, json)


def _tell(event: Mapping[str, Any], json: bool) -> None:
    if json:
        click.echo(msgspec.json.encode(event))
    else:
        click.echo("  ".join(printable(value) for value in line(event) if value is not None))


def _unseen(gateway: Remote, filters: Filters, back_s: int, seen: dict[str, None]) -> list[Any]:
    """What began in the last ``back_s`` seconds and was not seen before; it is seen then."""
    fresh: list[Any] = []
    before: str | None = None
    for _ in range(MOST_PAGES):
        page = gateway.get("/events", {**filters, "since": f"{back_s}s", "before": before, "limit": MOST_ROWS}).facts
        if page.get("unavailable"):
            raise _away(page)
        fresh += [one for one in page["items"] if one["id"] not in seen]
        before = page["next"]
        if before is None:
            break
    seen.update((str(one["id"]), None) for one in fresh)
    while len(seen) > MOST_REMEMBERED:
        del seen[next(iter(seen))]
    return fresh


# --- export --------------------------------------------------------------------------------------


@events.command()
@asks_a_gateway
@_with((*FILTERS, *TIMES))
@click.option("--format", "format_", type=click.Choice(FORMATS), help="Default: by the file's name, else csv.")
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="A file. Default: stdout.")
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
def export(gateway: Remote, format_: str | None, output: Path | None, force: bool, **filters: str | int | None) -> None:
    """Every event that matches, as CSV or JSONL, newest first. A file gets its name when it is whole."""
    kind = format_ or (output.suffix[1:].lower() if output and output.suffix[1:].lower() in FORMATS else "csv")
    if output is None:
        if sys.stdout.isatty() and not any(filters.values()):
            raise RemoteError(
                "That would fill this terminal with every event. Name a file with --output, or filter.", 2
            )
        _fetch(gateway, {**filters, "format": kind}, sys.stdout.buffer, sys.stderr.isatty() and not sys.stdout.isatty())
        return
    if output.exists() and not force:
        raise RemoteError(f"{output} is there already. --force overwrites it.", 2)
    with _draft(output) as file:
        rows = _fetch(gateway, {**filters, "format": kind}, file, sys.stderr.isatty())
    click.echo(f"{output}: {rows:,} {'event' if rows == 1 else 'events'}", err=True)


@contextlib.contextmanager
def _draft(output: Path) -> Iterator[BinaryIO]:
    """Rule 2."""
    draft = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        with draft.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(output)
    except OSError as error:
        raise RemoteError(f"{output} can't be written: {error.strerror or error}") from error
    finally:
        draft.unlink(missing_ok=True)


def _fetch(gateway: Remote, query: Filters, file: BinaryIO, shown: bool) -> int:
    """Rows that were written."""
    with gateway.stream("/events/export", query) as response, _progress(shown, response.headers) as advance:
        lines = 0
        for piece in response.iter_bytes():
            file.write(piece)
            more = piece.count(b"\n")
            lines += more
            advance(more)
        file.flush()
    return lines - 1 if query["format"] == "csv" else lines


@contextlib.contextmanager
def _progress(shown: bool, headers: Mapping[str, str]) -> Iterator[Callable[[int], object]]:
    if not shown:
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415 - 40 ms that a pipe does not need
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    total = headers.get("x-perpetuo-rows", "")
    columns = (TextColumn("events"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("events", total=int(total) if total.isdecimal() else None)
        yield lambda more: progress.advance(task, more)
