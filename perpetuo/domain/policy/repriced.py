"""
What is a recorded call's model under a configuration, and what would the call cost there?

A price that does not change charges what was charged then. What was used and is known is charged at the new price of
where it ran. What is not known (a dead worker, usage not reported) costs what it cost, times what its price has
changed. So does what a call holds, by the dearer of the two rates: an upper bound, where prices change.
"""

import attrs

from perpetuo.domain.model.errors import Reason
from perpetuo.domain.model.models import CATCH_ALL, Model, Target
from perpetuo.domain.model.pricing import Price
from perpetuo.domain.model.recorded import Recorded
from perpetuo.domain.model.settings import Settings
from perpetuo.domain.model.tenants import Caller
from perpetuo.domain.model.usage import Usage


@attrs.frozen
class Priced:
    """What a model is under both configurations, for one key."""

    refusal: Reason | None
    before: Price
    after: Price

    def cost(self, row: Recorded) -> int:
        if self.before == self.after:
            return row.cost
        if row.is_reported:
            return self.after.charge(Usage(row.input_tokens, row.output_tokens, row.cached_tokens))
        return self.scaled(row.cost)

    def scaled(self, amount: int) -> int:
        """An amount that no tokens explain, at the new price (rule 4)."""
        old, new = self.before.rates, self.after.rates
        if self.before == self.after or not amount:
            return amount
        pairs = [(o, n) for o, n in ((old.input, new.input), (old.output, new.output)) if o]
        return max((-(-amount * n // o) for o, n in pairs), default=amount)


def asked_name(row: Recorded) -> str:
    """What the client asked for: under the catch-all the row knows it by where it ran."""
    return row.upstream_model or row.model if row.model == CATCH_ALL else row.model


def model_of(settings: Settings, row: Recorded) -> Model | None:
    return settings.models.find(asked_name(row))


def price_of(settings: Settings, model: Model | None, row: Recorded) -> Price | None:
    """The price where the call ran; ran there no longer, where it would be tried first."""
    if model is None or not model.targets:
        return None
    there = [t for t in model.targets if t.provider == row.provider and _name(t, row) == row.upstream_model]
    target = (there or sorted(model.targets, key=lambda t: t.priority))[0]
    known = settings.catalogue.get(asked_name(row)) if model.name == CATCH_ALL else None
    return target.price or (known.price if known else None)


def _name(target: Target, row: Recorded) -> str:
    return asked_name(row) if target.model == CATCH_ALL else target.model


def model_refusal(caller: Caller | None, model: Model | None, price: Price | None, row: Recorded) -> Reason | None:
    if model is None:
        return Reason.MODEL_NOT_FOUND
    if caller is not None and not caller.may_call(asked_name(row)):
        return Reason.MODEL_NOT_ALLOWED
    if caller is not None and caller.has_budget and price is None:
        return Reason.MODEL_NOT_PRICED
    return None
