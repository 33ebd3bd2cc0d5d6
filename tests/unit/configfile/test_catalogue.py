"""Are the shipped prices exact, found under the right names, and never guessed?"""

import json
from pathlib import Path

import pytest

from perpetuo.adapters.configfile import ConfigError, load_catalogue
from perpetuo.adapters.configfile.catalogue import SHIPPED
from perpetuo.domain.model.pricing import CatalogueEntry
from perpetuo.domain.model.usage import Usage


def test_b1_shipped_rates_are_whole_nano_usd() -> None:
    """$2.50 a million tokens is 2,500,000,000 nano-USD a million, to the digit."""
    rates = load_catalogue()["gpt-4o"].price.rates
    assert (rates.input, rates.output, rates.cached_input) == (2_500_000_000, 10_000_000_000, 1_250_000_000)


def test_b8_long_inputs_cost_their_tier() -> None:
    """A model that is dearer for long inputs has the dearer rates beyond its limit, for the whole call."""
    price = load_catalogue()["claude-sonnet-4-5"].price
    assert price.charge(Usage(200_000, 0)) == 600_000_000
    assert price.charge(Usage(200_001, 0)) == 1_200_006_000


@pytest.mark.parametrize("name", ["gpt-4o-2031-08-06", "gpt-4o-20310806", "gpt-4o@20310806", "gpt-4o-latest"])
def test_contract_a_snapshot_costs_what_its_model_costs(name: str) -> None:
    """The mark of a snapshot at the end of a name is known; the model in front of it decides."""
    catalogue = load_catalogue()
    assert catalogue.get(name) == catalogue["gpt-4o"]


@pytest.mark.parametrize("name", ["gpt-4o-pro-max", "gpt-4o-", "gpt", "", "*", "ft:gpt-4o:me", "-latest", "GPT-4O"])
def test_b2_an_unknown_name_has_no_price(name: str) -> None:
    """Nothing is guessed: the wrong price would let a budget be passed."""
    assert load_catalogue().get(name) is None


def test_b2_models_paid_for_otherwise_are_left_out() -> None:
    """Speech by the hour and pictures have no price in tokens; dearer audio input leaves no context window."""
    catalogue = load_catalogue()
    assert not {"whisper-1", "gpt-4o-audio-preview", "sonar-deep-research"} & set(catalogue)
    assert catalogue["gemini-2.5-flash"].context_window is None
    assert catalogue["gpt-3.5-turbo"].context_window == 16_385


def test_contract_every_entry_says_where_its_price_came_from() -> None:
    """The version goes into events, so that a charge can be explained later."""
    catalogue = load_catalogue()
    assert len(catalogue) > 1_000
    assert catalogue.version.startswith("genai-prices ")
    assert {entry.price.version for entry in catalogue.values()} == {catalogue.version}


def test_contract_the_shipped_catalogue_can_be_made_again() -> None:
    """What is committed is what the script makes of the package it names."""
    genai = pytest.importorskip("genai_prices")
    assert genai
    from importlib.metadata import version

    from scripts.refresh_catalogue import entries

    shipped = json.loads(SHIPPED.read_text())
    source, number, day = shipped["version"].split()
    if version(source) != number:
        pytest.skip(f"{source} {number} is not installed")
    from datetime import date

    assert entries(date.fromisoformat(day)) == shipped["models"]


def test_contract_another_catalogue_can_be_named(tmp_path: Path) -> None:
    """PERPETUO_CATALOGUE_PATH takes the place of the shipped prices."""
    path = tmp_path / "prices.json"
    path.write_text('{"version": "ours", "models": {"m": {"rates": [1, 2, 3], "output": 7}}}')
    entry: CatalogueEntry = load_catalogue(path)["m"]
    assert (entry.price.rates.output, entry.max_output_tokens, entry.price.version) == (2, 7, "ours")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"version": 1, "models": {"m": {}}}', '{"version": "", "models": {"m": {"rates": [0.5, 1, 1]}}}'],
)
def test_contract_a_catalogue_that_is_none_is_told(tmp_path: Path, text: str) -> None:
    """A file with something else in it is a problem with the file's name."""
    path = tmp_path / "prices.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"prices\.json:1:1: is no catalogue"):
        load_catalogue(path)
    with pytest.raises(ConfigError, match=r"none\.json:1:1: can't be read"):
        load_catalogue(tmp_path / "none.json")
