"""Reading Redis's own journal back: admissions, money at every instant, claims, and what was lost."""

import json
from pathlib import Path
from typing import Any

from tests.chaos import ledger_log
from tests.chaos.ledger_log import Claimed, Drift, LedgerLog

P = "perpetuo:{s05}"
DAY = f"{P}:budget:acme:2026-11-23"
SUMS = [f"{P}:budget:{scope}:{window}" for scope in ("acme", "acme/main") for window in ("2026-11-23", "2026-11")]
LIFE = ["SET", f"{P}:life", "run-1 1795600000000000 0"]


def resp(*command: Any) -> bytes:
    parts = [str(part).encode() for part in command]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


def instant(*commands: Any) -> bytes:
    return resp("MULTI") + b"".join(resp(*command) for command in commands) + resp("EXEC")


def read(tmp_path: Path, *data: bytes) -> LedgerLog:
    path = tmp_path / "log"
    path.write_bytes(resp("SELECT", 0) + b"#TS:1795600000\r\n" + b"".join(data))
    return ledger_log.read([path])


def row(call: str, cost: int = 0) -> str:
    fields = {"id": call, "tenant_id": "acme", "key_name": "main", "request_id": f"r-{call}"}
    return json.dumps({**fields, "cost_nano_usd": cost, "budget_day": "2026-11-23", "more": 1})


def admit(call: str, hold: int = 50, at: int = 1_795_600_000_000_001) -> list[Any]:
    record = f"H 0 {hold} run-1 {at} 1\n{hold} 1 …\n[]\n{row(call)}"
    return [*(["HINCRBY", key, "held", hold] for key in SUMS), ["SET", f"{P}:call:{call}", record]]


def settle(call: str, cost: int, hold: int = 50, revision: int = 1) -> list[Any]:
    moves = [move for key in SUMS for move in (["HINCRBY", key, "spent", cost], ["HINCRBY", key, "held", -hold])]
    event = ["XADD", f"{P}:events", "1-1", "e", row(call, cost), "r", revision]
    return [*moves, event, ["SET", f"{P}:call:{call}", "T 1795600060000000 0 1", "PXAT", 1]]


def test_an_admission_has_redis_time_and_its_caller(tmp_path: Path) -> None:
    """From the call's record; growing the hold is no second admission."""
    grown = ["SET", f"{P}:call:c1", f"H 0 70 run-1 1795600000000001 1\n…\n[]\n{row('c1')}"]
    log = read(tmp_path, instant(*admit("c1")), instant(grown))
    (one,) = log.admissions.values()
    assert (one.call, one.tenant, one.key, one.request, one.at_us) == ("c1", "acme", "main", "r-c1", 1795600000000001)
    assert (one.hold, one.cancelled, one.revision) == (70, False, 0)


def test_the_height_of_a_window_is_known_at_every_instant(tmp_path: Path) -> None:
    """Two holds at once, though nobody looked; only new heights are kept."""
    log = read(
        tmp_path,
        resp(*LIFE),
        instant(*admit("c1")),
        instant(*admit("c2")),
        instant(*settle("c1", 7)),
        instant(*admit("c3")),
    )
    assert [h.amount for h in log.heights if (h.scope, h.window) == ("acme", "2026-11-23")] == [50, 100, 107]
    assert log.counters["acme", "2026-11-23"] == (7, 100)


def test_charging_and_recording_are_one_instant(tmp_path: Path) -> None:
    """Charged without an event, or an event without a charge, is a drift; together they are none."""
    good = [instant(*admit("c1")), instant(*settle("c1", 7))]
    assert read(tmp_path, *good).drifts == []
    assert read(tmp_path, *good).admissions["c1"].revision == 1
    charged = read(tmp_path, *good, resp("HINCRBY", DAY, "spent", 3))
    assert charged.drifts == [Drift("acme", "2026-11-23", 10, 7, charged.drifts[0].at)]
    noted = read(tmp_path, *good, resp("XADD", f"{P}:events", "1-2", "e", row("c1", 9), "r", 2))
    assert {(d.spent, d.events) for d in noted.drifts} == {(7, 9)}


def test_no_sum_is_due_while_counters_are_being_read_back(tmp_path: Path) -> None:
    """Sealed: spent is zero for a while; once open it has to be right again."""
    before = [instant(*admit("c1")), instant(*settle("c1", 7))]
    zeros: list[Any] = [["HSET", key, "spent", 0] for key in SUMS]
    seal = instant(["SET", f"{P}:seeding", "token", "PXAT", 1], *zeros)
    opened = [["SET", f"{P}:seeded", "run-2"], ["DEL", f"{P}:seeding"]]
    back = [*(["HINCRBY", key, "spent", 7] for key in SUMS), *opened]
    assert read(tmp_path, *before, seal).drifts == []
    assert read(tmp_path, *before, seal, instant(*back)).drifts == []
    assert len(read(tmp_path, *before, seal, instant(*opened)).drifts) == len(SUMS)


def test_a_cancelled_admission_is_none(tmp_path: Path) -> None:
    """Over without an event: taken back. Reaped is not over."""
    reaped = [
        ["XADD", f"{P}:events", "1-1", "e", row("c2"), "r", 1, "h", 0],
        ["SET", f"{P}:call:c2", "R 1 0 run-1 1 1\n"],
    ]
    cancel = ["SET", f"{P}:call:c1", "T 1795600060000000 0 1", "PXAT", 1]
    log = read(tmp_path, instant(*admit("c1", 0)), instant(*admit("c2", 0)), instant(cancel), instant(*reaped))
    assert (log.admissions["c1"].cancelled, log.admissions["c2"].cancelled) == (True, False)
    assert (log.admissions["c2"].reaped, log.admissions["c2"].revision) == (True, 1)


def test_who_takes_a_key_from_whom_is_seen(tmp_path: Path) -> None:
    """From a run whose lease goes on, from a kept answer; a renewal and a freed key are nothing."""
    key = f"{P}:idem:acme:00"

    def claim(call: str, at: int) -> bytes:
        fields = ["st", "R", "fp", "x", "fence", 1, "call", call, "lease", at + 5_000_000, "exp", at + 9_000_000]
        return instant(["DEL", key], ["HSET", key, *fields], *admit(call, 0, at))

    at = 1_795_600_000_000_000
    free = instant(["DEL", key], ["HSET", key, "st", "F", "fence", 1, "exp", at + 9_000_000])
    kept = instant(["DEL", key], ["HSET", key, "st", "D", "fence", 1, "exp", at + 9_000_000])
    assert read(tmp_path, claim("c1", at), claim("c1", at + 1), free, claim("c2", at + 2)).claims == []
    (stolen,) = read(tmp_path, claim("c1", at), claim("c2", at + 1)).claims
    assert stolen == Claimed(key, "c2", at + 1, "R", "c1", at + 5_000_000)
    (again,) = read(tmp_path, claim("c1", at), kept, claim("c2", at + 1)).claims
    assert (again.before, again.until_us) == ("D", at + 9_000_000)


def test_a_run_that_ends_another_runs_key_is_seen(tmp_path: Path) -> None:
    """Storing, freeing or marking with an older fence, or over what is kept; a renewal is nothing."""
    key = f"{P}:idem:acme:00"

    def end(state: str, fence: int) -> bytes:
        return instant(["DEL", key], ["HSET", key, "st", state, "fence", fence, "exp", 1])

    def run(fence: int) -> bytes:
        return resp("HSET", key, "st", "R", "fence", fence, "call", f"c{fence}", "lease", 1, "exp", 1)

    assert read(tmp_path, run(1), run(1), run(2), run(2), end("D", 2)).overwritten == []
    for late in (end("D", 1), end("F", 1), end("N", 1)):
        (found,) = read(tmp_path, run(1), run(2), late).overwritten
        assert (found.fence, found.before) == (1, 2)
    assert len(read(tmp_path, run(2), end("D", 2), end("D", 2)).overwritten) == 1


def test_what_was_thrown_away_is_known(tmp_path: Path) -> None:
    """FLUSHALL is a loss: from then on the sums begin with what SQL says."""
    before = [resp(*LIFE), instant(*admit("c1")), instant(*settle("c1", 7)), resp("FLUSHALL")]
    late = instant(*settle("c2", 5, hold=0))
    opened = instant(*(["HINCRBY", key, "spent", 3] for key in SUMS), ["SET", f"{P}:seeded", "run-2"])
    log = read(tmp_path, *before, late, opened, instant(*admit("c3")), instant(*settle("c3", 2)))
    assert log.losses == [1_795_600_000.000001]
    assert log.drifts == []
    assert log.counters["acme", "2026-11-23"] == (10, 0)


def test_an_unfinished_command_at_the_end_is_left_out(tmp_path: Path) -> None:
    """A Redis that was killed may have left half of one; Redis drops it as well."""
    whole = instant(*admit("c1"))
    for size in range(0, len(whole), 11):
        assert read(tmp_path, whole[:size]).admissions == {}
