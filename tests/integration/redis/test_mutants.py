"""
Would the tests notice a script that decides differently?

Each mutant is one planted bug (`make mutants`). It is run through the traces of `test_differential`, and at least one
must differ from the policy, or leave a key without an end. `test_breaker_mutants` does the same for breakers.
"""

import asyncio
from collections.abc import Callable
from hashlib import sha1
from typing import Any

import pytest

from perpetuo.adapters.redis import leases, ledger
from perpetuo.adapters.redis.scripts import Script
from perpetuo.domain.model.admission import LEASE_US, Keep
from tests.contract.ledger_world import DAY, MINUTE, SECOND, answer, at_once, claim, day, month, rate
from tests.integration.redis import test_differential as traces
from tests.mutants import CAUGHT_BY, PLANTED
from tests.servers import RedisServer

pytestmark = pytest.mark.slow

ALL = {
    "admit": (ledger, "ADMIT"),
    "settle": (ledger, "SETTLE"),
    "extend": (ledger, "EXTEND"),
    "cancel": (ledger, "CANCEL"),
    "usage": (ledger, "USAGE"),
    "adjust": (ledger, "ADJUST"),
    "renew": (leases, "RENEW"),
    "restore": (leases, "RESTORE"),
    "expired": (leases, "EXPIRED"),
    "reap": (leases, "REAP"),
}
ALIVE = ("keep_alive", LEASE_US)
LATE = ("settle", 0, 70)
FREE = ("settle", 0, 10, Keep.FREE, None)
OTHER = claim(fingerprint="x")
STORE = ("settle", 0, 10, Keep.STORE, answer(b"x" * 15))


def admit(*limits: Any, hold: int = 0, claim: Any = None, lower: bool = False) -> tuple[Any, ...]:
    return ("admit", limits, hold, lower, claim)


HISTORIES: dict[str, list[Any]] = {
    "to the end of a minute": [
        admit(rate(2)), ("advance", SECOND), admit(rate(2)), admit(rate(2)), ("advance", MINUTE - SECOND),
        admit(rate(2)),
    ],
    "the clock goes back": [
        admit(rate(2)), ("advance", -5 * SECOND), admit(rate(2)), ("advance", MINUTE), admit(rate(2)),
    ],
    "two rates": [admit(rate(1), rate(1, traces.BATCH)), admit(rate(1), rate(1, traces.BATCH))],
    "slots given back": [
        admit(rate(3)), admit(rate(3)), ("cancel", 1, True), ("cancel", 1, True), admit(rate(3)), admit(rate(3)),
    ],
    "one at once": [
        admit(at_once(1)), ("advance", LEASE_US - 1), admit(at_once(1)), ("advance", 1), admit(at_once(1)),
    ],
    "a budget filled": [
        admit(day(100), hold=60), admit(day(100), hold=40), admit(day(100), hold=1), FREE, admit(day(100), hold=30),
    ],
    "a hold grows": [
        admit(day(100), hold=60), ("extend", 0, 40), ("extend", 0, 40), ("extend", 0, 41), ("again", 0), FREE, FREE,
    ],
    "over midnight": [
        admit(day(100), hold=60), ("advance", MINUTE), admit(day(100), hold=60), ("cancel", 1, True), ("settle", 0, 9),
    ],
    "a key in use and kept": [
        admit(claim=claim()), admit(claim=claim()), FREE, admit(claim=OTHER), STORE, admit(claim=claim()),
    ],
    "a key set free": [admit(claim=claim()), FREE],
    "a key of a cancelled call": [
        admit(claim=claim()), ("cancel", 0, False), ("again", 0), admit(claim=claim()), ("again", 0),
    ],
    "a key refused for rate": [admit(rate(1)), admit(rate(1), claim=claim()), admit(rate(2), claim=claim())],
    "a key refused for money": [
        admit(day(100), hold=60), admit(day(100), hold=60, claim=claim()), admit(day(100), hold=40, claim=claim()),
    ],
    "a key's lease ends": [ALIVE, admit(claim=claim()), ALIVE, admit(claim=claim()), ("settle", 1, 5)],
    "a key after a pause": [
        ("keep_alive", MINUTE), admit(claim=claim()), ("advance", 2 * LEASE_US), ("renew", []), admit(claim=claim()),
    ],
    "reaping after a pause": [("keep_alive", MINUTE), admit(claim=claim()), ("advance", 2 * LEASE_US), ("reap",)],
    "reaped": [ALIVE, admit(month(150), hold=60), ALIVE, ("reap",)],
    "reaped and cancelled": [ALIVE, admit(month(150), hold=60), ALIVE, ("reap",), ("cancel", 0, False)],
    "renewed, reaped, settled late": [
        ALIVE, admit(day(100), hold=60), ("advance", 2 * SECOND), ("renew", [0]), ALIVE, ("reap",), LATE, LATE,
    ],
    "settled after a loss": [admit(day(100), hold=60), ("lose", 1), LATE, ("advance", MINUTE), LATE, ("advance", DAY)],
    "settled after a loss, without SQL": [admit(day(100), hold=60), ("lose", 0), LATE],
    "LATE_SETTLEMENT": traces.LATE_SETTLEMENT,
    "LOST_AND_PUT_BACK": traces.LOST_AND_PUT_BACK,
    "OVER_MIDNIGHT": traces.OVER_MIDNIGHT,
    "SHARE": traces.SHARE,
    "RENEWED_WITH_THE_CLOCK_BACK": traces.RENEWED_WITH_THE_CLOCK_BACK,
    "KEY_TAKEN_AFTER_A_LOSS": traces.KEY_TAKEN_AFTER_A_LOSS,
    "RENEWED_AFTER_ITS_TOMBSTONE": traces.RENEWED_AFTER_ITS_TOMBSTONE,
    "USAGE_WITH_THE_CLOCK_BACK": traces.USAGE_WITH_THE_CLOCK_BACK,
    "ADJUSTED": traces.ADJUSTED,
    "REPLAYS_AND_THEIR_END": traces.REPLAYS_AND_THEIR_END,
}  # fmt: skip


def complete(step: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*step, Keep.FREE, None) if step[0] == "settle" and len(step) == 3 else step


KEEP_THE_CLAIM = (
    "if idem then claim(idem, id, ARGV[ai + 1], text(fence), tonumber(ARGV[ai + 3]), tonumber(ARGV[ai + 2]), now) end"
)
MUTANTS = {
    "≥ for > in rate": (
        "admit",
        "if edge and at - edge < window",
        "if edge and at - edge <= window",
        "return edge + window - now",
        "return edge + window - now + 1",
    ),
    "rate: the log goes back with the clock": ("admit", "if t and t > at then at = t end", ""),
    "rate: the last of equals is named": ("admit", "if wait > longest then", "if wait >= longest and wait > 0 then"),
    "rate: every slot of the instant given back": ("cancel", "KEYS[kr + i], 1, at", "KEYS[kr + i], 0, at"),
    "concurrency: an ended lease counts": ("admit", "'(' .. text(now), '+inf'", "text(now), '+inf'"),
    "concurrency: the settled stay": ("settle", "for i = 1, nc do call('ZREM', KEYS[4 + i], id) end", ""),
    "budget: what is held is ignored": ("admit", "limit - spent - tonumber(w[2] or '0')", "limit - spent"),
    "budget: a full hold refused": ("admit", "if left < hold_min", "if left <= hold_min"),
    "wrong day": (
        "admit",
        "if at >= tonumber(ARGV[a + 1]) then key",
        "if at > tonumber(ARGV[a + 1]) then key",
    ),
    "wrong day: in the row": ("admit", "event = other_day(event, ARGV[15])", ""),
    "hold not released": ("settle", "held = minus(amount)", "held = '0'"),
    "double settle: a late one on top": (
        "settle",
        "text(tonumber(charge) - tonumber(amount)), 2",
        "charge, 2",
    ),
    "double settle": ("settle", "if state == 'T' then", "if false then"),
    "budget: a lost call never charged": ("settle", "elseif ARGV[6] == life then", "elseif true then"),
    "double settle: after its tombstone": ("settle", "elseif ARGV[6] == life then", "elseif false then"),
    "budget: extending twice": ("extend", "whole - tonumber(amount)", "whole"),
    "budget: a full extension refused": ("extend", "< more then", "<= more then"),
    "budget: reaped for free": ("reap", "amount, minus(amount)", "'0', minus(amount)"),
    "budget: a reaped call's cancel is ignored": ("cancel", "if state == 'R' then spent, held = held, '0' end", ""),
    "tombstone ignored": ("admit", "if state then return {'cancelled'} end", ""),
    "tombstone ignored: none is left by a cancel": ("cancel", "bury(KEYS[2], TOMBSTONE, now, 0, 1)", ""),
    "call: a repeated admission counts": ("admit", "if state == 'H' then return", "if state == 'X' then return"),
    "call: short memory after a loss": ("settle", "if admitted_in == life then", "if true then"),
    "call: put back after its tombstone": (
        "renew restore",
        "elseif not state and ARGV[a + 2] ~= life",
        "elseif not state",
        " or ARGV[5] == life then",
        " then",
    ),
    "replays: never counted": ("admit", "enter(replays, newest, limit, window, at)", ""),
    "replays: a refusal counts": (
        "admit",
        "      if wait > 0 then return {'replays', text(wait)} end\n      enter(replays, newest, limit, window, at)",
        "      enter(replays, newest, limit, window, at)\n      if wait > 0 then return {'replays', text(wait)} end",
    ),
    "replays: the log goes back with the clock": ("admit", "local at = math.max(now, newest or now)", "local at = now"),
    "key: another request replays": ("admit", "elseif c[2] ~= ARGV[ai + 1] then", "elseif false then"),
    "key: fence lost": ("admit", "fence = c[3] + 1\n  elseif c[2]", "fence = 1\n  elseif c[2]"),
    "key: claimed again though the store was away": ("admit", " or not trusted(stamp, quiet, now) then", " then"),
    "no fence check": ("settle", "if not ours(idem, id, fence, now) then return 0 end", ""),
    "key: kept at a cancel": ("cancel", "free(idem, fence, now)", ""),
    "key: stolen back after a loss": ("restore", "if not expires or now >= tonumber(expires) then", "if true then"),
    "key: the tenant's share ignored": ("settle", "fits = total <= tonumber(ARGV[a + 7])", "fits = true"),
    "key: the share never free again": ("settle", "total = total - tonumber", "total = total - 0 * tonumber"),
    "pulse: leases always trusted": (
        "expired reap",
        "return stamp and now - stamp <= GAP and now >= quiet",
        "return true",
    ),
    "pulse: a gap unnoticed": ("renew", "if not stamp or now - stamp > GAP then", "if not stamp then"),
    "pulse: never stamped": ("renew", "beat(KEYS[1], life, stamp, quiet, now)", ""),
    "lease: renewed to an earlier end": (
        "renew",
        "math.max(now + lease, tonumber(call('ZSCORE', holds, id) or '0'))",
        "now + lease",
    ),
    "claim kept at a refusal: for rate": (
        "admit",
        "if which > 0 then return",
        f"if which > 0 then {KEEP_THE_CLAIM} return",
    ),
    "claim kept at a refusal: for money": (
        "admit",
        "return {'budget', i, w[1]",
        f"{KEEP_THE_CLAIM} return {{'budget', i, w[1]",
    ),
    "missing TTL: a rate's log": ("admit", "call('PEXPIRE', log, ms(2 * window + at - now))", ""),
    "missing TTL: a budget's window": (
        "admit",
        "call('PEXPIRE', windows[i], ms(math.max(ends - now, 0) + WINDOW_KEPT))",
        "",
    ),
    "missing TTL: a window made by a settlement": (
        "settle",
        "for i = 1, nb do outlive(KEYS[kb + i], tonumber(ARGV[8 + i]), now) end",
        "",
    ),
    "missing TTL: a key in use": ("admit", "call('PEXPIRE', key, ms(expires - now))", ""),
    "missing TTL: a free key": ("settle", "call('PEXPIRE', key, ms(TOMBSTONE))", ""),
    "missing TTL: a kept answer": ("settle", "call('PEXPIRE', idem, ms(ttl))\n  call('ZADD'", "call('ZADD'"),
    "missing TTL: a key done but not kept": ("settle", "call('PEXPIRE', idem, ms(ttl))\n    return 0", "return 0"),
    "missing TTL: the account of answers": (
        "settle",
        "if call('PTTL', key) < ttl / 1000 then call('PEXPIRE', key, ms(ttl)) end",
        "",
    ),
    "missing TTL: a tombstone": ("settle", ", 'PX', ms(span))", ")"),
    "missing TTL: a reaped call": ("reap", ", 'PX', ms(DAY))", ")"),
    "adjusted twice": ("adjust", "bury(KEYS[1], DAY, now, 0, 1)", ""),
    "adjusted below zero": ("adjust", "sum < 0 or ", ""),
    "adjusted: the last nano refused": ("adjust", "sum < 0", "sum <= 0"),
    "adjusted while the counters are lost": ("adjust", "if found[3] ~= life then return {'unseeded'} end", ""),
    "adjusted without an event": ("adjust", "call('XADD', KEYS[4], '*', 'e', ARGV[4], 'r', 1)", ""),
    "adjusted: a window made after its end": (
        "adjust",
        " and call('EXISTS', KEYS[4 + i]) == 1",
        "",
    ),
    "adjusted: a window over and forgotten": ("adjust", "now < ends + WINDOW_KEPT and ", ""),
    "missing TTL: an adjusted window": (
        "adjust",
        "for _, i in ipairs(counted) do outlive(KEYS[4 + i], tonumber(ARGV[5 + i]), now) end",
        "",
    ),
    "usage: counted from a clock that went back": ("usage", "> at - window then low", "> now - window then low"),
}


def mutated(script: Script, changes: tuple[str, ...]) -> Script:
    text = script.body.decode()
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        assert text.count(old) <= 1, f"{old!r} is in {script.name} more than once"
        text = text.replace(old, new)
    return Script(script.name, text.encode(), sha1(text.encode(), usedforsecurity=False).hexdigest().encode())


def first_difference(url: str) -> str | None:
    """The first history in which Redis and the policy differ, or a key has no end."""
    with asyncio.Runner() as runner:
        for name, history in HISTORIES.items():
            try:
                runner.run(traces.play(url, [complete(step) for step in history]))
            except AssertionError:
                return name
    return None


def test_the_scripts_as_they_are_differ_nowhere(redis_server: RedisServer) -> None:
    """The traces are valid histories: without a planted bug nothing differs."""
    assert first_difference(redis_server.url) is None


@pytest.mark.parametrize("bug", MUTANTS)
def test_a_planted_bug_is_caught(
    bug: str,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    """One wrong comparison, or one forgotten step, makes some history differ from the policy."""
    names, *changes = MUTANTS[bug]
    for name in names.split():
        module, attribute = ALL[name]
        script = getattr(module, attribute)
        changed = mutated(script, tuple(changes))
        assert changed.sha != script.sha, "the place to change is gone"
        monkeypatch.setattr(module, attribute, changed)
    record_property(PLANTED, f"{names.replace(' ', '.lua, ')}.lua: {bug}")
    found = first_difference(redis_server.url)
    record_property(CAUGHT_BY, found)
    assert found is not None, bug
