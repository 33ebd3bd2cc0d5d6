"""
What does a model cost when the configuration does not say?

Rule 1: prices are those of standard, synchronous text calls, as integers of nano-USD per million tokens, made by
        ``scripts/refresh_catalogue.py`` and shipped as ``catalogue.json``; nothing is fetched.
Rule 2: a name is looked up as it is written; then without the mark of a snapshot at its end (``-2024-08-06``,
        ``-20240806``, ``@20240806``, ``-latest``). Nothing else is guessed: a model without a price is refused under
        a budget, a model with a wrong one is not.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from perpetuo.adapters.configfile.problems import ConfigError, Problem
from perpetuo.domain.model.money import Rate
from perpetuo.domain.model.pricing import CatalogueEntry, Price, Rates, Tier

SHIPPED = Path(__file__).with_name("catalogue.json")
_SNAPSHOT = re.compile(r"(?:[-@]20\d{2}-?[01]\d-?[0-3]\d|-latest)$")


class Catalogue(Mapping[str, CatalogueEntry]):
    """Entries by model name; a look-up also finds a model by the name of one of its snapshots."""

    def __init__(self, version: str, entries: Mapping[str, CatalogueEntry]) -> None:
        self.version = version
        self._entries = entries

    def __getitem__(self, name: str) -> CatalogueEntry:
        found = self._entries.get(name)
        return found if found is not None else self._entries[_SNAPSHOT.sub("", name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Catalogue({self.version}, {len(self)} models)"


EMPTY = Catalogue("empty", {})


def load_catalogue(path: Path | None = None) -> Catalogue:
    """The catalogue in ``path``, or the shipped one; raises `ConfigError`."""
    return _shipped() if path is None else _read(path)


@cache
def _shipped() -> Catalogue:
    return _read(SHIPPED)


def _read(path: Path) -> Catalogue:
    try:
        content = json.loads(path.read_bytes())
        version = str(content["version"])
        entries = {str(name): _entry(item, version) for name, item in content["models"].items()}
    except OSError as error:
        raise ConfigError([Problem(str(path), 1, 1, "", f"can't be read: {error.strerror}")]) from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        message = f"is no catalogue of prices as scripts/refresh_catalogue.py writes it ({error})"
        raise ConfigError([Problem(str(path), 1, 1, "", message)]) from None
    return Catalogue(version, entries)


def _entry(item: Mapping[str, Any], version: str) -> CatalogueEntry:
    tiers = tuple(Tier(_count(above), _rates(rates)) for above, *rates in item.get("tiers", ()))
    context, output = item.get("context"), item.get("output")
    return CatalogueEntry(
        Price(_rates(item["rates"]), tiers, version),
        None if context is None else _count(context),
        None if output is None else _count(output),
    )


def _rates(values: list[Any]) -> Rates:
    given, output, cached = map(_count, values)
    return Rates(Rate(given), Rate(output), Rate(cached))


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("rates and sizes are whole numbers ≥ 0")
    return value
