"""
Does ``perpetuo plan`` say what a configuration would have done? Over a real database, PostgreSQL or SQLite.

Ten calls of a minute, known to the microsecond, and what the command makes of them.
"""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from perpetuo.adapters.sql import Database, SqlEventStore
from perpetuo.domain.model.events import RefusalNote
from perpetuo.entrypoints.commands.group import main
from tests.contract.event_store_contract import event, sent

SECOND_US = 1_000_000
CONFIG = """
providers: [{{id: demo, kind: demo}}]
models: [{{name: m, targets: [{{provider: demo, model: demo}}], price: {{inputPerMTok: {price}, outputPerMTok: 2}}}}]
tenants:
  - id: acme
    limits: {{rateLimitMin: {rate}, budgetDay: 5}}
    apiKeys: [{{hash: "sha256:{digest}", name: {key}}}]
"""
DIGEST = "ab" * 32


def config(
    folder: Path, name: str, *, rate: int = 100, price: float = 1, digest: str = DIGEST, key: str = "web"
) -> Path:
    path = folder / name
    path.write_text(CONFIG.format(rate=rate, price=price, digest=digest, key=key))
    return path


async def record(url: str, *, refused: int = 0) -> None:
    """Ten calls of the last minute, 1,000 tokens each for 0.001 USD."""
    store = SqlEventStore(Database(url))
    now = time.time_ns() // 1_000 - 120 * SECOND_US
    calls: list[dict[str, Any]] = [
        {
            "at_us": now + n * SECOND_US, "tenant_id": "acme", "key_name": "web", "model": "m", "provider": "demo",
            "upstream_model": "demo", "input_tokens": 1_000, "output_tokens": 0, "cached_tokens": 0,
            "cost_nano_usd": 1_000_000, "hold_nano_usd": 3_000_000, "latency_ms": 20.0, "kind": "chat",
            "decision": {"admit_ms": 0.5, "kept": 0}, "usage_basis": "reported",
            "budget_day": time.strftime("%Y-%m-%d"),
        }
        for n in range(10)
    ]  # fmt: skip
    assert await store.write([sent(event(**call)) for call in calls]) == 0
    if refused:
        note = RefusalNote(
            at_us=now, request_id="r", tenant_id="acme", key_name="web", reason="rate_limit_exceeded", status=429,
            model="m", count=refused, last_us=now,
        )  # fmt: skip
        await store.write_refusals([note])
    await store.close()


def planned(url: str, before: Path, after: Path, *options: str) -> Result:
    variables = {"DATABASE_URL": url, "PERPETUO_CONFIG_PATH": str(before)}
    return CliRunner().invoke(main, ["plan", str(after), "--hours", "1", *options], env=variables)


def as_facts(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    return found


class PlanContract:
    """For subclasses with a fixture ``plan_url``: a migrated, empty database."""

    def test_the_same_file_changes_nothing(self, plan_url: str, tmp_path: Path) -> None:
        """Exit 0, no change, no refusal, no difference in cost."""
        before, after = config(tmp_path, "a.yaml"), config(tmp_path, "b.yaml")
        _recorded(plan_url, refused=3)
        result = planned(plan_url, before, after)
        assert result.exit_code == 0, result.output
        assert "both configurations mean the same" in result.stdout
        assert "None of the 10 calls" in result.stdout
        found = as_facts(planned(plan_url, before, after, "--json"))
        assert (found["changes"], found["would_be_refused"], found["incomplete"]) == ([], 0, [])
        assert found["not_judged"] is None
        assert all(one["cost_nano_usd"] == one["would_cost_nano_usd"] for one in found["costs"])

    def test_a_lower_limit_says_who_would_have_been_refused(self, plan_url: str, tmp_path: Path) -> None:
        """Exit 2, how many, when and by which limit; a new price beside it."""
        before, after = config(tmp_path, "a.yaml"), config(tmp_path, "b.yaml", rate=6, price=2)
        _recorded(plan_url)
        result = planned(plan_url, before, after)
        assert result.exit_code == 2, result.output
        assert "4 of 10 calls that passed" in result.stdout
        assert "6 a minute" in result.stdout
        found = as_facts(planned(plan_url, before, after, "--json"))
        (refusal,) = found["refusals"]
        assert (refusal["tenant"], refusal["key"], refusal["reason"], refusal["calls"]) == (
            "acme", "web", "rate_limit_exceeded", 4,
        )  # fmt: skip
        (cost,) = found["costs"]
        assert (cost["cost_nano_usd"], cost["would_cost_nano_usd"]) == (10_000_000, 12_000_000)
        assert {change["field"] for change in found["changes"]} == {"rate_per_minute", "demo/demo price"}

    def test_refused_calls_are_not_there_to_be_judged(self, plan_url: str, tmp_path: Path) -> None:
        """A looser limit may have let them through, and nobody can say what that had done."""
        before, after = config(tmp_path, "a.yaml"), config(tmp_path, "b.yaml", rate=200)
        _recorded(plan_url, refused=7)
        result = planned(plan_url, before, after)
        assert result.exit_code == 0, result.output
        assert "acme: incomplete: 7 refused calls were not recorded one by one" in result.stdout
        found = as_facts(planned(plan_url, before, after, "--json"))
        assert found["incomplete"] == [{"tenant": "acme", "refused_not_recorded": 7}]

    def test_a_key_that_is_another_one_refuses_its_calls(self, plan_url: str, tmp_path: Path) -> None:
        """And neither its hash nor that of the old one is shown."""
        before, after = config(tmp_path, "a.yaml"), config(tmp_path, "b.yaml", digest="cd" * 32)
        _recorded(plan_url)
        result = planned(plan_url, before, after)
        assert result.exit_code == 2, result.output
        assert "invalid_api_key" in result.stdout
        assert "abab" not in result.output
        assert "cdcd" not in result.output

    def test_a_key_that_neither_file_knows_is_told_apart(self, plan_url: str, tmp_path: Path) -> None:
        """It was taken out of the file before: that is no matter of this change, and exit 0."""
        same = config(tmp_path, "a.yaml", key="another")
        _recorded(plan_url)
        result = planned(plan_url, same, same)
        assert result.exit_code == 0, result.output
        assert "acme: not judged: 10 calls with the key web, which neither file knows" in result.stdout
        found = as_facts(planned(plan_url, same, same, "--json"))
        assert found["unknown_keys"] == [{"tenant": "acme", "key": "web", "calls": 10}]
        assert (found["calls"], found["would_be_refused"]) == (0, 0)

    def test_an_empty_history_says_so_and_shows_the_changes(self, plan_url: str, tmp_path: Path) -> None:
        """Nothing to judge by is no permission and no refusal."""
        result = planned(plan_url, config(tmp_path, "a.yaml"), config(tmp_path, "b.yaml", rate=6))
        assert result.exit_code == 0, result.output
        assert "rate_per_minute" in result.stdout
        assert "No call is recorded" in result.stdout


def _recorded(url: str, *, refused: int = 0) -> None:
    """In a loop of its own: the command under test makes another."""

    asyncio.run(record(url, refused=refused))
