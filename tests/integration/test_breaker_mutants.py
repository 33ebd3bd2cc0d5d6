"""
Would the tests notice a breaker's script that decides differently?

Each mutant is one planted bug (`make mutants`), run through histories of `ScriptAgainstPolicy`: at least one must
differ from the policy.
"""

from collections.abc import Callable
from typing import Any

import pytest
import redis as redis_py

from perpetuo.domain.model.upstream import Fault
from perpetuo.domain.policy.breaker import Verdict
from tests.integration.redis.test_mutants import MUTANTS as OF_THE_LEDGER
from tests.integration.test_redis_breakers import RULES, ScriptAgainstPolicy
from tests.mutants import CAUGHT_BY, PLANTED, missing
from tests.servers import RedisServer

DOWN, RESET = Fault.CONNECT, Fault.RESET


def results(*faults: Fault | None, stale: bool = False) -> tuple[str, dict[str, Any]]:
    return "results", {"faults": list(faults), "stale": stale}


def after(us: int) -> tuple[str, dict[str, Any]]:
    return "time_passes", {"us": us}


def asks(call: str) -> tuple[str, dict[str, Any]]:
    return "asks_to_probe", {"call": call}


def verdict(call: str, found: Verdict, *, stale: bool = False) -> tuple[str, dict[str, Any]]:
    return "verdict", {"call": call, "found": found, "stale": stale}


def force(open_for: int | None) -> tuple[str, dict[str, Any]]:
    return "operator_forces", {"open_for": open_for}


LOOK: tuple[str, dict[str, Any]] = ("look", {})
DELETED: tuple[str, dict[str, Any]] = ("operator_deletes_the_key", {})
BY_HAND: tuple[str, dict[str, Any]] = ("operator_sets_the_key", {"value": "1", "as_list": False})
OPENED = (results(DOWN, DOWN, DOWN), after(RULES.open_us))
HISTORIES = {
    "connect failures in a row": [results(DOWN, DOWN), results(None), results(DOWN, DOWN), results(DOWN), LOOK],
    "half of six": [results(None, RESET), results(None, None, RESET), results(RESET), LOOK],
    "less than half of six": [results(None, None, None, None), results(RESET, RESET), LOOK],
    "not enough calls": [results(RESET, RESET), results(RESET, RESET), LOOK],
    "a window ago": [results(RESET, RESET), after(RULES.window_us + 1_000_000), results(*[RESET] * 5), LOOK],
    "late results": [force(None), results(DOWN, DOWN, DOWN, stale=True), results(DOWN, DOWN), LOOK],
    "one probe at a time": [
        *OPENED, asks("a"), asks("b"), asks("a"), after(RULES.probe_lease_us), asks("b"), asks("a"),
    ],
    "a dead prober": [*OPENED, asks("a"), after(RULES.probe_lease_us - 1), asks("b"), after(1), asks("b")],
    "a verdict of the one that lost the probe": [
        *OPENED, asks("a"), after(RULES.probe_lease_us), asks("b"), verdict("a", Verdict.FAILED), LOOK,
        verdict("a", Verdict.ALIVE), LOOK,
    ],
    "a failed probe": [*OPENED, asks("a"), verdict("a", Verdict.FAILED), LOOK, after(RULES.open_us), asks("b")],
    "a probe whose client left": [*OPENED, asks("a"), verdict("a", Verdict.SILENT), asks("b")],
    "a late verdict": [*OPENED, asks("a"), verdict("a", Verdict.ALIVE, stale=True), LOOK],
    "closed again": [*OPENED, asks("a"), verdict("a", Verdict.ALIVE), results(DOWN, DOWN), LOOK],
    "the key deleted": [results(DOWN, DOWN, DOWN), DELETED, LOOK, results(DOWN, DOWN), LOOK],
    "the key set by hand": [BY_HAND, LOOK, after(RULES.open_us), LOOK, asks("a"), DELETED, LOOK],
}  # fmt: skip
MUTANTS = {
    "probe lease unchecked": ("or now >= tonumber(s.lease)", "or true"),
    "probe lease unchecked: it never ends": ("or now >= tonumber(s.lease)", "or false"),
    "probe lease unchecked: the verdict of one that lost it": ("s.probe == ARGV[3] and ARGV[5] ==", "ARGV[5] =="),
    "stale generation counted": ("and generation == tonumber(ARGV[3]) and", "and"),
    "stale generation counted: a verdict": (
        "'half_open' and generation == tonumber(ARGV[4]) then",
        "'half_open' then",
    ),
    "missing TTL: the key": (", 'PXAT', text(math.ceil(ends / 1000)))", ")"),
    "missing TTL: the state": ("redis.call('PEXPIRE', KEYS[2],", "math.max(0,"),
    "no new generation at a change": ("generation = generation + 1", "generation = generation"),
    "a repeated delta counts twice": (" and first_time(ARGV[13]) then", " then"),
    "opens one connect failure late": ("streak >= tonumber", "streak > tonumber"),
    "opens one failure late": ("bad >= tonumber(ARGV[8])", "bad > tonumber(ARGV[8])"),
    "opens before there are enough calls": ("all >= tonumber(ARGV[9]) and", ""),
    "old outcomes count": ("at >= number - BUCKETS and at < number", "at < number"),
    "a success ends no streak": ("ARGV[6] == '1' and 0 or", ""),
    "an operator's deletion is no reset": ("(ends > 0 and now < ends) then", "false then"),
    "a key set by hand is none": ("    change('operator', 'open', 0)\n    s.by_hand = '1'", "    s.by_hand = ''"),
    "a probe whose client left keeps the lease": ("s.probe, s.lease, dirty = '', '0', true", ""),
    "closed, and the key still there": ("redis.call('DEL', KEYS[1])", ""),
}


def first_difference(client: "redis_py.Redis", body: bytes) -> str | None:
    """The first history in which the script and the policy differ."""
    for name, history in HISTORIES.items():
        machine = type("Machine", (ScriptAgainstPolicy,), {"client": client, "body": body})()
        machine.begin()
        try:
            for step, arguments in history:
                getattr(machine, step)(**arguments)
        except AssertionError:
            return name
    return None


@pytest.mark.slow
def test_the_script_as_it_is_differs_nowhere(redis_server: RedisServer) -> None:
    """Without a planted bug the histories agree."""
    with redis_py.Redis.from_url(redis_server.url) as client:
        assert first_difference(client, ScriptAgainstPolicy.body) is None


@pytest.mark.slow
@pytest.mark.parametrize("bug", MUTANTS)
def test_a_planted_bug_is_caught(
    bug: str, redis_server: RedisServer, record_property: Callable[[str, object], None]
) -> None:
    """One wrong comparison, or one forgotten step, makes some history differ from the policy."""
    right, wrong = MUTANTS[bug]
    text = ScriptAgainstPolicy.body.decode()
    assert text.count(right) == 1, "the place to change is gone, or not the only one"
    record_property(PLANTED, f"breaker.lua: {bug}")
    with redis_py.Redis.from_url(redis_server.url) as client:
        found = first_difference(client, text.replace(right, wrong).encode())
    record_property(CAUGHT_BY, found)
    assert found is not None, bug


def test_each_of_the_ten_is_planted_in_a_script() -> None:
    """By name; none is forgotten when a table changes."""
    assert missing([*OF_THE_LEDGER, *MUTANTS]) == []
