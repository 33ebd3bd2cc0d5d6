"""
Which calls are still alive, and what becomes of the others?

Renewing goes in bulk: the calls of one shard in one script, all shards in one write, stamping each shard on the way.
What a shard has lost is put back call by call. Reaping looks at each shard for leases that have ended, then settles
those calls one by one: only their records say which keys they touch.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import attrs
import msgspec

from perpetuo.adapters.redis import codec, keys
from perpetuo.adapters.redis.each import Each
from perpetuo.adapters.redis.plans import PlansInUse, Scopes
from perpetuo.adapters.redis.resp import Blocks
from perpetuo.adapters.redis.scripts import Script, load
from perpetuo.adapters.redis.store import FailedError
from perpetuo.domain.model.admission import Abandoned, Hold
from perpetuo.domain.model.events import Event
from perpetuo.domain.model.money import Nano

RENEW, RESTORE = load("renew", "common"), load("restore", "common")
EXPIRED, REAP, RECORD = load("expired", "common"), load("reap", "common"), load("record")
CALLS_A_SCRIPT = 64
"""Keeps a renewal short (0.2 ms), so that it holds nobody up."""
MOST_REAPED = 200
"""A sweep takes so many from a shard; the next one goes on."""
REAPED, LOST = 1, 2

SHARDS = [keys.shard_prefix(shard) for shard in range(keys.SHARDS)]

Run = Callable[[Script, Sequence[Any], Sequence[Any]], Awaitable[Any]]
RunEach = Callable[[Script, Each], Awaitable[list[Any]]]
_decode_scopes = msgspec.json.Decoder(Scopes).decode


@attrs.frozen
class Record:
    """A call in flight as Redis has it (see ``common.lua``)."""

    amount: Nano
    at_us: int
    scopes: Scopes
    row: bytes

    @classmethod
    def parse(cls, raw: bytes) -> "Record | None":
        """``None``: the call is over."""
        if not raw.startswith(b"H "):
            return None
        head, _, scopes, row = raw.split(b"\n", 3)
        _, _, amount, _, at, _ = head.split()
        return cls(Nano(int(amount)), int(at), _decode_scopes(scopes), row)


class Leases:
    """Renewing and reaping, for `RedisLedger`. ``run`` and ``run_each`` put time and run id in front of arguments."""

    def __init__(self, run: Run, run_each: RunEach, plans: PlansInUse) -> None:
        self._run = run
        self._run_each = run_each
        self._plans = plans
        self._stuck: dict[str, str] = {}
        """Calls that could not be reaped, and why."""

    def problem(self) -> str | None:
        """In an operator's words; ``None``: nothing."""
        for call, why in self._stuck.items():
            return f"{len(self._stuck)} calls of dead workers can't be settled; the first is {call}: {why}"
        return None

    # --- renew -----------------------------------------------------------------------------------

    async def renew(self, holds: Sequence[Hold]) -> frozenset[str]:
        shards: dict[int, list[Hold]] = defaultdict(list)
        for hold in holds:
            shards[keys.shard_of(hold.tenant)].append(hold)
        pieces = [(shard, piece) for shard in range(keys.SHARDS) for piece in _pieces(shards[shard])]
        answers = await self._run_each(RENEW, [self._renewal(shard, piece) for shard, piece in pieces])
        asked = [hold for _, piece in pieces for hold in piece]
        states = list(zip(asked, [state for states in answers for state in states[1:]], strict=True))
        await asyncio.gather(*(self._restore(hold) for hold, state in states if state == LOST))
        return frozenset(hold.call for hold, state in states if state == REAPED)

    def _renewal(self, shard: int, holds: Sequence[Hold]) -> tuple[Blocks, Blocks]:
        """Keys and arguments of the script."""
        p = keys.shard_prefix(shard)
        names: list[str | bytes] = [keys.life(p), keys.seeded(p), keys.holds(p)]
        arguments: list[Any] = []
        for hold in holds:
            plan = self._plans.of_hold(hold)
            names += [keys.call(p, hold.call), *plan.in_flight]
            arguments += [hold.call, hold.lease_us, hold.epoch, len(plan.in_flight)]
            if hold.claim is None:
                arguments.append(0)
            else:
                names.append(keys.idempotency(p, hold.tenant, hold.claim.key))
                arguments += [1, hold.claim.lease_us, hold.claim.ttl_us, hold.fence]
        return [names], [arguments]

    async def _restore(self, hold: Hold) -> None:
        plan = self._plans.of_hold(hold)
        p = plan.prefix
        scopes = Scopes(hold.tenant, hold.concurrency, tuple((b.scope, b.window, b.window, 0) for b in hold.budgets))
        names = [plan.holds, keys.call(p, hold.call), plan.life, *plan.in_flight, *plan.budgets]
        arguments: list[Any] = [hold.call, hold.amount, hold.epoch, hold.at_us, hold.fence, codec.line_of(hold)]
        arguments += [msgspec.json.encode(scopes), codec.encode_event(hold.abandoned), hold.lease_us]
        arguments += [len(plan.in_flight), len(plan.budgets), *[b.resets_at_us for b in hold.budgets]]
        if hold.claim is not None:
            names.append(keys.idempotency(p, hold.tenant, hold.claim.key))
            arguments += [hold.claim.fingerprint, hold.claim.ttl_us, hold.claim.lease_us]
        await self._run(RESTORE, names, arguments)

    # --- reap ------------------------------------------------------------------------------------

    async def reap(self) -> Sequence[Abandoned]:
        self._stuck = {}
        ended = await self._run_each(EXPIRED, [([[keys.life(p), keys.holds(p)]], [[MOST_REAPED]]) for p in SHARDS])
        swept = await asyncio.gather(*(self._sweep(p, calls) for p, calls in zip(SHARDS, ended, strict=True) if calls))
        return [abandoned for shard in swept for abandoned in shard]

    async def _sweep(self, p: str, ended: Sequence[bytes]) -> list[Abandoned]:
        reaped = [await self._reap_if_possible(p, call.decode()) for call in ended]
        return [abandoned for abandoned in reaped if abandoned is not None]

    async def _reap_if_possible(self, p: str, call: str) -> Abandoned | None:
        """One whose counters were tampered with must not keep the others waiting; it is tried again."""
        try:
            return await self._reap(p, call)
        except FailedError as error:
            self._stuck[call] = str(error)
            return None

    async def _reap(self, p: str, call: str) -> Abandoned | None:
        record = await self._record(p, call)
        budgets = record.scopes.budget_keys(p, record.at_us) if record else []
        in_flight = [keys.in_flight(p, scope) for scope in record.scopes.concurrency] if record else []
        names = [keys.holds(p), keys.call(p, call), keys.life(p), keys.events(p), *in_flight, *budgets]
        charge = await self._run(REAP, names, [call, len(in_flight), len(budgets)])
        if record is None or charge is None:
            return None
        return Abandoned(call, record.scopes.tenant, Nano(int(charge)))

    # --- reading ---------------------------------------------------------------------------------

    async def _record(self, p: str, call: str) -> Record | None:
        raw = await self._run(RECORD, [keys.call(p, call)], [])
        return Record.parse(raw) if raw else None

    async def row_if_abandoned(self, tenant: str, call: str) -> Event | None:
        record = await self._record(keys.prefix_of(tenant), call)
        if record is None or record.scopes.tenant != tenant:
            return None
        row = codec.decode_event(record.row)
        return attrs.evolve(row, hold_nano_usd=record.amount, cost_nano_usd=record.amount)


def _pieces(holds: Sequence[Hold]) -> Iterable[Sequence[Hold]]:
    """At least one piece, so that every shard is stamped."""
    return [holds[i : i + CALLS_A_SCRIPT] for i in range(0, len(holds), CALLS_A_SCRIPT)] or [()]
