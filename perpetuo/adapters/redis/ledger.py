"""
How is one atomic step of the ledger done in Redis?

Write the step down, run its script, read the answer: one round trip. There are no decisions in here; the scripts make
them, and they follow `perpetuo.domain.policy.admission` to the letter (the tests drive both with the same histories).

Every step is safe to repeat by call id, and `RedisStore` does so once when a reply was lost.
"""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import attrs

from perpetuo.adapters.redis import codec, keys
from perpetuo.adapters.redis.each import Each, run_each_in_life
from perpetuo.adapters.redis.leases import Leases
from perpetuo.adapters.redis.plans import HoldPlan, PlansInUse, plan_unknown
from perpetuo.adapters.redis.resp import Blocks
from perpetuo.adapters.redis.room import ADMISSION_BELOW, ANSWERS_BELOW, Room
from perpetuo.adapters.redis.scripts import Script, load
from perpetuo.adapters.redis.store import FullError, RedisStore, run, run_in_life
from perpetuo.adapters.redis.used import read_used
from perpetuo.domain.model.admission import (
    MINUTE_US,
    Abandoned,
    AdmitDecision,
    AdmitRefused,
    AdmitRequest,
    BudgetLimit,
    BudgetReading,
    ExtendDecision,
    Extended,
    Hold,
    Settled,
    Settlement,
)
from perpetuo.domain.model.budgets import AdjustDecision, Adjustment
from perpetuo.domain.model.events import Event
from perpetuo.domain.model.money import Nano
from perpetuo.domain.model.settings import IdempotencySettings
from perpetuo.domain.policy import adjustment as adjusting
from perpetuo.domain.policy import budget
from perpetuo.domain.policy.nearness import Used, Watched

ADMIT, SETTLE = load("admit", "common"), load("settle", "common")
ADJUST = load("adjust", "common")
EXTEND, CANCEL, USAGE = load("extend", "common"), load("cancel", "common"), load("usage", "common", "window")
ANY_TIME = 0
"""A boundary between two names of the same window."""


@attrs.frozen
class Usage:
    """`perpetuo.domain.ports.ScopeUsage`."""

    scope: str
    admitted_last_minute: int
    oldest_leaves_us: int
    in_flight: int


class RedisLedger:
    """
    `perpetuo.domain.ports.Ledger` in Redis.

    ``now_us`` is for tests; in production the scripts read Redis's own clock. ``room`` says how full Redis was
    when it was last looked at.
    """

    def __init__(
        self,
        store: RedisStore,
        *,
        room: Callable[[], Room] = Room,
        problem: Callable[[], str | None] = lambda: None,
        now_us: Callable[[], int] | None = None,
    ) -> None:
        self.store = store
        self._room = room
        self._problem = problem
        self._now_us = now_us
        self._plans = PlansInUse()
        self._leases = Leases(self._run, self._run_each, self._plans)

    # --- atomic steps ----------------------------------------------------------------------------

    async def admit(self, request: AdmitRequest) -> AdmitDecision:
        plan = self._plans.of_request(request)
        claim = request.claim
        names: list[Any] = [plan.head, (keys.call(plan.prefix, request.call),), plan.keys]
        room = b"1" if self._room().below(ADMISSION_BELOW) else b"0"
        row = codec.row_if_abandoned(request, plan)
        hold = budget.as_held(request.hold, request.budgets)
        own = (request.call, hold, request.hold_min, request.lease_us, room, plan.limited, codec.encode_event(row))
        arguments: list[Any] = [own, plan.arguments]
        if claim is not None:
            names.append((keys.idempotency(plan.prefix, request.tenant, claim.key), *plan.replay_key))
            arguments.append((*codec.claim_arguments(claim), *plan.replay_arguments))
        try:
            reply = await self._run_blocks(ADMIT, names, arguments)
        except FullError:
            return AdmitRefused.NO_ROOM
        return codec.admit_decision(reply, request, plan, row)

    async def extend(self, hold: Hold, extra: Nano) -> ExtendDecision:
        plan = self._plans.of_hold(hold)
        names = [plan.holds, keys.call(plan.prefix, hold.call), plan.life, plan.seeded, *plan.in_flight, *plan.budgets]
        whole = budget.as_held(Nano(hold.amount + extra), hold.budgets)
        arguments: list[Any] = [hold.call, whole, hold.epoch, hold.lease_us]
        arguments += [len(plan.in_flight), len(plan.budgets)]
        arguments += ["" if read.limit is None else read.limit for read in hold.budgets]
        if hold.claim is not None:
            names.append(keys.idempotency(plan.prefix, hold.tenant, hold.claim.key))
            arguments += [hold.claim.lease_us, hold.claim.ttl_us, hold.fence]
        reply = await self._run(EXTEND, names, arguments)
        return Extended(Nano(int(reply))) if isinstance(reply, bytes) else codec.refused_growth(reply, hold)

    async def settle(self, settlement: Settlement, keeping: IdempotencySettings) -> Settled:
        budget.check_charge(settlement.charge)
        hold = settlement.hold
        plan = self._plans.of_hold(hold)
        names: list[Any] = [(plan.holds, keys.call(plan.prefix, hold.call)), plan.settled]
        own = (hold.call, settlement.charge, codec.encode_event(settlement.event), hold.epoch)
        arguments: list[Any] = [own, plan.resets]
        if hold.claim is not None:
            names.append(
                (
                    keys.idempotency(plan.prefix, hold.tenant, hold.claim.key),
                    keys.answers(plan.prefix, hold.tenant),
                    keys.kept(plan.prefix, hold.tenant),
                )
            )
            arguments.append(codec.keep_arguments(settlement, keeping, self.accepts_answers()))
        return codec.settled(await self._run_blocks(SETTLE, names, arguments), hold)

    async def cancel(self, hold_or_request: Hold | AdmitRequest) -> None:
        call, claim = hold_or_request.call, hold_or_request.claim
        plan, pairs, boundaries = self._windows(hold_or_request)
        names = [plan.holds, keys.call(plan.prefix, call), plan.life, plan.events, *plan.in_flight, *plan.rates, *pairs]
        if claim is not None:
            names.append(keys.idempotency(plan.prefix, hold_or_request.tenant, claim.key))
        arguments = [call, len(plan.in_flight), len(plan.rates), len(boundaries), *boundaries]
        await self._run(CANCEL, names, arguments)

    def _windows(self, asked: Hold | AdmitRequest) -> tuple[HoldPlan, Sequence[bytes], Sequence[int]]:
        """Keys of a call's windows in pairs, and the boundary between each pair."""
        if isinstance(asked, Hold):
            plan = self._plans.of_hold(asked)
            return plan, [key for key in plan.budgets for _ in range(2)], [ANY_TIME] * len(plan.budgets)
        plan = plan_unknown(asked)
        return plan, plan.budgets, [b.boundary_us for b in asked.budgets]

    async def renew(self, holds: Sequence[Hold]) -> frozenset[str]:
        return await self._leases.renew(holds)

    async def reap(self) -> Sequence[Abandoned]:
        return await self._leases.reap()

    async def adjust(self, adjustment: Adjustment) -> AdjustDecision:
        p = keys.prefix_of(adjustment.tenant)
        names = [keys.call(p, adjusting.call_of(adjustment)), keys.life(p), keys.seeded(p), keys.events(p)]
        names += [keys.budget(p, read.scope, read.window) for read in adjustment.windows]
        room = b"1" if self._room().below(ADMISSION_BELOW) else b"0"
        arguments = [adjustment.amount, codec.encode_event(adjustment.event), room]
        arguments += [read.resets_at_us for read in adjustment.windows]
        try:
            reply = await self._run(ADJUST, names, arguments)
        except FullError:
            return AdmitRefused.NO_ROOM
        return codec.adjust_decision(reply, adjustment)

    # --- reading ---------------------------------------------------------------------------------

    async def read_budgets(self, limits: Sequence[BudgetLimit], tenant: str) -> Sequence[BudgetReading]:
        names = _pairs(keys.prefix_of(tenant), limits)
        reply = await self._run_plain(USAGE, names, [0, len(limits), MINUTE_US, *[b.boundary_us for b in limits]])
        now, numbers = int(reply[0]), [int(n) for n in reply[1:]]
        return [codec.budget_reading(b, numbers[2 * i], numbers[2 * i + 1], now) for i, b in enumerate(limits)]

    async def read_usage(self, tenant: str, scopes: Sequence[str]) -> Sequence[Usage]:
        p = keys.prefix_of(tenant)
        names = [name for scope in scopes for name in (keys.rate(p, scope), keys.in_flight(p, scope))]
        reply = await self._run_plain(USAGE, names, [len(scopes), 0, MINUTE_US])
        numbers = [int(n) for n in reply[1:]]
        return [Usage(scope, *numbers[3 * i : 3 * i + 3]) for i, scope in enumerate(scopes)]

    async def read_used(self, watched: Sequence[Watched]) -> Sequence[Used]:
        now = self._now_us() if self._now_us else b""
        return await read_used(self.store, watched, now)

    async def in_flight(self, tenant: str, call: str) -> Event | None:
        return await self._leases.row_if_abandoned(tenant, call)

    def accepts_answers(self) -> bool:
        return self._room().below(ANSWERS_BELOW)

    def problem(self) -> str | None:
        return self.store.problem() or self._leases.problem() or self._problem()

    # --- running ---------------------------------------------------------------------------------

    def _run(self, script: Script, names: Sequence[Any], arguments: Sequence[Any]) -> Coroutine[Any, Any, Any]:
        return self._run_blocks(script, [names], [arguments])

    def _run_blocks(self, script: Script, names: Blocks, arguments: Blocks) -> Coroutine[Any, Any, Any]:
        """Run a script whose first two arguments are the time (empty: Redis's) and the run it is meant for."""
        return run_in_life(self.store, script, self._now_us() if self._now_us else b"", names, arguments)

    def _run_each(self, script: Script, each: Each) -> Coroutine[Any, Any, list[Any]]:
        return run_each_in_life(self.store, script, self._now_us() if self._now_us else b"", each)

    async def _run_plain(self, script: Script, names: Sequence[str], arguments: Sequence[Any]) -> Any:
        return await run(self.store, script, names, [self._now_us() if self._now_us else b"", *arguments])


def _pairs(prefix: str, limits: Sequence[BudgetLimit]) -> list[str]:
    return [keys.budget(prefix, b.scope, window) for b in limits for window in (b.current, b.following)]
