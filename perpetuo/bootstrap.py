"""
Who implements which port in this process?

The only module that names adapters. `build` reads the environment's choice of stores and makes one
`Container`; entrypoints get everything from there.
"""

import asyncio
from collections.abc import Awaitable, Callable

import attrs

from perpetuo.adapters.configfile.catalogue import load_catalogue
from perpetuo.adapters.configfile.load import load_sources
from perpetuo.adapters.configfile.problems import ConfigError
from perpetuo.adapters.configfile.sources import Sources, read_sources
from perpetuo.adapters.configfile.watch import Seen, watch
from perpetuo.adapters.environment import Environment, Variables
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
from perpetuo.domain.gateway.relay import Refusals, flush_refusals, maintain, relay, roll
from perpetuo.domain.gateway.reseed import Reseeder
from perpetuo.domain.model.models import BreakerPolicy
from perpetuo.domain.model.money import Nano
from perpetuo.domain.model.settings import Settings
from perpetuo.domain.policy.windows import limits_of
from perpetuo.domain.ports import EventStream, Ledger, StoreUnavailable

SEED_EVERY = 1.0
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
class ConfigState:
    """What is known about the configuration file."""

    loaded_at_us: int
    read_as: Seen
    """The files as they were before they were last read."""
    problems: tuple[str, ...] = ()
    """Why the file as it is now was not taken over; the one before is in force."""


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
    config: ConfigState
    once: Once
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
            sources = await asyncio.to_thread(read_sources, self.environment.config_path, Variables())
            self.config.read_as = sources.seen
            try:
                settings, changed = await asyncio.to_thread(self._made_aside, sources)
            except ConfigError as error:
                self._reject(error)
            else:
                self._take_over(settings, changed=changed)

    def _made_aside(self, sources: Sources) -> tuple[Settings, bool]:
        """What the files say, and whether that is new: to compare 10,000 tenants would stop calls for 30 ms."""
        with giving_way():
            settings = settings_of(self.environment, sources)
            return settings, settings != self.settings

    def _reject(self, error: ConfigError) -> None:
        self.config.problems = tuple(str(problem) for problem in error.problems)
        self.journal.reloaded("failure")
        first = self.once.first("config_rejected", (self.config.read_as, self.config.problems))
        self.journal.log(
            "error" if first else "debug", "config_rejected", count=len(self.config.problems),
            meaning="the configuration read before stays in force", problems=list(self.config.problems[:20]),
        )  # fmt: skip

    def _take_over(self, settings: Settings, *, changed: bool) -> None:
        was_rejected = bool(self.config.problems)
        self.config = ConfigState(self.system.now_us(), self.config.read_as)
        if changed:
            self.providers.reload(settings)
            self.stores.breakers.configure(breaker_policies(settings))
            self.journal.configure(settings)
            self.gateway.replace(settings)
            self.journal.log("info", "config_reloaded", version=settings.version, tenants=len(settings.tenants))
        elif was_rejected:
            first = self.once.first("config_accepted", self.config.read_as)
            self.journal.log(
                "info" if first else "debug", "config_accepted", version=settings.version,
                meaning="the file is right again and says what is in force",
            )  # fmt: skip
        self.journal.reloaded("success")

    async def stop(self) -> None:
        """Close what was opened; nothing is lost by it."""
        await self.providers.close()
        await self.stores.stop()
        self.log.close()
        await self.store.close()


def read_settings(environment: Environment) -> Settings:
    """The configuration as its files are now; raises `ConfigError`."""
    return settings_of(environment, read_sources(environment.config_path, Variables()))


def settings_of(environment: Environment, sources: Sources) -> Settings:
    """What the configuration's files say; raises `ConfigError`."""
    catalogue = load_catalogue(environment.catalogue_path) if environment.catalogue_path is not None else None
    return load_sources(sources, catalogue)


async def build(environment: Environment) -> Container:
    """
    Make this process's container, in its running loop. Stores may be away.

    Raises `ConfigError`, and `UnfitRedisError` for a Redis that must not be used.
    """
    system = RealSystem()
    sources = read_sources(environment.config_path, Variables())
    settings = settings_of(environment, sources)
    directory = environment.run_dir / "metrics" if environment.run_dir is not None else None
    cells = Cells.claim(directory) if directory is not None else Cells.in_process()
    metrics = Metrics(cells, Labels.of(settings.tenants, settings.models.by_name, settings.providers))
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
        ConfigState(system.now_us(), sources.seen), Once(environment.run_dir),
    )  # fmt: skip


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
    try:
        budgets, backlog = await asyncio.gather(remaining_budgets(stores, gateway), stores.stream.backlog())
    except StoreUnavailable:
        return Standing(breakers)
    return Standing(breakers, budgets, backlog)


async def remaining_budgets(stores: Stores, gateway: Gateway) -> list[tuple[str, str, Nano, Nano]]:
    """Tenant, period, what is neither spent nor held, and the limit."""
    now_us = RealSystem().now_us()
    asked = []
    for tenant in list(gateway.settings.tenants.values())[:MOST_TENANTS_SHOWN]:
        if tenant.limits.has_budget and tenant.keys:
            caller = gateway.settings.callers[tenant.keys[0].digest]
            limits = limits_of(caller, now_us, stores.raises.of(tenant.id)).budgets
            own = [limit for limit in limits if limit.scope == tenant.id and limit.limit is not None]
            asked.append(stores.ledger.read_budgets(own, tenant.id))
    readings = [reading for readings in await asyncio.gather(*asked) for reading in readings]
    return [
        (r.scope, r.period, r.remaining, r.limit) for r in readings if r.remaining is not None and r.limit is not None
    ]
