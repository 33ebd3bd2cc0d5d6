"""
What does a worker do besides answering calls?

It renews the leases of its calls, reaps those of dead workers, carries events into SQL, repeats
what a store did not take, follows the config file - and leaves in good order when told to.
"""

import asyncio
import gc
import os
from collections.abc import Awaitable, Callable

from perpetuo import __version__
from perpetuo.bootstrap import Container
from perpetuo.domain.gateway.call import SHUTDOWN

FINISH_SECONDS = 58.0
"""How long calls in flight may go on after the drain delay, before streams get an error event (O1)."""
OWING_SECONDS = 2.0
"""How long a leaving worker repeats settlements the store did not take; afterwards the lease's reaper has them."""
RESTART_SECONDS = 1.0
GAUGE_SECONDS = 0.25
USAGE_SECONDS = 1.0


class Worker:
    """One process's life around its `Container`."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Connect (stores may be away) and start the loops."""
        container = self._container
        await container.start()
        in_flight = container.gateway.in_flight
        loops: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            ("renew", in_flight.renew_forever),
            ("reap", in_flight.reap_forever),
            ("repay", in_flight.repay_forever),
            ("gauge", self._gauge_forever),
            ("usage", self._usage_forever),
            *container.loops(),
        ]
        self._tasks = [asyncio.create_task(self._forever(name, loop), name=name) for name, loop in loops]

    def ready(self) -> None:
        """Everything there is to make has been made."""
        container = self._container
        _leave_what_stays_to_itself()
        container.stage = "ready"
        environment, settings = container.environment, container.settings
        container.journal.log(
            "info", "ready", host=environment.host, port=environment.port, pid=os.getpid(), workers=environment.workers,
            version=__version__, file=str(environment.config_path), config=settings.version,
            tenants=len(settings.tenants), models=len(settings.models.by_name), problems=sorted(container.problems()),
        )  # fmt: skip

    async def _forever(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        """A loop that broke is a defect, said in the log, and started again."""
        while True:
            try:
                await loop()
            except Exception as error:  # noqa: BLE001 - the loop must outlive every defect in it
                self._container.journal.log("error", "loop_broken", loop=name, error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(RESTART_SECONDS)

    async def _gauge_forever(self) -> None:
        while True:
            self._container.journal.in_flight(len(self._container.gateway.in_flight))
            await asyncio.sleep(GAUGE_SECONDS)

    async def _usage_forever(self) -> None:
        while True:
            self._container.journal.occupies(self._container.usage())
            await asyncio.sleep(USAGE_SECONDS)

    async def drain(self) -> None:
        """Not ready at once, still accepting for `drainDelay`, then finish what is in flight."""
        container = self._container
        if container.stage == "draining":
            return
        container.stage = "draining"
        gateway, server = container.gateway, container.gateway.settings.server
        container.journal.log("info", "draining", in_flight=len(gateway.in_flight))
        await asyncio.sleep(server.drain_delay)
        gateway.draining = True
        if not await self._until(lambda: len(gateway.in_flight) == 0, FINISH_SECONDS):
            container.journal.log("warning", "drain_over", in_flight=len(gateway.in_flight), reason=SHUTDOWN)
            gateway.in_flight.abort_all()
        await self._until(lambda: len(gateway.in_flight) == 0 and gateway.in_flight.owing == 0, OWING_SECONDS)

    async def _until(self, done: Callable[[], bool], seconds: float) -> bool:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while not done():
            if loop.time() >= until:
                return False
            await asyncio.sleep(0.02)
        return True

    async def stop(self) -> None:
        """End the loops, hand on what is left, close connections."""
        self._container.stage = "stopping"
        self._container.journal.log(
            "info", "stopped", pid=os.getpid(), in_flight=len(self._container.gateway.in_flight)
        )
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._container.stop()


def _leave_what_stays_to_itself() -> None:
    """
    Modules and configuration outlive every call: the collector need not look at them again and again.

    A call leaves no cycles (but for those of httpx's transport), so a collection each 700 objects, Python's
    default, finds next to nothing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()
