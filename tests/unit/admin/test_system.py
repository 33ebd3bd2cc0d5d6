"""What an operator sees of the gateway itself: what it runs on, and the configuration in force without a secret."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perpetuo.adapters.configfile import schema
from perpetuo.entrypoints.http.admin.system.yaml import as_yaml
from tests.unit.admin.conftest import ADMIN_KEY, Desk, Markup, open_desk, settings_for

pytestmark = pytest.mark.anyio
CANARIES = {
    "provider": "sk-canary-provider-0123456789",
    "plain": "sk-canary-plain-0123456789abcdef",
    "hashed": "sk-canary-hashed-0123456789abcdef",
    "admin": "canary-admin-0123456789abcdef",
    "proxy": "canary-password-of-a-proxy",
}
HOST = "canary-host-from-a-variable"
"""Other pages show where a provider is; here it is as the file has it."""


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


CONFIG = f"""
providers:
  - id: first
    kind: openai
    baseUrl: https://example.com:8443/v1
    apiKey: ${{OPENAI_API_KEY}}
    proxy: "http://me:{CANARIES["proxy"]}@proxy.example.com:3128"
  - {{id: second, kind: openai, baseUrl: "${{SECOND_URL}}", apiKey: {CANARIES["provider"]}-2}}
models:
  - {{name: m, targets: [{{provider: first, model: gpt-4o}}], price: {{inputPerMTok: 0.5, outputPerMTok: 1.5}}}}
plans:
  - {{id: pro, limits: {{rateLimitMin: 100, budgetDay: 50, budgetMonth: 1000.25}}}}
tenants:
  - id: "no"
    plan: pro
    limits: {{budgetDay: 12.5, concurrency: 3}}
    apiKeys:
      - {CANARIES["plain"]}
      - {{hash: "sha256:{digest(CANARIES["hashed"])}", name: batch, expires: 2027-01-31, limits: {{budgetDay: 5}}}}
admin:
  keys:
    - {{name: bob, hash: "sha256:{digest(CANARIES["admin"])}", role: read}}
"""


@pytest.fixture
async def desk(environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    monkeypatch.setenv("OPENAI_API_KEY", CANARIES["provider"])
    monkeypatch.setenv("SECOND_URL", f"https://{HOST}.example.com/v1")
    made = await open_desk(environ | settings_for(tmp_path, config=CONFIG))
    yield made
    await made.close()


PLACES = ("/admin/system", "/admin/system/configuration", "/admin/system/configuration.yaml")


async def everything(desk: Desk) -> dict[str, httpx.Response]:
    """Whatever tells of the system."""
    await desk.sign_in()
    pages = {path: await desk.browser.get(path) for path in PLACES}
    return pages | {f"api/{path}": await desk.ask(path) for path in ("system", "system/configuration")}


async def test_s7_the_configuration_tells_no_secret(desk: Desk) -> None:
    """Not a key, not its hash, no password of an address, nothing that a variable said where secrets may be."""
    held = [secret.casefold() for text in CANARIES.values() for secret in (text, digest(text))]
    for path, answer in (await everything(desk)).items():
        assert answer.status_code == 200, path
        shown = answer.text.casefold()
        assert not [secret for secret in (*held, ADMIN_KEY.casefold()) if secret in shown], path
        assert not Markup(answer.text).inline, path
        assert HOST not in shown or "configuration" not in path, path


async def test_a_secret_is_named_by_its_variable(desk: Desk) -> None:
    """One that stands in the file is only said to be there; keys have their names."""
    found = (await desk.api("system/configuration"))["configuration"]
    first, second = found["providers"]
    assert (first["apiKey"], first["baseUrl"]) == ("${OPENAI_API_KEY}", "https://example.com:8443/v1")
    assert first["proxy"] == "http://proxy.example.com:3128"
    assert (second["apiKey"], second["baseUrl"]) == ("(set, not shown)", "${SECOND_URL}")
    assert [key["name"] for key in found["tenants"][0]["apiKeys"]] == ["key-1", "batch"]
    assert found["admin"]["keys"] == [{"name": "bob", "role": "read"}]


async def test_what_is_shown_is_what_counts(desk: Desk) -> None:
    """Limits of a plan stand at its tenant, money is exact, defaults are written out; the file is the same."""
    found = (await desk.api("system/configuration"))["configuration"]
    assert found["tenants"][0]["limits"] == {
        "rateLimitMin": 100, "concurrency": 3, "budgetDay": "12.5", "budgetMonth": "1000.25",
    }  # fmt: skip
    assert (found["audit"]["retention"], found["redis"]["timeout"]) == ("90d", "100ms")
    await desk.sign_in()
    answer = await desk.browser.get("/admin/system/configuration.yaml")
    assert yaml.safe_load(answer.text) == something(found)
    assert "attachment" in answer.headers["content-disposition"]


def rewrite(path: Path, text: str) -> None:
    path.write_text(text)


async def test_a_reload_is_seen(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also which variable a key came from, and when it was read."""
    before = await desk.api("system/configuration")
    rewrite(desk.container.environment.config_path, CONFIG.replace("OPENAI_API_KEY", "OTHER_KEY"))
    monkeypatch.setenv("OTHER_KEY", CANARIES["provider"])
    await desk.container.reload()
    after = await desk.api("system/configuration")
    assert after["configuration"]["providers"][0]["apiKey"] == "${OTHER_KEY}"
    assert (after["version"] != before["version"], after["read_at"] > before["read_at"]) == (True, True)
    worker = (await desk.api("system"))["workers"]["items"][0]
    assert (worker["config"], worker["same_as_this"]) == (after["version"], True)


async def test_the_system_says_what_its_stores_run_on(desk: Desk, blind_desk: Desk) -> None:
    """What can't be asked is not known."""
    software = (await desk.api("system"))["software"]
    assert software["SQLite"].startswith("3.")
    assert (await blind_desk.api("system"))["software"]["PostgreSQL"] is None


MEMBERS: tuple[tuple[type[Any], tuple[Any, ...], set[str]], ...] = (
    (schema.Provider, ("providers", 0), set()),
    (schema.Timeouts, ("providers", 0, "timeouts"), set()),
    (schema.Breaker, ("providers", 0, "breaker"), set()),
    (schema.Model, ("models", 0), {"price", "free", "maxOutputTokens", "maxTokensField", "timeouts"}),
    (schema.Target, ("models", 0, "targets", 0), {"free"}),
    (schema.Bound, ("models", 0, "bound"), set()),
    (schema.Retry, ("retry",), set()),
    (schema.Idempotency, ("idempotency",), set()),
    (schema.Audit, ("audit",), set()),
    (schema.Server, ("server",), set()),
    (schema.AdminKey, ("admin", "keys", 0), {"hash"}),
    (schema.Tenant, ("tenants", 0), set()),
    (schema.ApiKey, ("tenants", 0, "apiKeys", 0), {"hash"}),
    (schema.Limits, ("tenants", 0, "limits"), set()),
    (schema.ConfigFile, (), {"plans", "include"}),
)
"""What a file may say, where it is shown, and what stands elsewhere or nowhere."""


async def test_whatever_a_file_may_say_is_shown(desk: Desk) -> None:
    """A new member has to be shown, or it is decided here that it is not; a model's are shown at its targets."""
    whole = (await desk.api("system/configuration"))["configuration"]
    for part, section, elsewhere in MEMBERS:
        found = whole
        for step in section:
            found = found[step]
        assert {schema.camel(field.name) for field in attrs.fields(part)} - elsewhere <= set(found), part


NAMES = st.text(max_size=8)
SCALARS = NAMES | st.integers() | st.booleans() | st.floats(0, 1e6).filter(lambda x: "e" not in repr(x))


ANYTHING = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4))


@settings(max_examples=40)
@given(st.dictionaries(NAMES, ANYTHING, max_size=4))
@example(
    {"no": "on", "a\u2028b": ["- x", "", "\x85\ufeff", "\U00010000", {}], "#": {"x": [[1, "2"], []]}, "y": {"z": None}}
)
def test_yaml_reads_back_as_it_was(facts: dict[str, Any]) -> None:
    """Whatever the names are: what has nothing in it is left out, and the rest is the same."""
    assert (yaml.safe_load(as_yaml(facts)) or {}) == something(facts)


def something(value: Any) -> Any:
    """Without what has nothing in it."""
    nothing: tuple[Any, ...] = (None, [], {})
    if isinstance(value, dict):
        return {name: kept for name, member in value.items() if (kept := something(member)) not in nothing}
    return [kept for item in value if (kept := something(item)) not in nothing] if isinstance(value, list) else value
