"""
Where do the prices in ``catalogue.json`` come from?

From the package genai-prices (extra ``dev``), as installed: ``python scripts/refresh_catalogue.py`` and commit. With
``--check`` it only says whether the committed file is what the installed package gives.

Rule 1: a model's price is its maker's; of a model that only others host, the dearest of theirs.
Rule 2: rates are integers of nano-USD; some in the package carry the noise of a float (0.18000000000000002), which is
        a billionth of a nano-USD and is rounded off. Of several rates in force at different hours, the dearest is
        taken; of several over time, the newest that has begun.
Rule 3: models that are paid for otherwise (by request, hour, page, picture) or whose output has a dearer kind than
        text are left out: their cost can't be bounded by tokens. So are those whose name says that they speak, draw or
        search, where the package only has their rates for text (gpt-4o-audio-preview).
Rule 4: a model whose images or audio cost more than text has no context window here, so that such input needs a
        ``bound`` in the configuration.
"""

import json
import re
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

from genai_prices import data_snapshot, types

TARGET = Path(__file__).parents[1] / "perpetuo" / "adapters" / "configfile" / "catalogue.json"
SOURCE = "genai-prices"

MAKERS = (
    "openai", "anthropic", "google", "mistral", "deepseek", "x-ai", "cohere", "moonshotai", "minimax", "zai",
    "voyageai",
)  # fmt: skip

# Most output tokens of one answer, from the makers' model pages; genai-prices does not have them.
MOST_OUTPUT = {
    "gpt-3.5-turbo": 4_096, "gpt-4": 8_192, "gpt-4-turbo": 4_096, "gpt-4o": 16_384, "gpt-4o-mini": 16_384,
    "gpt-4.1": 32_768, "gpt-4.1-mini": 32_768, "gpt-4.1-nano": 32_768, "gpt-5": 128_000, "gpt-5-mini": 128_000,
    "gpt-5-nano": 128_000, "o1": 100_000, "o3": 100_000, "o3-mini": 100_000, "o4-mini": 100_000,
    "claude-3-haiku": 4_096, "claude-3-opus": 4_096, "claude-3-5-haiku": 8_192, "claude-3-5-sonnet": 8_192,
    "claude-sonnet-4": 64_000, "claude-opus-4": 32_000,
    "gemini-1.5-flash": 8_192, "gemini-1.5-pro": 8_192, "gemini-2.0-flash": 8_192, "gemini-2.5-pro": 65_536,
}  # fmt: skip

TEXT = {"input_mtok", "output_mtok", "cache_read_mtok"}
# Paid only with options that are refused under a budget, or only on other APIs than OpenAI's.
OPTIONS = {"cache_write_mtok", "cache_write_1h_mtok", "web_searches_kcount", "storage_searches_kcount"}
OTHER_INPUT = {
    "input_audio_mtok",
    "input_image_mtok",
    "input_video_mtok",
    "cache_audio_read_mtok",
    "cache_image_read_mtok",
}

NOT_TEXT = re.compile(
    r"(?:^|[-/_.])(audio|realtime|tts|live|images?|transcribe|speech|voice|video|music|search|research|sonar|online)"
    r"(?:[-/_.:@]|$)"
)

Entry = dict[str, Any]


def main() -> int:
    catalogue = render(entries(date.today()))  # noqa: DTZ011 - prices begin on the operator's day
    if "--check" in sys.argv:
        fresh = _models(TARGET.read_text()) == _models(catalogue)
        print("up to date" if fresh else "run: python scripts/refresh_catalogue.py")
        return 0 if fresh else 1
    TARGET.write_text(catalogue)
    print(f"{TARGET}: {len(_models(catalogue))} models, {len(catalogue):,} bytes")
    return 0


def render(found: dict[str, Entry]) -> str:
    """One model a line, so that a refresh can be read as a diff."""
    head = f"{SOURCE} {version(SOURCE)} {datetime.now(UTC):%Y-%m-%d}"
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in sorted(found.items()))
    return f'{{"version": {json.dumps(head)}, "models": {{\n{lines}\n}}}}\n'


def _models(text: str) -> Any:
    return json.loads(text)["models"]


def entries(today: date) -> dict[str, Entry]:
    """Every model that can be priced by tokens, by each name it is called."""
    found: dict[str, Entry | None] = {}
    hosted: dict[str, Entry | None] = {}
    providers = {p.id: p for p in data_snapshot.get_snapshot().providers}
    for maker in MAKERS:
        for name, entry in _provider(providers.pop(maker), today):
            found.setdefault(name, entry)
    for provider in providers.values():
        for name, entry in _provider(provider, today):
            hosted[name] = _dearer(hosted[name], entry) if name in hosted else entry
    return {name: entry for name, entry in (hosted | found).items() if entry is not None}


def _dearer(one: Entry | None, other: Entry | None) -> Entry | None:
    """What a single host does not sell by tokens has no price."""
    return None if one is None or other is None else max(one, other, key=_dearness)


def _dearness(entry: Entry) -> tuple[int, int]:
    given, output, _ = entry["rates"]
    return given + output, output


def _provider(provider: types.Provider, today: date) -> Iterator[tuple[str, Entry | None]]:
    for model in provider.models:
        price = _price(model, today)
        entry = _entry(price, model.context_window)
        for name in _names(model):
            yield name, None if entry is None or NOT_TEXT.search(name) else _with_output(entry, name, model.id)


def _with_output(entry: Entry, *names: str) -> Entry:
    known = [MOST_OUTPUT[name] for name in names if name in MOST_OUTPUT]
    return entry | {"output": known[0]} if known else entry


def _names(model: types.ModelInfo) -> list[str]:
    """Names that are written out; a rule about beginnings or endings would price what it does not know."""
    exact = [c.equals for c in _clauses(model.match) if isinstance(c, types.ClauseEquals)]
    return list(dict.fromkeys([*([model.id] if model.is_match(model.id) else []), *exact]))


def _clauses(clause: Any) -> Iterator[Any]:
    if isinstance(clause, types.ClauseOr):
        for inner in clause.or_:
            yield from _clauses(inner)
    else:
        yield clause


def _price(model: types.ModelInfo, today: date) -> types.ModelPrice:
    prices = model.prices
    if not isinstance(prices, list):
        return prices
    begun = [p for p in prices if not _is_hourly(p) and _has_begun(p, today)]
    hourly = [p for p in prices if _is_hourly(p)]
    dearest = max([*begun[-1:], *hourly], key=lambda p: _base(p.prices.output_mtok or 0))
    return dearest.prices


def _is_hourly(price: types.ConditionalPrice) -> bool:
    return isinstance(price.constraint, types.TimeOfDateConstraint)


def _has_begun(price: types.ConditionalPrice, today: date) -> bool:
    starts = price.constraint
    return not isinstance(starts, types.StartDateConstraint) or starts.start_date <= today


def _base(price: Any) -> Decimal:
    return price.base if isinstance(price, types.TieredPrices) else Decimal(price)


def _entry(price: types.ModelPrice, context: int | None) -> Entry | None:
    paid = {name for name, value in vars(price).items() if value}
    if "input_mtok" not in paid or paid - TEXT - OPTIONS - OTHER_INPUT:
        return None
    steps = sorted({t.start for name in TEXT & paid for t in getattr(getattr(price, name), "tiers", ())})
    entry: Entry = {"rates": _rates(price, 0)}
    if steps:
        entry["tiers"] = [[above, *_rates(price, above + 1)] for above in steps]
    if context and not paid & OTHER_INPUT:
        entry["context"] = context
    return entry


def _rates(price: types.ModelPrice, tokens: int) -> list[int]:
    given = _rate(price.input_mtok, tokens)
    cached = given if price.cache_read_mtok is None else _rate(price.cache_read_mtok, tokens)
    return [given, 0 if price.output_mtok is None else _rate(price.output_mtok, tokens), cached]


def _rate(price: Any, tokens: int) -> int:
    """Nano-USD per million tokens at an input of so many tokens."""
    usd = _base(price)
    for tier in sorted(getattr(price, "tiers", ()), key=lambda t: t.start):
        if tokens > tier.start:
            usd = tier.price
    return int((usd * 1_000_000_000).to_integral_value())


if __name__ == "__main__":
    raise SystemExit(main())
