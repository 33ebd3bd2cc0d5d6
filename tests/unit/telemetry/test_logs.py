"""The log: contract §7, nothing that must not be in it, and never in the way."""

import io
import json
import logging
import threading
from typing import Any

import attrs
import pytest

from perpetuo.adapters.telemetry import logs
from perpetuo.adapters.telemetry.cells import Cells
from perpetuo.adapters.telemetry.journal import TelemetryJournal, call_fields
from perpetuo.adapters.telemetry.logs import FIELDS, Handler, Log, Writer
from perpetuo.adapters.telemetry.metrics import STORE_ERRORS, Labels, Metrics, name_of
from perpetuo.domain.model.admission import Abandoned
from perpetuo.domain.model.events import Event, RefusalNote
from perpetuo.domain.model.money import Nano
from perpetuo.domain.policy.breaker import BreakerPhase, BreakerReading, BreakerView, Cause
from perpetuo.domain.ports import Journal
from tests.patience import PATIENCE

CANARY = "canary-7f3a prompt text"
NOON_US = 1_795_435_200_123_000
EVENT = Event(
    id="0", occurred_at_us=0, tenant_id="acme", key_name="batch", kind="chat", model="gpt", request_id="r-1",
    status=200, outcome="completed", provider="openai", upstream_model="gpt-x", input_tokens=7, output_tokens=3,
    cost_nano_usd=1_500, latency_ms=12.34567, overhead_ms=0.5, attempts=({"provider": "openai"},), tag=CANARY,
    client_ip="10.0.0.1", trace_id="t-1", decision={"candidates": [CANARY]},
)  # fmt: skip
CONTRACT = [
    "time", "level", "event", "request_id", "trace_id", "tenant", "key", "model", "provider", "status", "outcome",
    "error_code", "attempts", "input_tokens", "output_tokens", "cost_usd", "latency_ms", "overhead_ms",
    "first_token_ms", "idempotency",
]  # fmt: skip


@attrs.define
class Now:
    seconds: float = 100.0

    def __call__(self) -> float:
        return self.seconds


class Desk:
    """A journal over a log in memory."""

    def __init__(self, level: str = "info", form: str = "json") -> None:
        self.stream = io.BytesIO()
        self.log = Log(Writer(self.stream), level, form, lambda: NOON_US)
        self.now = Now()
        self.notes: list[RefusalNote] = []
        self.metrics = Metrics(Cells.in_process(), Labels.of(["acme"], ["gpt"], ["openai"]))
        self.journal: TelemetryJournal = TelemetryJournal(self.log, self.metrics, self.now, self.notes.append)

    def text(self) -> str:
        self.log.close()
        return self.stream.getvalue().decode()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_the_journal_is_what_the_core_asks_for(desk: Desk) -> None:
    """Checked by mypy; here it is only assigned."""
    journal: Journal = desk.journal
    assert journal is desk.journal


# --- the line of a call --------------------------------------------------------------------------


def test_a_call_is_one_line_with_the_fields_of_the_contract_in_order(desk: Desk) -> None:
    """Money is an exact decimal, times are milliseconds."""
    desk.journal.finished(EVENT)
    (line,) = desk.lines()
    assert list(line) == CONTRACT
    assert line["time"] == "2026-11-23T12:00:00.123Z"
    assert (line["event"], line["level"], line["attempts"], line["latency_ms"]) == ("call", "info", 1, 12.346)
    assert '"cost_usd":0.0000015' in desk.text()


def test_a_call_that_went_wrong_is_a_warning(desk: Desk) -> None:
    """So that level ``warning`` shows what needs attention and nothing else."""
    quiet = Desk(level="warning")
    for outcome in ("completed", "cancelled", "failed", "truncated"):
        quiet.journal.finished(attrs.evolve(EVENT, outcome=outcome))
    assert [line["outcome"] for line in quiet.lines()] == ["failed", "truncated"]


def test_text_is_one_aligned_line_without_empty_fields() -> None:
    """For people at a terminal; blanks are quoted, and nothing a terminal would obey gets through."""
    desk = Desk(form="text")
    desk.journal.finished(EVENT)
    desk.journal.log("error", "store_error", problem="went \x1b[31maway\n", store="ledger")
    call, trouble = desk.text().splitlines()
    assert call.startswith("12:00:00.123 info    call             request_id=r-1 trace_id=t-1 tenant=acme")
    assert "cost_usd=0.0000015" in call
    assert "error_code" not in call
    assert trouble.endswith(r'problem="went \u001b[31maway\n" store=ledger')


# --- what must not be in it ----------------------------------------------------------------------


def test_a5_a_field_nobody_allowed_is_not_written(desk: Desk) -> None:
    """Its name is, so that the mistake is noticed."""
    desk.journal.log("info", "odd", prompt=CANARY, body=CANARY, port=3000)
    (line,) = desk.lines()
    assert line["dropped"] == ["body", "prompt"]
    assert line["port"] == 3000
    assert "canary" not in desk.text()


def test_a5_the_line_of_a_call_holds_neither_tag_nor_decision(desk: Desk) -> None:
    """Only the contract's fields are taken from an event."""
    desk.journal.finished(EVENT)
    assert "canary" not in desk.text()
    assert set(call_fields(EVENT)) <= FIELDS


@pytest.mark.parametrize(
    "secret",
    ["sk-perpetuo-pro-1", "Bearer abcdef123456", "redis://user:pa55word@host:6379", "authorization: bearer eyJhbGciOi"],
)
def test_a5_what_looks_like_a_credential_is_hidden(desk: Desk, secret: str) -> None:
    """Wherever a provider or a driver quotes one."""
    desk.journal.store_error("ledger", f"could not use {secret} today")
    text = desk.text()
    assert "[hidden]" in text
    for part in ("pro-1", "abcdef", "pa55word", "eyJ"):
        assert part not in text


def test_a5_objects_and_exceptions_are_named_by_type(desk: Desk) -> None:
    """Their text may hold anything."""
    desk.journal.log("error", "odd", error=ValueError(CANARY), detail={"prompt": CANARY}, problems=["a", object()])
    (line,) = desk.lines()
    assert (line["error"], line["detail"], line["problems"]) == ("ValueError", "dict", ["a", "object"])


def test_long_text_is_cut(desk: Desk) -> None:
    """A provider's page of HTML is no log line."""
    desk.journal.log("error", "odd", detail="x" * 100_000)
    assert len(desk.lines()[0]["detail"]) == 500


# --- other libraries -----------------------------------------------------------------------------


@pytest.fixture
def logger(desk: Desk) -> logging.Logger:
    """Unknown to the logging tree, so that pytest's own handlers do not hear it."""
    found = logging.Logger("somebody.else")  # noqa: LOG001
    found.addHandler(Handler(desk.log))
    return found


def test_a5_tracebacks_say_where_and_not_what(desk: Desk, logger: logging.Logger) -> None:
    """Frames and types, causes first; no message of an exception."""
    try:
        try:
            raise KeyError(CANARY)
        except KeyError as error:
            raise ValueError(CANARY) from error
    except ValueError:
        logger.exception("it broke\n%s", CANARY)
    (line,) = desk.lines()
    assert (line["event"], line["logger"], line["message"]) == ("log", "somebody.else", "it broke")
    assert line["error_type"] == "ValueError"
    first, after, last = line["where"]
    assert after == "after KeyError"
    assert "test_logs.py" in first
    assert "test_logs.py" in last
    assert "canary" not in desk.text()


def test_a_wrong_format_string_does_not_break_the_log(desk: Desk, logger: logging.Logger) -> None:
    """It is written as it stands; levels nobody knows are errors."""
    logger.warning("%d", "x")
    logger.log(35, "odd level")
    assert [(line["level"], line["message"]) for line in desk.lines()] == [("warning", "%d"), ("error", "odd level")]


# --- for people and for programs -----------------------------------------------------------------


def test_problems_stand_on_lines_of_their_own_for_people() -> None:
    """A list of sentences is read line by line on a terminal; names stay in the line."""
    desk = Desk(form="text")
    problems = ["c.yaml:3:1: limits is not allowed here", "c.yaml:9:5: -1 is\x1bnot allowed: at least 0"]
    desk.journal.log("error", "config_rejected", count=2, problems=problems)
    desk.journal.log("info", "ready", problems=["redis"])
    first, second, third, last = desk.text().splitlines()
    assert first.endswith("config_rejected  count=2")
    assert second == "    c.yaml:3:1: limits is not allowed here"
    assert "\x1b" not in third
    assert last.endswith('problems=["redis"]')


def test_problems_are_a_list_for_programs(desk: Desk) -> None:
    """One object a line, whatever is in it."""
    desk.journal.log("error", "config_rejected", problems=["c.yaml:3:1: a", "c.yaml:4:1: b"])
    assert desk.lines()[0]["problems"] == ["c.yaml:3:1: a", "c.yaml:4:1: b"]


def test_lines_of_several_workers_carry_their_number() -> None:
    """Also those of calls and of other libraries; a worker that is alone has none."""
    stream = io.BytesIO()
    log = Log(Writer(stream), "info", "json", lambda: NOON_US, worker=3)
    log.line("info", "ready", {})
    log.trusted("info", "call", call_fields(EVENT))
    Handler(log).handle(logging.LogRecord("lib", logging.ERROR, "", 1, "oh", None, None))
    log.close()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["worker"] for line in lines] == [3, 3, 3]
    assert list(lines[1]) == [*CONTRACT, "worker"]


# --- stores in trouble ---------------------------------------------------------------------------


def test_store_errors_are_counted_each_and_logged_every_ten_seconds(desk: Desk) -> None:
    """The first at once; then how many there were, and what it means for calls."""
    for _ in range(50):
        desk.journal.store_error("ledger", "Redis is away")
    desk.now.seconds += 10
    desk.journal.store_error("ledger", "Redis is away")
    desk.journal.store_error("sql", "Postgres is away")
    assert desk.metrics.cells.snapshot()[name_of(STORE_ERRORS, ("ledger",))] == 51
    lines = desk.lines()
    assert [(line["store"], line["failures"]) for line in lines] == [("ledger", 1), ("ledger", 51), ("sql", 1)]
    assert "503" in lines[0]["meaning"]


def test_a_store_that_is_back_is_said_once_an_outage(desk: Desk) -> None:
    """While others still fail it is not back, whatever succeeds in between; then one line, with how long it took."""
    for _ in range(20):
        desk.journal.store_error("ledger", "Redis is away")
        desk.now.seconds += 0.5
        desk.journal.store_back("ledger")
    desk.now.seconds += 5
    for _ in range(20):
        desk.journal.store_back("ledger")
    desk.journal.store_error("ledger", "Redis is away again")
    lines = desk.lines()
    assert [(line["event"], line["level"], line["failures"]) for line in lines] == [
        ("store_away", "error", 1),
        ("store_back", "info", 20),
        ("store_away", "error", 1),
    ]
    assert lines[1]["seconds"] == 9.5


def test_a_store_that_never_failed_is_not_said_to_be_back(desk: Desk) -> None:
    """The renewals of a quiet day write nothing."""
    desk.journal.store_back("ledger")
    assert desk.lines() == []


def test_a_breakers_change_is_told(desk: Desk) -> None:
    """Opening is a warning, closing is news."""
    desk.journal.breaker_changed(BreakerReading("openai", BreakerView(BreakerPhase.OPEN), cause=Cause.FAILURE_RATE))
    desk.journal.breaker_changed(BreakerReading("openai", BreakerView(), cause=Cause.OPERATOR))
    assert [(x["event"], x["level"], x["cause"]) for x in desk.lines()] == [
        ("breaker_open", "warning", "failure_rate"),
        ("breaker_closed", "info", "operator"),
    ]


def test_the_rest_of_the_port(desk: Desk) -> None:
    """Refusals go on to their rows and are silent above ``debug``; the others have a line."""
    note = RefusalNote(
        at_us=0, request_id="r", tenant_id="acme", key_name="k", reason="rate_limit_exceeded", status=429, model="gpt"
    )
    desk.journal.refused(note)
    desk.journal.attempted("openai", "success")
    desk.journal.in_flight(3)
    desk.journal.reloaded("success")
    desk.journal.hold_exceeded(EVENT)
    desk.journal.abandoned([Abandoned("call-1", "acme", Nano(2_000))])
    assert desk.notes == [note]
    assert [(line["event"], line.get("charged_usd")) for line in desk.lines()] == [
        ("hold_exceeded", None),
        ("abandoned", "0.000002"),
    ]
    loud = Desk(level="debug")
    loud.journal.refused(note)
    assert loud.lines()[0]["reason"] == "rate_limit_exceeded"


# --- never in the way ----------------------------------------------------------------------------


class Stuck(io.BytesIO):
    """A pipe whose reader has stopped reading, for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.freed = threading.Event()
        self.reached = threading.Event()

    def write(self, data: Any) -> int:
        self.reached.set()
        self.freed.wait(PATIENCE)
        return super().write(data)


def test_a_stuck_reader_blocks_nobody_and_the_loss_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines beyond the bound are dropped, and counted in the first line that gets through."""
    monkeypatch.setattr(logs, "MOST_WAITING", 10)
    stream = Stuck()
    log = Log(Writer(stream), "info", "json", lambda: NOON_US)
    log.line("info", "first", {})
    assert stream.reached.wait(PATIENCE)
    for n in range(25):
        log.line("info", "more", {"count": n})
    monkeypatch.setattr(logs, "MOST_WAITING", 1_000)
    log.line("info", "last", {})
    stream.freed.set()
    log.close()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    dropped = next(line for line in lines if line["event"] == "log_lines_dropped")
    assert dropped["count"] == 15
    assert lines[-1]["event"] == "last"


def test_a_reader_that_has_gone_is_no_error() -> None:
    """A closed pipe ends the log, not the worker."""
    stream = io.BytesIO()
    stream.close()
    log = Log(Writer(stream), "info", "json", lambda: NOON_US)
    log.line("info", "first", {})
    log.close()
