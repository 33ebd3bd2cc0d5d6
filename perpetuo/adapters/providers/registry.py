"""
Which provider object stands for a configured id, now and after a reload?

Rule 1: a spec that did not change keeps its object; one whose origin did not change keeps its connections.
Rule 2: what a reload removes serves the calls in flight for as long as one of them may live, then it is closed.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import urlsplit

import attrs

from perpetuo.adapters.providers.demo import DemoUpstream
from perpetuo.adapters.providers.openai import OpenAIProvider
from perpetuo.adapters.providers.transport.llhttp import LlhttpUpstream
from perpetuo.adapters.providers.transport.wire import PoolStats, Upstream
from perpetuo.domain.model.models import ProviderKind, ProviderSpec
from perpetuo.domain.model.settings import Settings
from perpetuo.domain.model.upstream import Fault, UpstreamFailure
from perpetuo.domain.ports import Provider

LINGER_S = 660.0
"""How long a removed provider may still be asked: the longest call and a minute."""
LOOK_S = 5.0

Connect = Callable[[ProviderSpec], Upstream]


@attrs.frozen
class Line:
    """What decides whether two specs can share connections. ``id``: no pool is shared between providers."""

    id: str
    kind: ProviderKind
    origin: str
    http2: bool
    proxy: str | None = attrs.field(repr=False)


@attrs.frozen
class Entry:
    """A provider in force or removed."""

    spec: ProviderSpec
    line: Line
    provider: Provider
    upstream: Upstream


class ProviderRegistry:
    """Implements `perpetuo.domain.ports.Providers`. Use it inside a running event loop."""

    def __init__(
        self,
        settings: Settings,
        now_us: Callable[[], int],
        connect: Connect | None = None,
        linger: float = LINGER_S,
    ) -> None:
        self._now_us = now_us
        self._connect = connect or (lambda spec: open_line(spec, now_us))
        self._linger = linger
        self._entries: dict[str, Entry] = {}
        self._removed: dict[str, Entry] = {}
        self._retired: list[tuple[str, Upstream]] = []
        self._closing: set[asyncio.Task[None]] = set()
        self.reload(settings)

    def get(self, provider: str) -> Provider:
        entry = self._entries.get(provider) or self._removed.get(provider)
        if entry is None:
            raise UpstreamFailure(Fault.CONNECT, False, f"provider {provider!r} is no longer configured")
        return entry.provider

    def stats(self) -> Mapping[str, PoolStats]:
        """Connections by provider; of removed ones too, until their last call is over."""
        total: dict[str, PoolStats] = {}
        for name, upstream in self._upstreams():
            before, more = total.get(name, PoolStats(0, 0)), upstream.stats()
            total[name] = PoolStats(before.idle + more.idle, before.busy + more.busy)
        return total

    def _upstreams(self) -> Iterator[tuple[str, Upstream]]:
        yield from self._retired
        for name, entry in self._entries.items():
            yield name, entry.upstream

    def reload(self, settings: Settings) -> None:
        """Take over the providers of ``settings``."""
        before, self._entries = self._entries, {}
        for spec in settings.providers.values():
            self._entries[spec.id] = self._entry(spec, before.get(spec.id))
            self._removed.pop(spec.id, None)
        kept = {id(entry.upstream) for entry in self._entries.values()}
        for name, entry in before.items():
            if id(entry.upstream) not in kept:
                if name not in self._entries:
                    self._removed[name] = entry
                self._retire(name, entry)

    async def close(self) -> None:
        """Close every connection; calls in flight end with `Fault.ABORTED`."""
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        for _, upstream in tuple(self._upstreams()):
            await upstream.close()

    def _entry(self, spec: ProviderSpec, before: Entry | None) -> Entry:
        if before is not None and before.spec == spec:
            return before
        line = _line(spec)
        upstream = before.upstream if before is not None and before.line == line else self._connect(spec)
        return Entry(spec, line, OpenAIProvider(spec, upstream, self._now_us), upstream)

    def _retire(self, name: str, entry: Entry) -> None:
        self._retired.append((name, entry.upstream))
        task = asyncio.get_running_loop().create_task(self._close_later(name, entry))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close_later(self, name: str, entry: Entry) -> None:
        await asyncio.sleep(self._linger)
        while entry.upstream.stats().busy:  # noqa: ASYNC110 - nobody tells when a pool is idle
            await asyncio.sleep(LOOK_S)
        if self._removed.get(name) is entry:
            del self._removed[name]
        self._retired.remove((name, entry.upstream))
        await entry.upstream.close()


def _line(spec: ProviderSpec) -> Line:
    parts = urlsplit(spec.base_url)
    return Line(spec.id, spec.kind, f"{parts.scheme}://{parts.netloc}", spec.http2, spec.proxy)


def open_line(spec: ProviderSpec, now_us: Callable[[], int]) -> Upstream:
    """The transport a spec asks for: lean HTTP/1.1, httpx where HTTP/2 or a proxy is needed, or none at all."""
    origin = _line(spec).origin
    if spec.kind is ProviderKind.DEMO:
        return DemoUpstream(now_us)
    if spec.http2 or spec.proxy is not None:
        # importing httpx takes 0.3 s of a start that may take 1.5 s, and few providers need it
        from perpetuo.adapters.providers.transport.httpx_transport import HttpxUpstream  # noqa: PLC0415

        return HttpxUpstream(origin, http2=spec.http2, proxy=spec.proxy)
    return LlhttpUpstream(origin)
