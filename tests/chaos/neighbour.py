"""
What the evil neighbour does, with real signals to real processes.

Rule 1: every fault is written down as it happened, with its real times: the checker excuses nothing else.
Rule 2: a hand does one thing at a time; what the other does meanwhile is the other's.
Rule 3: `mend` puts everything right again, whatever was interrupted.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence

import attrs

from perpetuo.adapters.redis import keys
from tests.chaos.evidence import Fault, Limit
from tests.chaos.faults import STORMS, Planned
from tests.chaos.stage import CALM, GUEST, STORMY, Stage
from tests.cluster import Cluster
from tests.journal_upstream import JournalUpstream
from tests.servers import PostgresServer, RedisServer, sql

AFTERMATH = 1.0
"""Seconds in which connections may still break because of a death."""
LOCK = "do $$ begin lock table events in access exclusive mode; perform pg_sleep({}); end $$"
PROVIDERS = ("steady", "spare", "odd")


@attrs.define
class World:
    """The processes of a run."""

    redis: RedisServer
    postgres: PostgresServer
    upstream: JournalUpstream
    cluster: Cluster
    stage: Stage
    limits: list[Limit] = attrs.field(factory=list)

    def configure(self, stage: Stage) -> None:
        """Written down first: from this moment a worker may know."""
        self.stage = stage
        self.limits += stage.limits(time.time())
        self.cluster.configure(stage.text())


class Neighbour:
    """Carries a plan out."""

    def __init__(self, world: World, tell: Callable[[str], None]) -> None:
        self._world = world
        self._tell = tell
        self._ended = threading.Event()
        self._stopped: set[int] = set()
        self.faults: list[Fault] = []
        self.failures: list[BaseException] = []
        """Of our own: the run is worth nothing then."""
        self._hands: list[threading.Thread] = []

    def begin(self, plans: Sequence[Sequence[Planned]]) -> None:
        began = time.monotonic()
        self._hands = [threading.Thread(target=self._work, args=(plan, began), daemon=True) for plan in plans]
        for hand in self._hands:
            hand.start()

    def end(self) -> None:
        """Nothing new from here on; returns when the last fault is over and everything is well again."""
        self._ended.set()
        for hand in self._hands:
            hand.join()
        self.mend()

    def _work(self, plan: Sequence[Planned], began: float) -> None:
        try:
            for planned in plan:
                if self._ended.wait(max(0.0, began + planned.at - time.monotonic())):
                    return
                self._strike(planned)
        except BaseException as error:
            self.failures.append(error)
            raise

    def _strike(self, planned: Planned) -> None:
        self._tell(f"{planned.what} {planned.seconds or ''}")
        if planned.what in STORMS:
            return self._storm(planned)
        deeds: dict[str, Callable[[Planned], None]] = {
            "kill_worker": self._kill_worker, "kill_gateway": self._kill_gateway, "stop_worker": self._stop_worker,
            "restart_gateway": self._restart_gateway, "stop_redis": self._stop_redis, "kill_redis": self._kill_redis,
            "script_flush": self._script_flush, "flush_all": self._flush_all, "kill_postgres": self._kill_postgres,
            "lock_table": self._lock_table, "raise_limits": self._raise_limits, "take_key_away": self._take_key_away,
            "delete_breaker": self._delete_breaker,
        }  # fmt: skip
        return deeds[planned.what](planned)

    def _note(self, what: str, began: float, gateway: int | None = None, *, after: float = 0.0) -> None:
        self.faults.append(Fault(what, began, time.time() + after, gateway))

    # --- processes -------------------------------------------------------------------------------

    def _worker(self, planned: Planned) -> tuple[int, int] | None:
        """A worker and its gateway."""
        workers = [(pid, n) for n, gateway in enumerate(self._world.cluster.gateways) for pid in gateway.worker_pids()]
        return workers[int(planned.draw * len(workers))] if workers else None

    def _kill_worker(self, planned: Planned) -> None:
        if (found := self._worker(planned)) is not None:
            began = time.time()
            with contextlib.suppress(ProcessLookupError):
                os.kill(found[0], signal.SIGKILL)
            self._note("kill_worker", began, found[1], after=AFTERMATH)

    def _stop_worker(self, planned: Planned) -> None:
        if (found := self._worker(planned)) is None:
            return
        began = time.time()
        with contextlib.suppress(ProcessLookupError):
            os.kill(found[0], signal.SIGSTOP)
            self._stopped.add(found[0])
            self._ended.wait(planned.seconds)
            os.kill(found[0], signal.SIGCONT)
        self._stopped.discard(found[0])
        self._note("stop_worker", began, found[1])

    def _kill_gateway(self, planned: Planned) -> None:
        number = int(planned.draw * len(self._world.cluster.gateways))
        gateway = self._world.cluster.gateways[number]
        began = time.time()
        gateway.kill()
        self._ended.wait(planned.seconds)
        gateway.start()
        self._note("kill_gateway", began, number)

    def _restart_gateway(self, planned: Planned) -> None:
        """An orderly one: nobody may notice, but for those who knock while it is away."""
        number = int(planned.draw * len(self._world.cluster.gateways))
        gateway = self._world.cluster.gateways[number]
        began = time.time()
        status = gateway.stop()
        assert status == 0, f"the gateway ended with {status} at SIGTERM"
        gateway.start()
        self._note("restart_gateway", began, number)

    # --- stores ----------------------------------------------------------------------------------

    def _stop_redis(self, planned: Planned) -> None:
        began = time.time()
        self._world.redis.pause()
        self._ended.wait(planned.seconds)
        self._world.redis.resume()
        self._note("stop_redis", began)

    def _kill_redis(self, planned: Planned) -> None:
        began = time.time()
        self._world.redis.kill()
        self._ended.wait(planned.seconds)
        self._world.redis.start()
        self._note("kill_redis", began)

    def _script_flush(self, _: Planned) -> None:
        with self._world.redis.client() as client:
            client.script_flush()
        self._note("script_flush", time.time())

    def _flush_all(self, _: Planned) -> None:
        began = time.time()
        with self._world.redis.client() as client:
            client.flushall()
        self._note("flush_all", began)

    def _delete_breaker(self, planned: Planned) -> None:
        with self._world.redis.client() as client:
            client.delete(keys.breaker(PROVIDERS[int(planned.draw * len(PROVIDERS))]))
        self._note("delete_breaker", time.time())

    def _kill_postgres(self, planned: Planned) -> None:
        began = time.time()
        self._world.postgres.kill()
        self._ended.wait(planned.seconds)
        self._world.postgres.start()
        self._note("kill_postgres", began)

    def _lock_table(self, planned: Planned) -> None:
        began = time.time()
        sql(self._world.postgres.url, LOCK.format(planned.seconds))
        self._note("lock_table", began)

    # --- configuration ---------------------------------------------------------------------------

    def _raise_limits(self, _: Planned) -> None:
        self._world.configure(attrs.evolve(self._world.stage, raised=self._world.stage.raised + 1))
        self._note("raise_limits", time.time())

    def _take_key_away(self, planned: Planned) -> None:
        self._world.configure(attrs.evolve(self._world.stage, guest=False))
        began = time.time()
        self._ended.wait(planned.seconds)
        ended = time.time()
        self._world.configure(attrs.evolve(self._world.stage, guest=True))
        self.faults.append(Fault("take_key_away", began, ended, about=GUEST))

    # --- the provider ----------------------------------------------------------------------------

    def _storm(self, planned: Planned) -> None:
        began = time.time()
        model = STORMY[int(planned.draw * len(STORMY))]
        self._world.upstream.behave(model, STORMS[planned.what])
        self._ended.wait(planned.seconds)
        self._world.upstream.behave(model, CALM)
        self._note(planned.what, began)

    def mend(self) -> None:
        """Everything runs, nothing is held up."""
        world = self._world
        for pid in self._stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        if world.redis.running:
            world.redis.resume()
        world.redis.start()
        world.postgres.start()
        for model in STORMY:
            world.upstream.behave(model, CALM)
        for gateway in world.cluster.gateways:
            if gateway.process is None or gateway.process.poll() is not None:
                gateway.start()
        world.cluster.wait_whole(60)
