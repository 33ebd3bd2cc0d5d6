"""What do `perpetuo events search | show | tail | export` say, of a worker in this process?"""

import asyncio
import csv
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio.to_thread
import attrs
import httpx
import pytest
from click.testing import CliRunner, Result

from perpetuo.entrypoints.commands.events import COLUMNS, events
from tests.contract.event_store_contract import event, sent
from tests.unit.admin.conftest import ADMIN_KEY, HOSTILE, Desk
from tests.unit.commands.gateways import Canned, refusal, serving

pytestmark = pytest.mark.anyio
HOSTILE_KEY = "sk-test-hostile-0123456789"
PERPETUO = Path(sys.executable).with_name("perpetuo")


@attrs.define
class Terminal:
    """Where somebody types; what they ask goes over loopback to the desk, or is answered by ``instead``."""

    desk: Desk
    url: str = ""
    instead: Canned | None | type[Desk] = Desk

    async def types(self, *arguments: str) -> Result:
        environment = {"PERPETUO_ADMIN_KEY": ADMIN_KEY, "PERPETUO_URL": self.url}
        run = CliRunner().invoke
        return await anyio.to_thread.run_sync(lambda: run(events, arguments, env=environment))

    async def lines(self, *arguments: str) -> list[str]:
        done = await self.types(*arguments)
        assert (done.exit_code, done.stderr) == (0, "")
        return done.stdout.splitlines()

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, "PERPETUO_ADMIN_KEY": ADMIN_KEY, "PERPETUO_URL": self.url}


@pytest.fixture
async def terminal(desk: Desk) -> AsyncIterator[Terminal]:
    made, loop = Terminal(desk), asyncio.get_running_loop()

    def asked(path: str, headers: dict[str, str]) -> Canned | None:
        if not isinstance(made.instead, type):
            return made.instead
        asking = desk.another().get(path, headers=headers)
        got: httpx.Response = asyncio.run_coroutine_threadsafe(asking, loop).result(300)
        named = [(name, value) for name, value in got.headers.items() if name != "content-length"]
        return Canned(got.status_code, got.content, tuple(named))

    with serving(asked) as (made.url, _):
        yield made


# --- search --------------------------------------------------------------------------------------


async def test_search_is_a_table_newest_first(terminal: Terminal) -> None:
    """With money, status and outcome; a tenant's id can't steer the terminal, nor be read as markup."""
    await terminal.desk.call()
    await terminal.desk.call(HOSTILE_KEY)
    head, first, second = await terminal.lines("search")
    assert head.split() == [*COLUMNS]
    assert HOSTILE in first
    assert re.search(r"acme +key-1 +m +demo +200 +completed +\$0\.\d+ +[\d.]+ m?s +[0-9a-f-]{36}$", second)


async def test_search_filters_as_the_page_does(terminal: Terminal) -> None:
    """Each option narrows; a failed call says why."""
    await terminal.desk.call(**{"x-perpetuo-tag": "nightly", "x-request-id": "job-7"})
    await terminal.desk.call(model="away")
    for narrowed in (["--tag", "nightly"], ["--model", "m"], ["--outcome", "completed"], ["--status", "200"],
                     ["--provider", "demo"], ["--request-id", "job-7"]):  # fmt: skip
        assert len(await terminal.lines("search", *narrowed, "--tenant", "acme", "--since", "1h")) == 2
    failed = await terminal.lines("search", "--outcome", "failed", "--kind", "chat", "--key", "key-1")
    assert "502  failed (upstream_error)" in failed[1]


async def test_search_names_the_operator_of_an_action(terminal: Terminal) -> None:
    """In the place of the key; what was done stands where a call has its model."""
    order = {"tenant": "acme", "usd": "1", "until": "2h", "reason": "a launch"}
    assert (await terminal.desk.ask("budget/raise", **order)).status_code == 200
    await terminal.desk.written()
    (_, line) = await terminal.lines("search", "--kind", "admin")
    assert "  acme    PERPETUO_ADMIN_KEY  raised the day budget of acme by 1 USD: a launch  " in line


async def test_search_comes_in_pages(terminal: Terminal) -> None:
    """The last line says how to see older ones; it is no part of the table."""
    for _ in range(3):
        await terminal.desk.call()
    done = await terminal.types("search", "--limit", "2")
    before = re.fullmatch(r"There are older ones: --before ([0-9a-f-]{36})\n", done.stderr)
    assert before
    assert len(done.stdout.splitlines()) == 3
    assert len(await terminal.lines("search", "--before", before[1])) == 2


async def test_search_goes_on_by_itself(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway has no time to look further than an hour back at once; the answer is that of one that has."""
    desk = terminal.desk
    await desk.call()
    old = [event(desk.container.system.now_us() - hours * 3_600_000_000, tag="nightly") for hours in (3, 5)]
    await desk.container.store.write(list(map(sent, old)))
    at_once = await desk.api("events?limit=2")
    for name in ("SEARCH_SECONDS", "ANSWER_SECONDS"):
        monkeypatch.setattr(f"perpetuo.entrypoints.http.admin.events.look.{name}", 0.0)
    assert len(await terminal.lines("search", "--tag", "nightly")) == 3
    (line,) = await terminal.lines("search", "--json", "--limit", "2")
    assert json.loads(line)["items"] == at_once["items"]
    assert json.loads(line)["next"] is not None
    assert old[1].id in "".join(await terminal.lines("show", old[1].request_id))
    done = await terminal.types("search", "--tag", "none")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "Nothing matches.\n")


async def test_search_for_scripts_is_what_the_gateway_said(terminal: Terminal) -> None:
    """One JSON object."""
    await terminal.desk.call()
    (line,) = await terminal.lines("search", "--json")
    assert json.loads(line) == await terminal.desk.api("events")


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["search", "--tenant", "nobody"], 0, "Nothing matches. Without the tenant there would be something."),
        (["search", "--outcome", "odd"], 2, "The parameter `outcome` must be one of completed, failed"),
        (["search", "--since", "yesterday"], 2, "must be an instant such as 2026-11-26T10:30Z, or how long ago"),
        (["search", "--before", "x"], 2, "The parameter `before` must be the `next` of the page before."),
        (["search", "--limit", "501"], 2, "501 is not in the range 1<=x<=500"),
        (["show", "job-7"], 1, "There is no event with the id or request id job-7. A call that was refused has none"),
        (["tail", "--status", "odd"], 2, "The parameter `status` must be an HTTP status such as 429."),
        (["export", "--kind", "odd"], 2, "The parameter `kind` must be one of call, admin, chat, embeddings."),
    ],
)
async def test_what_can_not_be_meant_is_a_sentence(
    terminal: Terminal, arguments: list[str], status: int, sentence: str
) -> None:
    """On standard error; 2 for what was asked wrongly."""
    await terminal.desk.call()
    done = await terminal.types(*arguments)
    assert (done.exit_code, done.stdout) == (status, "")
    assert sentence in re.sub(r"\s+", " ", done.stderr.replace("│", ""))


@pytest.mark.parametrize("command", ["search", "show x", "tail", "export"])
async def test_an_event_table_that_is_away_is_said(blind_desk: Desk, command: str) -> None:
    """Not an empty list."""
    asking = await blind_desk.ask("events")
    with serving(Canned(body=asking.content)) as (url, _):
        done = await Terminal(blind_desk, url).types(*command.split()) if command != "export" else None
    if done is None:
        answer = await blind_desk.ask("events/export")
        with serving(Canned(answer.status_code, answer.content)) as (url, _):
            done = await Terminal(blind_desk, url).types("export")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "The event table is away: " in done.stderr


# --- show ----------------------------------------------------------------------------------------


async def test_show_tells_one_call_by_either_id(terminal: Terminal) -> None:
    """Its attempts and its decision, a line each."""
    await terminal.desk.call(**{"x-request-id": "job-7"})
    shown = await terminal.lines("show", "job-7")
    whole = json.loads("".join(await terminal.lines("show", "job-7", "--json")))
    assert await terminal.lines("show", whole["id"]) == shown
    said = dict(re.split(r"  +", line, maxsplit=1) for line in shown)
    assert (said["tenant"], said["cost usd"], said["candidates"]) == ("acme", whole["cost_usd"], "demo/gpt-3.5-turbo")
    assert "outcome success" in said["attempt 1"]


async def test_show_knows_of_a_refused_call(terminal: Terminal) -> None:
    """It has no event; the first refusal of a minute keeps its request id."""
    await terminal.desk.call(model="unheard-of", **{"x-request-id": "job-8"})
    done = await terminal.types("show", "job-8")
    assert done.exit_code == 1
    assert "404 model_not_found (tenant acme, model other). A refused call has no event." in done.stderr


@pytest.mark.usefixtures("within_a_minute")
async def test_show_says_what_was_refused_when_a_call_was_made(terminal: Terminal) -> None:
    """The second refusal of a minute keeps no request id, but its id begins with its time."""
    ids = [(await terminal.desk.call(model="unheard-of")).headers["x-request-id"] for _ in range(2)]
    done = await terminal.types("show", ids[1])
    assert done.exit_code == 1
    assert "By its id the call was made at 20" in done.stderr
    assert "refused in that minute and the next: 2 times model_not_found (tenant acme)." in done.stderr
    found = await terminal.types("search", "--request-id", ids[1])
    assert found.exit_code == 0
    assert "By its id the call was made at 20" in found.stderr
    assert "`perpetuo events show` with the request id" in found.stderr


# --- tail ----------------------------------------------------------------------------------------


async def tailed(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, given: Sequence[Callable[[], Any]], *options: str
) -> Result:
    """`tail` whose seconds are ``given``: what happens in each, and Ctrl-C after the last."""
    loop, clock, steps = asyncio.get_running_loop(), iter(range(10**6)), [*given]

    def pass_a_second(_: float) -> None:
        if not steps:
            raise KeyboardInterrupt
        happened = steps.pop(0)()
        if asyncio.iscoroutine(happened):
            asyncio.run_coroutine_threadsafe(happened, loop).result(300)

    seconds = SimpleNamespace(sleep=pass_a_second, monotonic=lambda: next(clock))
    monkeypatch.setattr("perpetuo.entrypoints.commands.events.time", seconds)
    return await terminal.types("tail", *options)


async def test_tail_shows_what_is_recorded_from_now_on(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each event once, of this tenant only, at the look after it; what was there before is not news. Ctrl-C: 0."""
    desk = terminal.desk
    await desk.call(**{"x-request-id": "before"})
    steps = [
        lambda: desk.call(**{"x-perpetuo-tag": "one"}),
        lambda: desk.call(HOSTILE_KEY),
        lambda: None,
        lambda: desk.call(model="away"),
    ]
    done = await tailed(terminal, monkeypatch, steps, "--tenant", "acme")
    assert (done.exit_code, done.stderr) == (0, "")
    assert [line.split("  ")[1:6] for line in done.stdout.splitlines()] == [
        ["acme", "key-1", "m", "demo", "200"],
        ["acme", "key-1", "away", "paid", "502"],
    ]


async def test_tail_for_scripts_is_json_lines(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The events of `search --json`, one a line."""
    done = await tailed(terminal, monkeypatch, [terminal.desk.call, terminal.desk.call], "--json")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert told[::-1] == (await terminal.desk.api("events"))["items"]


@pytest.mark.parametrize("away", [None, refusal(503, "store_unavailable", "The event table is away.")])
async def test_tail_waits_for_a_gateway_that_restarts(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, away: Canned | None
) -> None:
    """Said once; what was recorded meanwhile is shown when it is back."""

    def set_to(instead: Any) -> Callable[[], None]:
        return lambda: setattr(terminal, "instead", instead)

    steps: list[Callable[[], Any]] = [set_to(away), terminal.desk.call, lambda: None, set_to(Desk)]
    done = await tailed(terminal, monkeypatch, steps)
    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) == 1
    assert len(done.stderr.splitlines()) == 2
    assert re.fullmatch(
        r"(The connection to .* broke: .*|The event table is away\.) Waiting for it …\n.*\n", done.stderr
    )
    assert done.stderr.endswith("\nIt is back.\n")


async def test_tail_ends_when_waiting_would_not_help(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is refused now: one sentence, and 1."""
    wrong = refusal(401, "invalid_api_key", "This is not an admin key.")
    done = await tailed(terminal, monkeypatch, [lambda: setattr(terminal, "instead", wrong)])
    assert (done.exit_code, done.stdout) == (1, "")
    assert "refused PERPETUO_ADMIN_KEY: This is not an admin key." in done.stderr


async def test_ctrl_c_ends_tail_quietly(terminal: Terminal) -> None:
    """As it is typed, in a process of its own: exit 0, nothing on standard error."""
    command = [str(PERPETUO), "events", "tail", "--json", "--every", "0.2"]
    process = await asyncio.create_subprocess_exec(
        *command, env=terminal.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout
    async with asyncio.timeout(300):
        told = await _first_line(terminal.desk, process.stdout)
        process.send_signal(signal.SIGINT)
        _, complaints = await process.communicate()
    assert json.loads(told)["tenant"] == "acme"
    assert (process.returncode, complaints) == (0, b"")


async def _first_line(desk: Desk, output: asyncio.StreamReader) -> bytes:
    """Calls are made until one is told: how long the command takes to start is not known."""
    told = asyncio.create_task(output.readline())
    while not told.done():
        await desk.call()
        await asyncio.wait({told}, timeout=0.2)
    return told.result()


@pytest.mark.parametrize("command", ["tail --every 0.2", "search", "export"])
async def test_a_pipe_that_closes_ends_it_quietly(terminal: Terminal, command: str) -> None:
    """`| head -1`: no traceback, no sentence."""
    await terminal.desk.call()
    script = f'"{PERPETUO}" events {command} | head -1'
    process = await asyncio.create_subprocess_shell(
        script, env=terminal.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    ended = asyncio.create_task(process.communicate())
    async with asyncio.timeout(300):
        while not ended.done():
            await terminal.desk.call()
            await asyncio.wait({ended}, timeout=0.2)
    output, complaints = ended.result()
    assert (len(output.splitlines()), complaints) == (1, b"")


# --- export --------------------------------------------------------------------------------------


async def test_export_writes_a_file_and_says_how_many(terminal: Terminal, tmp_path: Path) -> None:
    """CSV or JSONL by the name; nothing else is left beside it."""
    for _ in range(2):
        await terminal.desk.call()
    for name in ("calls.csv", "calls.jsonl"):
        done = await terminal.types("export", "--output", str(tmp_path / name))
        assert (done.exit_code, done.stderr) == (0, f"{tmp_path / name}: 2 events\n")
    lines = [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()]
    rows = [*csv.DictReader((tmp_path / "calls.csv").open(newline=""))]
    assert [row["id"] for row in rows] == [line["id"] for line in lines]
    assert sorted(left_of(tmp_path)) == ["calls.csv", "calls.jsonl"]


async def test_export_leaves_a_file_alone_unless_told(terminal: Terminal, tmp_path: Path) -> None:
    """Exit 2 and the option; with it, the file is the new one."""
    file = tmp_path / "calls.csv"
    file.write_text("precious")
    done = await terminal.types("export", "-o", str(file))
    assert (done.exit_code, done.stderr) == (2, f"{file} is there already. --force overwrites it.\n")
    assert file.read_text() == "precious"
    assert (await terminal.types("export", "-o", str(file), "--force")).exit_code == 0
    assert file.read_text().startswith("id,at,kind,")


def left_of(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir() if "calls" in path.name]


async def test_export_that_breaks_leaves_no_file(terminal: Terminal, tmp_path: Path) -> None:
    """Nor a draft; a directory that is not there is a sentence as well."""
    terminal.instead = None
    done = await terminal.types("export", "-o", str(tmp_path / "calls.csv"))
    assert done.exit_code == 1
    assert "broke: " in done.stderr
    assert left_of(tmp_path) == []
    terminal.instead = Desk
    done = await terminal.types("export", "-o", str(tmp_path / "none" / "calls.csv"))
    assert (done.exit_code, done.stderr.endswith("calls.csv can't be written: No such file or directory\n")) == (
        1,
        True,
    )


async def test_export_to_a_pipe_is_the_rows_alone(terminal: Terminal) -> None:
    """As JSONL on request, with filters."""
    await terminal.desk.call()
    await terminal.desk.call(HOSTILE_KEY)
    (line,) = await terminal.lines("export", "--format", "jsonl", "--tenant", "acme")
    assert json.loads(line)["tenant"] == "acme"
