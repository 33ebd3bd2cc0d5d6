"""Configurations for the tests in this folder."""

from collections.abc import Mapping

from perpetuo.adapters.configfile import ConfigError, load_text
from perpetuo.domain.model.settings import Settings

VALID = """\
providers:
  - {id: demo, kind: demo}
  - {id: openai, kind: openai, baseUrl: https://api.openai.com/v1, apiKey: sk-provider-secret}
models:
  - {name: gpt-4o, targets: [{provider: openai, model: gpt-4o}]}
  - {name: play, targets: [{provider: demo, model: play}]}
plans:
  - {id: pro, limits: {rateLimitMin: 100, budgetDay: 50}}
tenants:
  - {id: acme, plan: pro, apiKeys: [sk-acme-one]}
"""


def settings(text: str, variables: Mapping[str, str] | None = None) -> Settings:
    return load_text(text, variables or {}, file="c.yaml")


def problems(text: str, variables: Mapping[str, str] | None = None) -> list[str]:
    """What is wrong with ``text``, a line each; empty when it is valid."""
    try:
        settings(text, variables)
    except ConfigError as error:
        return [str(p) for p in error.problems]
    return []


def with_line(old: str, new: str) -> str:
    """`VALID` with a piece of it replaced."""
    assert old in VALID
    return VALID.replace(old, new)
