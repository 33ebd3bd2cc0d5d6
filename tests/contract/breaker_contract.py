"""
What must every breaker board do, whatever it is made of?

`BreakerContract` runs over each board: a test class inherits it and gives the fixture ``world``.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import attrs
import pytest

from perpetuo.domain.model.models import BreakerPolicy
from perpetuo.domain.model.upstream import Fault
from perpetuo.domain.policy.breaker import CHANGES_KEPT, BreakerChange, BreakerPhase, BreakerReading, Cause
from perpetuo.domain.ports import BreakerBoard

SECOND = 1_000_000
RULES = BreakerPolicy()
POLICIES = {"openai": RULES, "other": RULES}


class Board(BreakerBoard, Protocol):
    """What the admin page and a reload of the config need besides the port."""

    def configure(self, policies: dict[str, BreakerPolicy]) -> None: ...

    def all_views(self) -> Sequence[BreakerReading]: ...

    async def history(self, provider: str) -> Sequence[BreakerChange]: ...


@attrs.define
class Clock:
    """A clock that stands still until told otherwise; far enough ahead that no real key expires under it."""

    now_us: int = 4_000_000_000_000_000

    def __call__(self) -> int:
        return self.now_us


@attrs.define
class World:
    board: Board
    clock: Clock
    settled: Callable[[], Awaitable[None]]
    """Everything recorded has arrived and is seen."""
    changes: list[BreakerReading]

    def phase(self, provider: str = "openai") -> BreakerPhase:
        return self.board.view(provider).phase

    async def record(self, *faults: Fault | None, provider: str = "openai", generation: int | None = None) -> None:
        begun = self.board.view(provider).generation if generation is None else generation
        for fault in faults:
            self.board.record(provider, fault, generation=begun, probe=None)
        await self.settled()

    async def open(self) -> None:
        await self.record(*[Fault.CONNECT] * 5)
        assert self.phase() is BreakerPhase.OPEN

    async def half_open(self) -> None:
        await self.open()
        self.clock.now_us += RULES.open_us
        assert self.phase() is BreakerPhase.HALF_OPEN

    async def verdict(self, call: str, fault: Fault | None) -> None:
        self.board.record("openai", fault, generation=self.board.view("openai").generation, probe=call)
        await self.settled()


class OpeningContract:
    """C1, C5: what opens a breaker and what does not."""

    async def test_c1_opens_at_five_connect_failures_in_a_row(self, world: World) -> None:
        """Four do not; the view says until when."""
        await world.record(*[Fault.CONNECT] * 4)
        assert world.phase() is BreakerPhase.CLOSED
        await world.record(Fault.CONNECT)
        view = world.board.view("openai")
        assert (view.phase, view.until_us, view.generation) == (
            BreakerPhase.OPEN,
            world.clock.now_us + RULES.open_us,
            1,
        )

    async def test_c1_opens_at_half_of_twenty_outcomes(self, world: World) -> None:
        """Nine of nineteen do not, ten of twenty do."""
        await world.record(*[None] * 10, *[Fault.SERVER_ERROR] * 9)
        assert world.phase() is BreakerPhase.CLOSED
        await world.record(Fault.TIMEOUT)
        assert world.phase() is BreakerPhase.OPEN

    async def test_c1_old_outcomes_are_forgotten(self, world: World) -> None:
        """Nineteen failures more than a window ago weigh nothing."""
        await world.record(*[Fault.SERVER_ERROR] * 19)
        world.clock.now_us += RULES.window_us + SECOND
        await world.record(*[Fault.SERVER_ERROR] * 19)
        assert world.phase() is BreakerPhase.CLOSED

    async def test_c5_what_says_nothing_about_health_never_opens(self, world: World) -> None:
        """A hundred clients' errors, 429s, refused credentials and hung-up clients."""
        silent = [
            Fault.CLIENT_ERROR,
            Fault.CONTEXT_LENGTH,
            Fault.RATE_LIMITED,
            Fault.CREDENTIAL,
            Fault.ABORTED,
        ]
        await world.record(*silent * 20)
        assert world.phase() is BreakerPhase.CLOSED
        assert world.board.all_views()[0].outcomes == 0

    async def test_providers_do_not_affect_each_other(self, world: World) -> None:
        """One is open, the other is not; one nobody configured is closed."""
        await world.open()
        assert world.phase("other") is BreakerPhase.CLOSED
        assert world.phase("unknown") is BreakerPhase.CLOSED
        assert await world.board.try_probe("unknown", "x")
        world.board.record("unknown", Fault.CONNECT, generation=0, probe=None)

    async def test_results_begun_before_the_last_change_do_not_count(self, world: World) -> None:
        """Late failures of calls from before the outage."""
        await world.open()
        await world.board.force("openai", open_for_us=None)
        await world.record(*[Fault.CONNECT] * 50, generation=0)
        assert world.phase() is BreakerPhase.CLOSED
        await world.record(*[Fault.CONNECT] * 5)
        assert world.phase() is BreakerPhase.OPEN

    async def test_results_not_yet_shared_at_a_change_do_not_count_after_it(self, world: World) -> None:
        """Four failures on their way when an operator closes, and one after: no five in a row."""
        for _ in range(4):
            world.board.record("openai", Fault.CONNECT, generation=0, probe=None)
        await world.board.force("openai", open_for_us=None)
        await world.record(Fault.CONNECT)
        assert world.phase() is BreakerPhase.CLOSED


class ProbeContract:
    """C3: one probe, and what its verdict does."""

    async def test_c3_one_probe_at_a_time(self, world: World) -> None:
        """While open nobody, then one, after ten silent seconds the next."""
        await world.open()
        assert not await world.board.try_probe("openai", "early")
        world.clock.now_us += RULES.open_us
        assert [await world.board.try_probe("openai", f"c{n}") for n in range(5)] == [True, *[False] * 4]
        world.clock.now_us += RULES.probe_lease_us
        assert [await world.board.try_probe("openai", f"d{n}") for n in range(5)] == [True, *[False] * 4]

    @pytest.mark.parametrize(
        "alive",
        [None, Fault.CLIENT_ERROR, Fault.CONTEXT_LENGTH, Fault.RATE_LIMITED, Fault.CREDENTIAL],
    )
    async def test_c3_a_probe_that_was_answered_closes(self, world: World, alive: Fault | None) -> None:
        """Also with a refusal: the provider is alive. A new generation begins."""
        await world.half_open()
        assert await world.board.try_probe("openai", "x")
        await world.verdict("x", alive)
        assert world.phase() is BreakerPhase.CLOSED
        assert world.board.view("openai").generation == 2

    @pytest.mark.parametrize("dead", [Fault.SERVER_ERROR, Fault.TIMEOUT, Fault.RESET, Fault.PROTOCOL, Fault.CONNECT])
    async def test_c3_a_failed_probe_opens_again(self, world: World, dead: Fault) -> None:
        """For the full time."""
        await world.half_open()
        assert await world.board.try_probe("openai", "x")
        await world.verdict("x", dead)
        assert world.phase() is BreakerPhase.OPEN
        assert world.board.view("openai").until_us == world.clock.now_us + RULES.open_us

    async def test_c3_a_probe_whose_client_left_is_free_again(self, world: World) -> None:
        """Nothing learnt, nothing lost."""
        await world.half_open()
        assert await world.board.try_probe("openai", "x")
        await world.verdict("x", Fault.ABORTED)
        assert world.phase() is BreakerPhase.HALF_OPEN
        assert await world.board.try_probe("openai", "y")

    async def test_c3_only_the_probes_verdict_counts(self, world: World) -> None:
        """Ordinary results and a prober whose lease went to another can't reopen."""
        await world.half_open()
        assert await world.board.try_probe("openai", "dead")
        world.clock.now_us += RULES.probe_lease_us
        assert await world.board.try_probe("openai", "next")
        await world.verdict("dead", Fault.TIMEOUT)
        await world.record(*[Fault.CONNECT] * 9)
        assert world.phase() is BreakerPhase.HALF_OPEN
        await world.verdict("next", None)
        assert world.phase() is BreakerPhase.CLOSED


class OperatorContract:
    """Operators force, reload and look."""

    async def test_an_operator_opens_and_closes(self, world: World) -> None:
        """For as long as asked; closing leaves no trace of what was counted."""
        await world.record(*[Fault.CONNECT] * 4)
        await world.board.force("openai", open_for_us=60 * SECOND)
        assert world.board.view("openai").until_us == world.clock.now_us + 60 * SECOND
        await world.board.force("openai", open_for_us=None)
        assert world.phase() is BreakerPhase.CLOSED
        await world.record(*[Fault.CONNECT] * 4)
        assert world.phase() is BreakerPhase.CLOSED
        await world.board.force("unknown", open_for_us=None)

    async def test_readings_tell_counts_and_the_last_change(self, world: World) -> None:
        """What ``/admin`` shows, by provider."""
        await world.record(None, None, Fault.CONNECT)
        reading, other = world.board.all_views()
        assert (reading.provider, other.provider) == ("openai", "other")
        assert (reading.outcomes, reading.failures, reading.connect_streak) == (3, 1, 1)
        await world.record(*[Fault.CONNECT] * 4)
        assert world.board.all_views()[0].cause is Cause.CONNECT_FAILURES
        assert world.board.all_views()[0].changed_us == world.clock.now_us
        assert [(c.provider, c.view.phase) for c in world.changes] == [("openai", BreakerPhase.OPEN)]

    async def test_a_reload_keeps_state_and_takes_new_rules(self, world: World) -> None:
        """Providers that stay keep what was counted; those that go are forgotten."""
        await world.record(*[Fault.CONNECT] * 2)
        world.board.configure({"openai": BreakerPolicy(consecutive_connect_failures=3), "new": RULES})
        assert [r.provider for r in world.board.all_views()] == ["new", "openai"]
        await world.record(Fault.CONNECT)
        assert world.phase() is BreakerPhase.OPEN


class HistoryContract:
    """What was changed, when and why."""

    async def test_history_tells_every_change_newest_first(self, world: World) -> None:
        """Opened by failures, opened again by the probe, closed by the next; half-open is no change of its own."""
        assert list(await world.board.history("openai")) == []
        opened = world.clock.now_us
        await world.half_open()
        assert await world.board.try_probe("openai", "x")
        await world.verdict("x", Fault.TIMEOUT)
        again = world.clock.now_us
        world.clock.now_us += RULES.open_us
        assert await world.board.try_probe("openai", "y")
        await world.verdict("y", None)
        assert list(await world.board.history("openai")) == [
            BreakerChange(3, world.clock.now_us, Cause.PROBE_SUCCEEDED, BreakerPhase.CLOSED),
            BreakerChange(2, again, Cause.PROBE_FAILED, BreakerPhase.OPEN, again + RULES.open_us),
            BreakerChange(1, opened, Cause.CONNECT_FAILURES, BreakerPhase.OPEN, opened + RULES.open_us),
        ]
        assert list(await world.board.history("other")) == []

    async def test_history_tells_of_operators_and_keeps_the_latest(self, world: World) -> None:
        """However often one opens and closes, it does not grow."""
        for _ in range(CHANGES_KEPT // 2 + 1):
            await world.board.force("openai", open_for_us=SECOND)
            await world.board.force("openai", open_for_us=None)
        changes = await world.board.history("openai")
        assert len(changes) == CHANGES_KEPT
        assert [(c.phase, c.cause) for c in changes[:2]] == [
            (BreakerPhase.CLOSED, Cause.OPERATOR),
            (BreakerPhase.OPEN, Cause.OPERATOR),
        ]
        assert list(await world.board.history("unknown")) == []

    async def test_history_outlives_a_reload(self, world: World) -> None:
        """New rules are no new provider."""
        await world.open()
        world.board.configure({"openai": BreakerPolicy(consecutive_connect_failures=3)})
        assert [change.cause for change in await world.board.history("openai")] == [Cause.CONNECT_FAILURES]


class BreakerContract(OpeningContract, ProbeContract, OperatorContract, HistoryContract):
    """All of it."""
