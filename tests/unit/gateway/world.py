"""
A gateway in a box: the real use case over the memory twins, scripted providers, a clock that tests move.

`World.call` runs one call as the HTTP edge would and returns what its client saw.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any

import attrs
import msgspec

from perpetuo.adapters.dialects import openai
from perpetuo.adapters.memory.breakers import MemoryBreakerBoard
from perpetuo.adapters.memory.ledger import MemoryLedger
from perpetuo.adapters.system import uuid7
from perpetuo.domain.gateway.complete import Gateway
from perpetuo.domain.model.chat import CallRequest, Kind
from perpetuo.domain.model.errors import Refusal
from perpetuo.domain.model.events import Event, RefusalNote
from perpetuo.domain.model.models import Model, ModelTable, ProviderKind, ProviderSpec, Target
from perpetuo.domain.model.money import Nano, Rate, nano_from_usd
from perpetuo.domain.model.pricing import Price, Rates
from perpetuo.domain.model.settings import Settings
from perpetuo.domain.model.tenants import ApiKey, Caller, Limits, Tenant
from perpetuo.domain.model.upstream import Abort, Answer, Ending, Fault, Outbound, UpstreamFailure
from perpetuo.domain.model.usage import Usage
from perpetuo.domain.ports import NeverSent, StoreUnavailable
from perpetuo.entrypoints.http.errors import status_of

START_US = 1_790_000_000_000_000
PRICE = Price(Rates(Rate(500_000_000), Rate(1_500_000_000), Rate(250_000_000)))
"""$0.5 in, $1.5 out, $0.25 cached per million tokens."""


class Clock:
    """`System` whose time only moves when a test (or a sleep) moves it."""

    def __init__(self) -> None:
        self.us = START_US
        self.ids = 0

    def now_us(self) -> int:
        return self.us

    def monotonic(self) -> float:
        return self.us / 1_000_000

    def random(self) -> float:
        return 0.5

    def new_id(self) -> str:
        self.ids += 1
        return uuid7(self.us // 1_000, self.ids)

    async def sleep(self, seconds: float) -> None:
        self.us += round(seconds * 1_000_000)
        await asyncio.sleep(0)


@attrs.define
class Notes:
    """`Journal` that remembers."""

    events: list[Event] = attrs.field(factory=list)
    refusals: list[RefusalNote] = attrs.field(factory=list)
    attempts: list[tuple[str, str]] = attrs.field(factory=list)
    exceeded: list[Event] = attrs.field(factory=list)
    lines: list[tuple[str, str, dict[str, Any]]] = attrs.field(factory=list)

    def finished(self, event: Event) -> None:
        self.events.append(event)

    def refused(self, note: RefusalNote) -> None:
        self.refusals.append(note)

    def attempted(self, provider: str, outcome: str) -> None:
        self.attempts.append((provider, outcome))

    def hold_exceeded(self, event: Event) -> None:
        self.exceeded.append(event)

    def in_flight(self, calls: int) -> None: ...

    def store_error(self, store: str, text: str) -> None:
        self.lines.append(("error", store, {"text": text}))

    def store_back(self, store: str) -> None:
        if any(event == store for _, event, _ in self.lines):
            self.lines.append(("info", "store_back", {"store": store}))

    def abandoned(self, calls: Any) -> None: ...

    def log(self, level: str, event: str, **fields: Any) -> None:
        self.lines.append((level, event, fields))


class FaultyLedger:
    """
    A `Ledger` before another that counts its steps.

    Those in ``unsent`` and ``away`` fail before the act, the former for sure; those in ``lost`` fail after it.
    """

    def __init__(self, inner: MemoryLedger) -> None:
        self.steps: list[str] = []
        self.away: set[str] = set()
        self.unsent: set[str] = set()
        self.lost: set[str] = set()
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        step = getattr(self._inner, name)
        if name not in STEPS:
            return step

        async def counted(*arguments: Any) -> Any:
            self.steps.append(name)
            if name in self.unsent:
                raise NeverSent("not even asked")
            if name in self.away:
                raise StoreUnavailable("away")
            result = await step(*arguments)
            if name in self.lost:
                raise StoreUnavailable("the reply was lost")
            return result

        return counted


STEPS = frozenset({"admit", "extend", "settle", "cancel", "renew", "reap"})


class Listener:
    """`Client` that keeps what it was sent."""

    def __init__(self) -> None:
        self.abort = Abort()
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.writes: list[bytes] = []
        self.refusal: Refusal | None = None
        self.finished = False
        self.on_write: Callable[[], None] | None = None

    async def answer(self, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> None:
        self.status, self.headers, self.body, self.finished = status, dict(headers), body, True

    async def start(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        self.status, self.headers = status, dict(headers)

    async def write(self, data: bytes) -> None:
        self.body += data
        self.writes.append(data)
        if self.on_write is not None:
            self.on_write()

    async def finish(self, data: bytes) -> None:
        await self.write(data)
        self.finished = True

    async def refuse(self, refusal: Refusal, headers: Iterable[tuple[str, str]]) -> None:
        self.status, self.headers, self.refusal, self.finished = self.status_of(refusal), dict(headers), refusal, True

    def status_of(self, refusal: Refusal) -> int:
        return status_of(refusal)

    async def fail(self, refusal: Refusal) -> None:
        self.refusal, self.finished = refusal, True


@attrs.define
class ScriptedStream:
    """A provider's stream: chunks, then an ending or a failure."""

    parts: list[bytes]
    usage: Usage | None = None
    end: Ending = Ending.COMPLETE
    failure: UpstreamFailure | None = None
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    upstream_request_id: str | None = None
    output_bytes: int = 0
    is_over: bool = False
    over_after: int = 0
    """With which part it knows that there is no further one; 0: it never does."""
    ending: Ending | None = None
    abort: Abort | None = None

    async def chunks(self) -> AsyncIterator[bytes]:
        for number, part in enumerate(self.parts, 1):
            self.is_over = number == self.over_after
            if self.abort is not None and self.abort.fired:
                raise UpstreamFailure(Fault.ABORTED, True, "stopped")
            self.output_bytes += len(part)
            yield part
        if self.abort is not None and self.abort.fired:
            raise UpstreamFailure(Fault.ABORTED, True, "stopped")
        if self.failure is not None:
            raise self.failure
        self.ending = self.end


Step = Answer | ScriptedStream | UpstreamFailure | Callable[[Outbound], Any]


class ScriptedProvider:
    """A `Provider` that plays its script, then repeats the last step; records every attempt."""

    def __init__(self, clock: Clock) -> None:
        self.script: list[Step] = []
        self.sent: list[Outbound] = []
        self._clock = clock

    async def send(self, out: Outbound, abort: Abort) -> Any:
        self.sent.append(out)
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, UpstreamFailure):
            raise step
        if isinstance(step, ScriptedStream):
            return attrs.evolve(step, abort=abort)
        return step if isinstance(step, Answer) else await step(out)


@attrs.define
class Scripted:
    """`Providers`."""

    by_id: Mapping[str, ScriptedProvider]

    def get(self, provider: str) -> ScriptedProvider:
        return self.by_id[provider]


def ok(input_tokens: int = 10, output_tokens: int = 5, text: str = "hello") -> Answer:
    body = msgspec.json.encode({"choices": [{"message": {"content": text}}]})
    usage = Usage(input_tokens, output_tokens)
    return Answer(200, "application/json", (), body, usage, len(text))


def bad(status: int, fault: Fault, *, code: str | None = None, retry_after_us: int | None = None) -> Answer:
    body = msgspec.json.encode({"error": {"message": "no", "code": code}})
    return Answer(
        status, "application/json", (), body, None, 0, fault=fault, retry_after_us=retry_after_us, error_code=code
    )


def key(text: str, name: str = "key-1", **more: Any) -> ApiKey:
    return ApiKey(name, hashlib.sha256(text.encode()).digest(), **more)


def settings(*, targets: tuple[Target, ...] | None = None, limits: Limits | None = None, **more: Any) -> Settings:
    """One tenant ``acme`` (key ``sk-acme``), model ``m`` on providers ``a`` then ``b``."""
    targets = targets or (
        Target("a", "m-a", price=PRICE, max_output_tokens=1_000),
        Target("b", "m-b", priority=1, price=PRICE, max_output_tokens=1_000),
    )
    limits = limits or Limits(rate_per_minute=100, budget_day=nano_from_usd("50"))
    more.setdefault("models", ModelTable({"m": Model("m", targets)}))
    return Settings(
        providers={p: ProviderSpec(p, ProviderKind.OPENAI) for p in ("a", "b")},
        tenants={"acme": Tenant("acme", "pro", limits, keys=(key("sk-acme"),))},
        **more,
    )


class World:
    """One gateway with its twins."""

    def __init__(self, config: Settings | None = None) -> None:
        self.clock = Clock()
        config = config or settings()
        self.memory = MemoryLedger(self.clock.now_us)
        self.ledger = FaultyLedger(self.memory)
        self.providers = {p: ScriptedProvider(self.clock) for p in config.providers}
        for provider in self.providers.values():
            provider.script = [ok()]
        self.breakers = MemoryBreakerBoard({p: s.breaker for p, s in config.providers.items()}, clock=self.clock.now_us)
        self.notes = Notes()
        self.gateway = Gateway(
            settings=config,
            ledger=self.ledger,
            breakers=self.breakers,
            providers=Scripted(self.providers),
            journal=self.notes,
            system=self.clock,
        )

    async def call(
        self,
        *,
        api_key: str = "sk-acme",
        caller: Caller | None = None,
        client: Listener | None = None,
        idempotency_key: str | None = None,
        wait: float | None = None,
        timeout: float | None = None,
        **body: Any,
    ) -> Listener:
        """One chat call, as the edge would make it."""
        client = client or Listener()
        raw = msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": "hi"}], **body})
        known = caller or self.gateway.authenticate(api_key)
        assert not isinstance(known, Refusal)
        request = CallRequest(
            ask=openai.parse_chat(raw),
            request_id=self.clock.new_id(),
            started_us=self.clock.now_us(),
            started=self.clock.monotonic(),
            idempotency_key=idempotency_key,
            fingerprint=openai.fingerprint("POST", Kind.CHAT.path, raw) if idempotency_key else None,
            wait=wait,
            timeout=timeout,
        )
        await self.gateway.complete(known, request, client)
        return client

    async def spent(self) -> tuple[Nano, Nano]:
        """(spent, held) of acme's day."""
        caller = self.gateway.authenticate("sk-acme")
        assert not isinstance(caller, Refusal)
        limits = self.gateway.admission.limits_of(caller)
        readings = await self.memory.read_budgets(limits.budgets, "acme")
        day = next(r for r in readings if r.period == "day")
        return day.spent, day.held
