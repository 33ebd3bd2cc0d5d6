"""
Who calls what, and under which limits? The configuration of a run, and how it is changed while it goes on.

Limits are only ever raised, so that at every moment it is known what can have been allowed at most.
"""

from collections.abc import Sequence
from decimal import Decimal
from hashlib import sha256

import attrs

from tests.chaos.evidence import Limit, Price

LEASE = 5
TOTAL = 8
PRICES = {"steady": Price(1_000, 10_000), "spare": Price(2_000, 5_000), "odd": Price(1_000, 10_000)}
"""By the model's name at the provider; nano-USD a token are USD per thousand million tokens."""
ODD = "status=500,chance=0.1", "end=reset,after=2,chance=0.1", "usage=no,chance=0.5", "status=400,chance=0.3"
"""How the odd models misbehave all the time."""
BEHAVIOURS = {f"odd-{n}": behaviour for n, behaviour in enumerate(ODD)}
CALM = "delay=0.3,gap=0.04"
"""How the others answer: calls that take a while are there to be cut."""
PRICES |= dict.fromkeys(BEHAVIOURS, PRICES["odd"])
STORMY = ("steady", "spare")
"""Upstream models that have a storm now and then."""
TENANTS = ("tight", "short", "keyed", "twin", "busy", "crowd")
GUEST = "guest"
"""A key of busy's that is taken away and given back."""


def api_key(tenant: str, name: str) -> str:
    return f"sk-chaos-{tenant}-{name}-0123456789"


@attrs.frozen
class Stage:
    """The configuration at one moment."""

    provider: str
    """Base URL of the upstream."""
    raised: int = 0
    """How often limits were raised."""
    guest: bool = True
    """Does the guest's key exist?"""

    @property
    def rate(self) -> int:
        """Calls a minute of the tenant ``tight``."""
        return 40 + 10 * self.raised

    @property
    def key_rate(self) -> int:
        """Calls a minute of the key ``a`` of the tenant ``crowd``."""
        return 25 + 5 * self.raised

    @property
    def budget(self) -> int:
        """Nano-USD a day of the tenant ``short``."""
        return 20_000_000 + 10_000_000 * self.raised

    def limits(self, at: float) -> Sequence[Limit]:
        """For the checker: what is allowed from now on."""
        return [
            Limit(at, "tight", rate=self.rate),
            Limit(at, "crowd/a", rate=self.key_rate),
            Limit(at, "crowd/b", budget=self.budget),
            Limit(at, "short", budget=self.budget),
            *(Limit(at, name, budget=1_000_000_000_000) for name in ("tight", "keyed", "twin", "crowd")),
        ]

    def text(self) -> str:
        """``perpetuo.config.yaml``."""
        return f"""
providers:{self._provider("steady")}{self._provider("spare")}{self._provider("odd")}
models:
  - {{name: m, maxOutputTokens: 40, targets: [
      {{provider: steady, model: steady, {_price("steady")}}},
      {{provider: spare, model: spare, priority: 1, {_price("spare")}}}]}}
  - {{name: s, maxOutputTokens: 40, targets: [{{provider: steady, model: steady, {_price("steady")}}}]}}
{"".join(_odd(name) for name in BEHAVIOURS)}
tenants:
  - {{id: tight, limits: {{rateLimitMin: {self.rate}, budgetDay: 1000}}, apiKeys: [{_key("tight")}]}}
  - {{id: short, limits: {{budgetDay: {_usd(self.budget)}}}, apiKeys: [{_key("short")}], timeZone: Asia/Kolkata}}
  - {{id: keyed, limits: {{budgetDay: 1000}}, apiKeys: [{_key("keyed")}]}}
  - {{id: twin, limits: {{budgetDay: 1000, budgetMonth: 10000}}, apiKeys: [{_key("twin")}]}}
  - id: busy
    limits: {{budgetDay: unlimited}}
    apiKeys: [{_key("busy")}{", " + _key("busy", GUEST) if self.guest else ""}]
  - id: crowd
    limits: {{budgetDay: 1000}}
    timeZone: America/St_Johns
    apiKeys:
      - {_key("crowd", "a", f"rateLimitMin: {self.key_rate}")}
      - {_key("crowd", "b", f"budgetDay: {_usd(self.budget)}")}
      - {_key("crowd", "c", "concurrency: 2")}
idempotency: {{lease: {LEASE}s}}
retry: {{backoff: 100ms, maxBackoff: 1s, budget: 0.5}}
server: {{drainDelay: 500ms}}
redis: {{timeout: 250ms}}
"""

    def _provider(self, name: str) -> str:
        return f"""
  - id: {name}
    kind: openai
    baseUrl: {self.provider}
    timeouts: {{connect: 2s, firstToken: 2s, idle: 2s, total: {TOTAL}s}}
    breaker: {{minimumCalls: 20, window: 5s, openFor: 2s}}"""


def _odd(name: str) -> str:
    return f"  - {{name: {name}, maxOutputTokens: 40, targets: [{{provider: odd, model: {name}, {_price('odd')}}}]}}\n"


def _price(model: str) -> str:
    price = PRICES[model]
    per_million = (Decimal(nano) / 1_000 for nano in (price.input, price.output))
    return "price: {{inputPerMTok: {}, outputPerMTok: {}}}".format(*per_million)


def _usd(nano: int) -> str:
    return f"{Decimal(nano) / 1_000_000_000}"


def _key(tenant: str, name: str = "main", limits: str = "") -> str:
    digest = sha256(api_key(tenant, name).encode()).hexdigest()
    return f'{{hash: "sha256:{digest}", name: {name}{f", limits: {{{limits}}}" if limits else ""}}}'
