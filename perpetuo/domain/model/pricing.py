"""What does a model cost: exactly afterwards, at most beforehand?"""

import attrs

from perpetuo.domain.model.money import Nano, Rate, ceil_per_million
from perpetuo.domain.model.usage import Usage


@attrs.frozen
class Rates:
    """Nano-USD per million tokens."""

    input: Rate
    output: Rate
    cached_input: Rate

    def at_most(self, input_tokens: int, output_tokens: int) -> Nano:
        """What so many tokens cost at most, cached or not."""
        return ceil_per_million(input_tokens * max(self.input, self.cached_input) + output_tokens * self.output)


@attrs.frozen
class Tier:
    """Rates that apply to the whole call once its input passes ``above`` tokens."""

    above: int
    rates: Rates


@attrs.frozen
class Price:
    """A model's price: base rates, dearer tiers for long inputs (ascending), and where it came from."""

    rates: Rates
    tiers: tuple[Tier, ...] = ()
    version: str = "config"

    def charge(self, usage: Usage) -> Nano:
        """What ``usage`` costs, rounded up to a nano-USD."""
        rates = self.rates
        for tier in self.tiers:
            if usage.input_tokens > tier.above:
                rates = tier.rates
        cached = min(usage.cached_tokens, usage.input_tokens)
        return ceil_per_million(
            (usage.input_tokens - cached) * rates.input
            + cached * rates.cached_input
            + usage.output_tokens * rates.output
        )

    def at_most(self, input_tokens: int, output_tokens: int) -> Nano:
        """The most that up to so many tokens can cost: the dearest reachable tier, caching or not."""
        most = self.rates.at_most(input_tokens, output_tokens)
        for tier in self.tiers:
            if input_tokens > tier.above:
                most = max(most, tier.rates.at_most(input_tokens, output_tokens))
        return most


FREE = Price(Rates(Rate(0), Rate(0), Rate(0)), version="free")


@attrs.frozen
class CatalogueEntry:
    """What the shipped catalogue knows of a model: price, and its sizes in tokens where known."""

    price: Price
    context_window: int | None = None
    max_output_tokens: int | None = None
