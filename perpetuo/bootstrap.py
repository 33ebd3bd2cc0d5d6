"""
Who implements which port in this process?

The only module that names adapters. `build` reads the environment's choice of stores and makes one
`Container`; entrypoints get everything from there.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import attrs

from perpetuo.adapters.configfile.files import ConfigFiles, ConfigState
from perpetuo.adapters.configfile.problems import ConfigError
from perpetuo.adapters.configfile.sources import Sources
from perpetuo.adapters.configfile.watch import watch
from perpetuo.adapters.environment import Environment
from perpetuo.adapters.memory.breakers import MemoryBreakerBoard
from perpetuo.adapters.memory.ledger import MemoryLedger
from perpetuo.adapters.memory.logins import MemoryLogins
from perpetuo.adapters.memory.raises import MemoryRaises
from perpetuo.adapters.memory.refusals import MemoryRecentRefusals
from perpetuo.adapters.memory.seed import seed_from
from perpetuo.adapters.providers.registry import ProviderRegistry
from perpetuo.adapters.redis.breakers import RedisBreakerBoard
from perpetuo.adapters.redis.connected import ConnectedRedis
from perpetuo.adapters.redis.logins import RedisLogins
from perpetuo.adapters.redis.raises import RedisRaises
from perpetuo.adapters.redis.refusals import RedisRecentRefusals
from perpetuo.adapters.sql.database import Database
from perpetuo.adapters.sql.store import SqlEventStore
from perpetuo.adapters.system import RealSystem, giving_way, open_files, resident_bytes
from perpetuo.adapters.telemetry.cells import Cells
from perpetuo.adapters.telemetry.journal import TelemetryJournal
from perpetuo.adapters.telemetry.logs import Log, open_log
from perpetuo.adapters.telemetry.metrics import Labels, Metrics, Usage
from perpetuo.adapters.telemetry.once import Once
from perpetuo.adapters.telemetry.page import MetricsPage, Standing
from perpetuo.domain.gateway.budgets import past_raises
from perpetuo.domain.gateway.complete import Gateway
from perpetuo.domain.gateway.operate import remaining_budgets
from perpetuo.domain.gateway.relay import Refusals, flush_refusals, maintain, relay, roll
from perpetuo.domain.gateway.reseed import Reseeder
from perpetuo.domain.model.models import BreakerPolicy
from perpetuo.domain.model.settings import Settings
from perpetuo.domain.ports import EventStream, Ledger, StoreUnavailable

SEED_EVERY = FOLLOW_EVERY = 1.0
OPEN_SECONDS = 2.0
"""How long a start waits for budgets to be opened, before it says it is ready all the same."""
MOST_TENANTS_SHOWN = 2_000
"""Tenants whose budgets `/metrics` shows."""

Loop = tuple[str, Callable[[], Awaitable[None]]]
Board = MemoryBreakerBoard | RedisBreakerBoard


@attrs.define(eq=False)
class Stores:
    """What one choice of REDIS_URL gives."""

    name: str
    """``redis`` or ``memory``, as health and metrics call it."""
    ledger: Ledger
    stream: EventStream
    breakers: Board
    recent: MemoryRecentRefusals | RedisRecentRefusals
    logins: MemoryLogins | RedisLogins
    raises: MemoryRaises | RedisRaises
    redis: ConnectedRedis | None = None

    async def stop(self) -> None:
        if isinstance(self.breakers, RedisBreakerBoard):
            await self.breakers.close()
        if self.redis is not None:
            await self.redis.close()


@attrs.define(eq=False)
class Container:
    """Everything one worker is made of."""

    environment: Environment
    system: RealSystem
    log: Log
    journal: TelemetryJournal
    metrics: MetricsPage
    stores: Stores
    store: SqlEventStore
    providers: ProviderRegistry
    gateway: Gateway
    pending_refusals: Refusals
    files: ConfigFiles
    config: ConfigState
    once: Once
    close_traces: Callable[[], None]
    """Sends what is waiting, within two seconds."""
    stage: str = "starting"
    """``starting``, ``ready``, ``draining``, ``stopping``: this worker's own state."""
    _reloading: asyncio.Lock = attrs.field(factory=asyncio.Lock)
    _seeding: asyncio.Task[None] | None = None

    @property
    def ledger(self) -> Ledger:
        return self.stores.ledger

    @property
    def recent(self) -> MemoryRecentRefusals | RedisRecentRefusals:
        return self.stores.recent

    @property
    def settings(self) -> Settings:
        """The configuration in force."""
        return self.gateway.settings

    @property
    def database_name(self) -> str:
        return "sqlite" if (self.environment.database_url or "").startswith("sqlite") else "postgres"

    def problems(self) -> dict[str, str]:
        """Shared dependencies in trouble, by name."""
        found = {
            self.stores.name: self.ledger.problem(),
            self.database_name: self.store.problem(),
            "config": "; ".join(self.config.problems) or None,
        }
        return {name: text for name, text in found.items() if text is not None}

    def usage(self) -> Usage:
        """What this worker occupies."""
        connections = {name: (pool.busy, pool.idle) for name, pool in self.providers.stats().items()}
        return Usage(len(asyncio.all_tasks()), resident_bytes(), open_files(), connections)

    def loops(self) -> list[Loop]:
        """What runs beside the calls, by name."""
        stream, store, journal, system = self.stores.stream, self.store, self.journal, self.system
        loops: list[Loop] = [
            ("relay", lambda: relay(stream, store, journal, system)),
            ("refusals", lambda: flush_refusals(self.pending_refusals, store, self.recent, journal, system)),
            ("maintain", lambda: maintain(store, lambda: self.settings.audit.retention_us, journal, system)),
            ("roll", lambda: roll(store, journal, system)),
            ("config", lambda: watch(lambda: self.config.read_as, self.reload)),
            ("follow", self._follow_forever),
        ]
        if self.stores.redis is not None:
            loops.append(("reseed", self._reseeder(self.stores.redis).run))
        if isinstance(self.stores.raises, RedisRaises):
            loops.append(("raises", self.stores.raises.run))
        return loops

    async def start(self) -> None:
        """Open the budgets if both stores are there: at once, or in the background once they are."""
        if self.stores.redis is not None:
            await asyncio.gather(self._open_budgets(self.stores.redis), self._see_raises())
        elif not await self._seed():
            self._seeding = asyncio.create_task(self._seed_until_done(), name="seed")

    async def _open_budgets(self, redis: ConnectedRedis) -> None:
        """A first start should not refuse its first calls; another worker may be at it, so look until it is done."""
        reseeder = self._reseeder(redis)
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                while await redis.counters.closed():
                    await reseeder.open_closed()
                    await asyncio.sleep(0)
        except (StoreUnavailable, TimeoutError):
            return

    async def _see_raises(self) -> None:
        """So that the first call already is under the raised limit."""
        if isinstance(self.stores.raises, RedisRaises):
            try:
                async with asyncio.timeout(OPEN_SECONDS):
                    await self.stores.raises.refresh()
            except (StoreUnavailable, TimeoutError):
                return

    def _reseeder(self, redis: ConnectedRedis) -> Reseeder:
        return Reseeder(redis.counters, self.store, self.store, lambda: self.settings, self.system)

    async def _seed(self) -> bool:
        if not isinstance(self.ledger, MemoryLedger):
            return True
        try:
            await seed_from(self.store, self.ledger, self.settings, self.system.now_us())
            if isinstance(self.stores.raises, MemoryRaises):
                self.stores.raises.take(await past_raises(self.store, self.system))
        except StoreUnavailable as error:
            self.journal.store_error("sql", str(error))
            return False
        return True

    async def _seed_until_done(self) -> None:
        done = False
        while not done:
            await asyncio.sleep(SEED_EVERY)
            done = await self._seed()

    async def reload(self) -> None:
        """
        Read the configuration again: swapped whole if it is valid, else the one in force stays.

        One at a time (a signal and the watch may ask at once), so that what was read last is what is in force.
        """
        async with self._reloading:
            sources = await asyncio.to_thread(self.files.read)
            self.config.read_as = sources.seen
            try:
                settings, changed = await asyncio.to_thread(self._made_aside, sources)
            except ConfigError as error:
                self._reject(error)
                await self._follow()
            else:
                self._take_over(settings, sources, changed=changed)

    def _made_aside(self, sources: Sources) -> tuple[Settings, bool]:
        """What the files say, and whether that is new: to compare 10,000 tenants would stop calls for 30 ms."""
        with giving_way:
            settings = self.files.taken_over(sources)
            return settings, settings != self.settings

    async def _follow_forever(self) -> None:
        """Another worker may still have been at it when this one found the files broken."""
        while True:
            await asyncio.sleep(FOLLOW_EVERY)
            async with self._reloading:
                await self._follow()

    async def _follow(self) -> None:
        """While the files are broken: go by what another worker took over, if it saw a right version that we missed."""
        problems, kept_as = self.config.problems, self.files.kept_as()
        if not problems or kept_as == self.config.kept_as:
            return
        self.config.kept_as = kept_as
        found = await asyncio.to_thread(self._kept_aside)
        if found is not None:
            self._go_by(*found)
            self.config = attrs.evolve(self.config, problems=problems, kept_as=kept_as)

    def _kept_aside(self) -> tuple[Settings, Sources] | None:
        """What another worker took over, if that is not in force here; one that is wrong here (a variable) is not."""
        with giving_way, suppress(ConfigError):
            found = self.files.kept(self.config.read_as)
            return found if found is not None and found[0] != self.settings else None
        return None

    def _reject(self, error: ConfigError) -> None:
        self.config.problems = error.texts
        self.journal.reloaded("failure")
        first = self.once.first("config_rejected", (self.config.read_as, self.config.problems))
        self.journal.log(
            "error" if first else "debug", "config_rejected", count=len(self.config.problems),
            meaning="the configuration read before stays in force", problems=list(self.config.problems[:20]),
        )  # fmt: skip

    def _take_over(self, settings: Settings, sources: Sources, *, changed: bool) -> None:
        was_rejected = bool(self.config.problems)
        if changed:
            self._go_by(settings, sources)
        else:
            self._has_read(settings, sources)
            if was_rejected:
                self._accept(settings)
        self.journal.reloaded("success")

    def _accept(self, settings: Settings) -> None:
        first = self.once.first("config_accepted", self.config.read_as)
        self.journal.log(
            "info" if first else "debug", "config_accepted", version=settings.version,
            meaning="the file is right again and says what is in force",
        )  # fmt: skip

    def _go_by(self, settings: Settings, sources: Sources) -> None:
        self._has_read(settings, sources)
        self.providers.reload(settings)
        self.stores.breakers.configure(breaker_policies(settings))
        self.journal.configure(settings)
        self.gateway.replace(settings)
        self.journal.log("info", "config_reloaded", version=settings.version, tenants=len(settings.tenants))

    def _has_read(self, settings: Settings, sources: Sources) -> None:
        self.config = ConfigState(self.system.now_us(), sources.seen, sources.variables)
        self.journal.goes_by(settings.version, self.config.loaded_at_us)

    async def stop(self) -> None:
        """Close what was opened; nothing is lost by it."""
        await self.providers.close()
        await self.stores.stop()
        await asyncio.to_thread(self.close_traces)
        self.log.close()
        await self.store.close()


def files_of(environment: Environment) -> ConfigFiles:
    return ConfigFiles(environment.config_path, environment.catalogue_path, environment.run_dir)


async def build(environment: Environment) -> Container:
    """
    Make this process's container, in its running loop. Stores may be away.

    Raises `ConfigError`, and `UnfitRedisError` for a Redis that must not be used.
    """
    system = RealSystem()
    files = files_of(environment)
    settings, sources, problems = files.first()
    directory = environment.run_dir / "metrics" if environment.run_dir is not None else None
    cells = Cells.claim(directory) if directory is not None else Cells.in_process()
    metrics = Metrics(cells, Labels.of(settings.tenants, settings.models.by_name, settings.providers))
    config = ConfigState(system.now_us(), sources.seen, sources.variables, problems)
    metrics.goes_by(settings.version, config.loaded_at_us)
    pending = Refusals()
    log = open_log(environment.log_level, environment.log_format, worker=environment.worker)
    journal = TelemetryJournal(log, metrics, system.monotonic, pending.add)
    store = SqlEventStore(Database(environment.database_url or "sqlite:///perpetuo.sqlite3"))
    stores = await open_stores(environment, settings, journal, system, store)
    providers = ProviderRegistry(settings, system.now_us)
    gateway = Gateway(
        settings=settings,
        ledger=stores.ledger,
        breakers=stores.breakers,
        providers=providers,
        journal=journal,
        system=system,
        workers=environment.workers,
        raised=stores.raises.of,
    )
    stores.raises.on_change = gateway.admission.forget_limits
    page = MetricsPage(cells, directory, lambda: standing(stores, gateway), system.monotonic)
    return Container(
        environment, system, log, journal, page, stores, store, providers, gateway, pending,
        files, config, Once(environment.run_dir),
        open_traces(environment, journal, metrics),
    )  # fmt: skip


def open_traces(environment: Environment, journal: TelemetryJournal, metrics: Metrics) -> Callable[[], None]:
    """Export spans, if that is asked for; how to end it."""
    if environment.tracing is None:
        return lambda: None
    from perpetuo.adapters.telemetry.traces import Traces  # noqa: PLC0415 - needs an extra, and 0.1 s of CPU

    traces = Traces(environment.tracing, metrics, journal.log)
    journal.trace = traces.finished
    return traces.close


async def open_stores(
    environment: Environment, settings: Settings, journal: TelemetryJournal, system: RealSystem, store: SqlEventStore
) -> Stores:
    """The stores REDIS_URL asks for."""
    policies = breaker_policies(settings)
    if environment.in_process:
        ledger = MemoryLedger(system.now_us, durable=True, seeded=False)
        board = MemoryBreakerBoard(policies, on_change=journal.breaker_changed)
        recent, logins = MemoryRecentRefusals(), MemoryLogins(system.now_us)
        return Stores("memory", ledger, ledger, board, recent, logins, MemoryRaises(ledger.append))
    redis = await ConnectedRedis.connect(
        environment.redis_url,
        timeout=settings.redis_timeout,
        on_problem=lambda text: journal.store_error("ledger", text),
    )
    shared = RedisBreakerBoard(
        redis.store,
        policies,
        on_change=journal.breaker_changed,
        on_error=lambda text: journal.store_error("breakers", text),
    )
    await shared.start()
    raises = RedisRaises(redis.store, lambda: past_raises(store, system))
    return Stores("redis", redis.ledger, redis.stream, shared, redis.refusals, redis.logins, raises, redis)


def breaker_policies(settings: Settings) -> dict[str, BreakerPolicy]:
    return {spec.id: spec.breaker for spec in settings.providers.values()}


async def standing(stores: Stores, gateway: Gateway) -> Standing:
    """What the metrics page asks the stores; what is away is left out."""
    breakers = stores.breakers.all_views()
    shown = list(gateway.settings.tenants.values())[:MOST_TENANTS_SHOWN]
    remaining = remaining_budgets(stores.ledger, shown, RealSystem().now_us(), stores.raises.of)
    try:
        budgets, backlog = await asyncio.gather(remaining, stores.stream.backlog())
    except StoreUnavailable:
        return Standing(breakers)
    return Standing(breakers, budgets, backlog)
