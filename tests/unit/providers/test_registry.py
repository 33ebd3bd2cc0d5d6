"""What a reload keeps, replaces and closes."""

import asyncio
from typing import Any

import attrs
import pytest

from perpetuo.adapters.providers.demo import DemoUpstream
from perpetuo.adapters.providers.openai import OpenAIProvider
from perpetuo.adapters.providers.registry import ProviderRegistry, open_line
from perpetuo.adapters.providers.transport.httpx_transport import HttpxUpstream
from perpetuo.adapters.providers.transport.llhttp import LlhttpUpstream
from perpetuo.adapters.providers.transport.wire import PoolStats
from perpetuo.domain.model.models import ModelTable, ProviderKind, ProviderSpec, Timeouts
from perpetuo.domain.model.settings import Settings
from perpetuo.domain.model.upstream import UpstreamFailure
from tests.unit.providers.scripted import JSON, SPEC, Script

pytestmark = pytest.mark.anyio


class World:
    """A registry whose transports are scripts that remember being closed."""

    def __init__(self, *specs: ProviderSpec) -> None:
        self.made: list[Script] = []
        self.registry = ProviderRegistry(config(*specs), lambda: 0, self.connect, linger=0.0)

    def connect(self, spec: ProviderSpec) -> Script:
        self.made.append(Script(200, JSON, []))
        return self.made[-1]


def config(*specs: ProviderSpec) -> Settings:
    return Settings({spec.id: spec for spec in specs}, ModelTable({}), {})


OTHER = attrs.evolve(SPEC, id="q")


async def test_a_reload_keeps_what_did_not_change() -> None:
    """Same object, same connections."""
    world = World(SPEC, OTHER)
    before = world.registry.get("p")
    world.registry.reload(config(SPEC, OTHER))
    assert world.registry.get("p") is before
    assert len(world.made) == 2


@pytest.mark.parametrize(
    "change", [{"api_key": "sk-new"}, {"timeouts": Timeouts(total=1)}, {"base_url": "http://provider.example/v2"}]
)
async def test_a_changed_provider_keeps_its_connections(change: dict[str, Any]) -> None:
    """Keys, time-outs and paths are not part of an origin."""
    world = World(SPEC)
    before = world.registry.get("p")
    world.registry.reload(config(attrs.evolve(SPEC, **change)))
    assert world.registry.get("p") is not before
    assert len(world.made) == 1


@pytest.mark.parametrize("change", [{"base_url": "http://other.example/v1"}, {"http2": True}, {"proxy": "http://x"}])
async def test_another_origin_gets_connections_of_its_own(change: dict[str, Any]) -> None:
    """The old ones are closed once no call can be using them."""
    world = World(SPEC)
    world.registry.reload(config(attrs.evolve(SPEC, **change)))
    assert [script.aborted for script in world.made] == [False, False]
    for _ in range(5):
        await asyncio.sleep(0)
    assert [script.aborted for script in world.made] == [True, False]


async def test_s2_two_providers_never_share_connections() -> None:
    """Even at the same origin: their keys differ."""
    assert len(World(SPEC, OTHER).made) == 2


async def test_calls_in_flight_still_find_a_removed_provider() -> None:
    """For as long as one of them may live; then it is gone."""
    world = World(SPEC, OTHER)
    world.registry.reload(config(OTHER))
    assert isinstance(world.registry.get("p"), OpenAIProvider)
    for _ in range(5):
        await asyncio.sleep(0)
    with pytest.raises(UpstreamFailure) as missing:
        world.registry.get("p")
    assert not missing.value.sent


async def test_o4_connections_of_a_removed_provider_are_counted_until_they_are_closed() -> None:
    """An origin that changed has two pools for a while: a call that is stuck in the old one is still seen."""
    world = World(SPEC)
    world.made[0].pool = PoolStats(idle=1, busy=2)
    world.registry.reload(config(attrs.evolve(SPEC, base_url="http://other.example/v1")))
    world.made[1].pool = PoolStats(idle=3, busy=4)
    assert world.registry.stats() == {"p": PoolStats(idle=4, busy=6)}
    world.made[0].pool = PoolStats(idle=0, busy=0)
    for _ in range(5):
        await asyncio.sleep(0)
    assert world.registry.stats() == {"p": PoolStats(idle=3, busy=4)}


async def test_close_closes_everything() -> None:
    """What was removed a moment ago, too."""
    world = World(SPEC, OTHER)
    world.registry.reload(config(OTHER))
    await world.registry.close()
    assert all(script.aborted for script in world.made)


@pytest.mark.parametrize(
    ("spec", "transport"),
    [
        (SPEC, LlhttpUpstream),
        (attrs.evolve(SPEC, http2=True), HttpxUpstream),
        (attrs.evolve(SPEC, proxy="http://127.0.0.1:1"), HttpxUpstream),
        (attrs.evolve(SPEC, kind=ProviderKind.DEMO, base_url=""), DemoUpstream),
    ],
)
async def test_each_spec_gets_its_transport(spec: ProviderSpec, transport: type) -> None:
    """Lean HTTP/1.1 unless something else is asked for."""
    line = open_line(spec, lambda: 0)
    assert isinstance(line, transport)
    await line.close()
