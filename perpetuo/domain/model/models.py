"""What can be called, and where does it run?"""

from collections.abc import Mapping
from enum import Enum
from functools import cached_property

import attrs

from perpetuo.domain.model.pricing import Price

CATCH_ALL = "*"
"""Name of the model entry that takes every name not configured otherwise."""


class ProviderKind(Enum):
    OPENAI = "openai"
    DEMO = "demo"


@attrs.frozen
class Timeouts:
    """Seconds. ``first_token`` and ``idle`` are for streams only."""

    connect: float = 5.0
    first_token: float = 60.0
    idle: float = 120.0
    total: float = 600.0


@attrs.frozen
class BreakerPolicy:
    """When does a provider's breaker open, and for how long? Times in microseconds."""

    failure_rate: float = 0.5
    minimum_calls: int = 20
    window_us: int = 10_000_000
    consecutive_connect_failures: int = 5
    open_us: int = 30_000_000
    probe_lease_us: int = 10_000_000


@attrs.frozen
class ProviderSpec:
    """A provider as configured."""

    id: str
    kind: ProviderKind
    base_url: str = ""
    api_key: str | None = attrs.field(default=None, repr=False)
    timeouts: Timeouts = Timeouts()
    breaker: BreakerPolicy = BreakerPolicy()
    http2: bool = False
    proxy: str | None = attrs.field(default=None, repr=False)
    loopback: bool = False
    """Is the provider on this machine? (demo, 127.0.0.0/8, ::1, localhost)"""


@attrs.frozen
class Target:
    """One place a model can run. Lower ``priority`` first; equal priorities share by ``weight``."""

    provider: str
    model: str
    weight: int = 1
    priority: int = 0
    price: Price | None = None
    """``None``: unpriced. Under a budget such a call is refused."""
    max_output_tokens: int | None = None
    """The model's ceiling on output; ``None``: unknown."""
    max_tokens_field: str | None = None
    """The name under which this target takes the output limit; ``None``: as the client wrote it."""
    timeouts: Timeouts = Timeouts()
    context_window: int | None = None


@attrs.frozen
class Bound:
    """Most tokens one part of each kind can cost as input; ``None``: unknown, so refused under a budget."""

    image_tokens: int | None = None
    audio_tokens: int | None = None
    file_tokens: int | None = None


@attrs.frozen
class Model:
    """A model as clients see it."""

    name: str
    targets: tuple[Target, ...]
    larger_context: str | None = None
    bound: Bound = Bound()

    @cached_property
    def longest_total(self) -> float:
        """Seconds: the most that any of its targets may take."""
        return max(target.timeouts.total for target in self.targets)

    @cached_property
    def is_priced(self) -> bool:
        """Does every target have a price?"""
        return all(target.price is not None for target in self.targets)


@attrs.frozen
class RetryPolicy:
    """How often and how patiently a call is tried. Seconds; ``budget`` is retries per request."""

    attempts: int = 3
    backoff: float = 0.25
    max_backoff: float = 8.0
    budget: float = 0.1


@attrs.frozen
class ModelTable:
    """Every configured model by name; `find` falls back to the catch-all."""

    by_name: Mapping[str, Model]

    def find(self, name: str) -> Model | None:
        return self.by_name.get(name) or self.by_name.get(CATCH_ALL)
