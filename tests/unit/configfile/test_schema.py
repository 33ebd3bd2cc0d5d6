"""Do editors and readers see what the loader accepts?"""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from perpetuo.adapters.configfile import load_text
from scripts import generate_schema
from tests.unit.configfile.samples import VALID, problems
from tests.unit.configfile.test_settings import EVERYTHING

ROOT = Path(__file__).parents[3]


class _Words(yaml.SafeLoader):
    """Dates stay text, as in JSON."""


_Words.yaml_implicit_resolvers = {
    key: [(tag, rule) for tag, rule in rules if not tag.endswith("timestamp")]
    for key, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def invalid(text: str) -> bool:
    """What an editor says with the committed schema."""
    value: Any = yaml.load(text, _Words)  # noqa: S506 - a safe loader
    return not Draft202012Validator(json.loads(generate_schema.SCHEMA.read_text())).is_valid(value)


def test_contract_the_committed_schema_is_the_loaders() -> None:
    """Whoever changes a setting runs scripts/generate_schema.py."""
    assert generate_schema.SCHEMA.read_text() == generate_schema.schema_text()


@pytest.mark.parametrize("text", [VALID, EVERYTHING, (ROOT / "perpetuo.config.yaml").read_text()])
def test_contract_the_schema_accepts_what_the_loader_accepts(text: str) -> None:
    """An editor shows no red line under a configuration that works."""
    load_text(text, {"OPENAI_API_KEY": "x"})
    assert not invalid(text)


@pytest.mark.parametrize(
    "line",
    [
        "retry: {attempts: 0}",
        "retry: {attempts: many}",
        "retry: {tries: 3}",
        "redis: {timeout: 5 minutes}",
        "errors: {budgetStatus: 404}",
        "server: {requestMaxBytes: 1 MegaByte}",
        "admin: {keys: [{name: a, hash: md5}]}",
        "admin: {keys: [{name: a}]}",
        "audit: []",
    ],
)
def test_contract_the_schema_refuses_what_the_loader_refuses(line: str) -> None:
    """Simple mistakes are seen while typing."""
    assert problems(f"{VALID}{line}\n")
    assert invalid(f"{VALID}{line}\n")
