"""
What may this call cost at most, and where may it run?

Before the store is asked: the model exists, the key may call it, and - under a budget - everything
that decides its price is known. The result is a `Prepared` call or the `Refusal` that says what is
missing. Rules of the bound (semantics 9-14):

Rule 1: a byte-level BPE token is at least one byte of text, so text bytes bound text tokens;
        1,024 tokens are added for templates and preambles.
Rule 2: output is bounded by the limit the client named, clamped to the target's ceiling; none
        named: by the ceiling. The limit sent is the limit held for.
Rule 3: the dearest target counts.
Rule 4: without a budget nothing is set, clamped or refused.
"""

import attrs

from perpetuo.domain.model.chat import Ask, CallRequest, Kind
from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.domain.model.models import CATCH_ALL, Bound, Model, Target
from perpetuo.domain.model.money import TOKENS_PER_RATE, ZERO, Nano
from perpetuo.domain.model.records import record
from perpetuo.domain.model.settings import Settings, WhenShort
from perpetuo.domain.model.tenants import Caller

PREAMBLE_TOKENS = 1_024
LOWERED_OUTPUT_TOKENS = 256
"""The least output a lowered call is still worth making for."""


@record
class Prepared:
    """A call that may be admitted."""

    caller: Caller
    request: CallRequest
    settings: Settings
    model: Model
    """With the targets of this call: those of the catch-all carry the asked name and its price."""
    input_bound: int
    """Input tokens at most."""
    limit: int | None
    """Output limit to send (tokens per answer), where a target's own ceiling is not lower; ``None``: nothing is set."""
    hold: Nano
    hold_min: Nano

    @property
    def targets(self) -> tuple[Target, ...]:
        return self.model.targets

    @property
    def deadline(self) -> float:
        """Monotonic seconds at which the call must be over, whatever it waits for until then."""
        total, asked = self.model.longest_total, self.request.timeout
        return self.request.started + (total if asked is None else min(total, asked))

    @property
    def label(self) -> str:
        """The configured name, for metrics and rows: never a client's text."""
        return self.model.name


def prepare(settings: Settings, caller: Caller, request: CallRequest) -> Prepared | Refusal:
    """Find the model and bound the call's cost."""
    ask = request.ask
    model = settings.models.find(ask.model)
    if model is None:
        return Refusal(
            Reason.MODEL_NOT_FOUND,
            f"The model {shown(ask.model)} does not exist here. GET /v1/models lists what your key may call.",
            "model",
        )
    if not caller.may_call(ask.model):
        return Refusal(
            Reason.MODEL_NOT_ALLOWED,
            f"Your key may not call the model {shown(ask.model)}. GET /v1/models lists what it may.",
            "model",
        )
    return _priced(settings, caller, request, resolve(settings, model, ask.model))


def prepare_replay(settings: Settings, caller: Caller, request: CallRequest) -> Prepared | None:
    """The call as far as its idempotency key needs it, whatever it costs; ``None``: not one of this caller's models."""
    model = settings.models.find(request.ask.model)
    if model is None or not caller.may_call(request.ask.model):
        return None
    model = resolve(settings, model, request.ask.model)
    return Prepared(caller, request, settings, model, input_bound=0, limit=None, hold=ZERO, hold_min=ZERO)


def prepare_larger(prepared: Prepared) -> Prepared | Refusal:
    """The same call at the model that takes more input, when the provider found its input too long."""
    name = prepared.model.larger_context or ""
    model = prepared.settings.models.by_name[name]
    return _priced(prepared.settings, prepared.caller, prepared.request, model)


def _priced(settings: Settings, caller: Caller, request: CallRequest, model: Model) -> Prepared | Refusal:
    if caller.has_budget:
        refusal = _not_bounded(request.ask) or _not_priced(model, request.ask)
        if refusal is not None:
            return refusal
    return _bounded(settings, caller, request, model)


def resolve(settings: Settings, model: Model, asked: str) -> Model:
    """The model with this call's targets: the catch-all's take the asked name and its price from the catalogue."""
    if model.name != CATCH_ALL:
        return model
    known = settings.catalogue.get(asked)
    targets = tuple(
        attrs.evolve(
            target,
            model=asked if target.model == CATCH_ALL else target.model,
            price=target.price or (known.price if known else None),
            max_output_tokens=target.max_output_tokens or (known.max_output_tokens if known else None),
            context_window=target.context_window or (known.context_window if known else None),
        )
        for target in model.targets
    )
    return attrs.evolve(model, targets=targets)


def _not_bounded(ask: Ask) -> Refusal | None:
    if ask.lifts_limit is not None:
        return Refusal(
            Reason.INVALID_REQUEST,
            f"{ask.lifts_limit} is not accepted under a budget, because some providers let it lift the output "
            "limit. Use max_tokens or max_completion_tokens.",
            ask.lifts_limit,
        )
    if ask.unbounded is not None:
        return Refusal(
            Reason.COST_NOT_BOUNDED,
            f"{ask.unbounded} makes the cost of this call unknown beforehand, and your key has a budget. "
            "Leave it out, or ask the operator for a key without a budget.",
            ask.unbounded,
        )
    return None


def _not_priced(model: Model, ask: Ask) -> Refusal | None:
    if model.is_priced:
        return None
    return Refusal(
        Reason.MODEL_NOT_PRICED,
        f"The model {shown(ask.model)} has no price here, and your key has a budget. "
        "The operator can set `price:` (or `free: true`) for it.",
        "model",
    )


def _bounded(settings: Settings, caller: Caller, request: CallRequest, model: Model) -> Prepared | Refusal:
    ask, budgeted = request.ask, caller.has_budget
    lowered = budgeted and settings.when_short is WhenShort.LOWER and ask.output_limit is None
    most_input = most_output = 0
    hold = least = ZERO
    for target in model.targets:
        tokens, limit = input_bound(ask, model.bound, target), output_limit(ask, target)
        if budgeted and tokens is None:
            return _media_refusal(ask)
        if budgeted and limit is None:
            return _limit_refusal(ask)
        tokens, limit = tokens or 0, limit or 0
        most_input, most_output = max(most_input, tokens), max(most_output, limit)
        if target.price is not None:
            hold = max(hold, target.price.at_most(tokens, ask.choices * limit))
            if lowered:
                worth = ask.choices * min(limit, LOWERED_OUTPUT_TOKENS)
                least = max(least, target.price.at_most(tokens, worth))
    return Prepared(
        caller=caller,
        request=request,
        settings=settings,
        model=model,
        input_bound=most_input,
        limit=_limit_to_send(ask, most_output) if budgeted else None,
        hold=hold,
        hold_min=least if lowered else hold,
    )


def input_bound(ask: Ask, bound: Bound, target: Target) -> int | None:
    """Most input tokens of ``ask`` at ``target``; ``None`` when a part of it has no bound."""
    tokens = ask.text_bytes + PREAMBLE_TOKENS
    if not (ask.images or ask.audios or ask.files):
        return tokens
    for count, most in (
        (ask.images, bound.image_tokens),
        (ask.audios, bound.audio_tokens),
        (ask.files, bound.file_tokens),
    ):
        if count:
            each = most if most is not None else target.context_window
            if each is None:
                return None
            tokens += count * each
    return tokens


def output_limit(ask: Ask, target: Target) -> int | None:
    """Most output tokens of one answer at ``target``; ``None``: unknown. 0 where nothing is generated or free."""
    if ask.kind is Kind.EMBEDDINGS:
        return 0
    named, ceiling = ask.output_limit, target.max_output_tokens
    if named is None or ceiling is None:
        limit = named if named is not None else ceiling
        return 0 if limit is None and target.price is not None and not target.price.rates.output else limit
    return min(named, ceiling)


def _limit_to_send(ask: Ask, largest: int) -> int | None:
    """The limit to write into the body, before a target's own ceiling; ``None``: leave the body alone."""
    if ask.kind is Kind.EMBEDDINGS or (largest == 0 and ask.output_limit is None):
        return None
    return largest


def _limit_refusal(ask: Ask) -> Refusal:
    return Refusal(
        Reason.INVALID_REQUEST,
        f"The model {shown(ask.model)} has no known output limit, and your key has a budget: "
        "set max_tokens or max_completion_tokens.",
        "max_tokens",
    )


def affordable_limit(prepared: Prepared, granted: Nano) -> int | None:
    """The output limit a granted hold pays for at every target; the prepared limit when it was granted whole."""
    if prepared.limit is None or granted >= prepared.hold:
        return prepared.limit
    limit = prepared.limit
    for target in prepared.targets:
        price = target.price
        if price is None:
            continue
        dearest = max(r.output for r in (price.rates, *(tier.rates for tier in price.tiers)))
        if dearest:
            left = granted - price.at_most(prepared.input_bound, 0)
            limit = min(limit, max(0, left) * TOKENS_PER_RATE // (dearest * prepared.request.ask.choices))
    return limit


def _media_refusal(ask: Ask) -> Refusal:
    what = "image" if ask.images else "audio" if ask.audios else "file"
    return Refusal(
        Reason.COST_NOT_BOUNDED,
        f"The cost of {what} input to {shown(ask.model)} is not bounded, and your key has a budget. "
        f"The operator can set `bound: {{{what}Tokens: …}}` for the model.",
        "messages",
    )


def shown(name: str) -> str:
    """A client's text in a message: quoted, printable, at most 64 characters."""
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name[:64])
    return f"'{text}{'…' if len(name) > 64 else ''}'"
