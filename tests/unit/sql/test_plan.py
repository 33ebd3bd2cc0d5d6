"""``perpetuo plan`` over SQLite, and what it says when there is nothing to read."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from perpetuo.entrypoints.commands.group import main
from tests.contract.plan_contract import PlanContract, as_facts, config, planned


class TestSqlite(PlanContract):
    @pytest.fixture
    def plan_url(self, sqlite_url: str) -> str:
        return sqlite_url


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://127.0.0.1:1/none", "The recorded calls can't be read: "),
        ("mysql://127.0.0.1/none", "DATABASE_URL starts with 'mysql'"),
        ("sqlite:////nowhere/x.db", "DATABASE_URL names a file in /nowhere, which is no directory"),
        ("", "DATABASE_URL is not set: "),
    ],
)
def test_without_the_recorded_calls_a_change_is_told_all_the_same(tmp_path: Path, url: str, said: str) -> None:
    """Exit 1: it was not found out; one sentence says why, to scripts as well."""
    before, after = config(tmp_path, "a.yaml"), config(tmp_path, "b.yaml", rate=6)
    result = planned(url, before, after)
    assert result.exit_code == 1, result.output
    assert "rate_per_minute" in result.stdout
    assert result.stderr.startswith(f"Which calls that would have refused is not known. {said}")
    assert result.stderr.count("\n") == 1
    result = planned(url, before, after, "--json")
    found = as_facts(result)
    assert (result.exit_code, result.stderr) == (1, "")
    assert [change["field"] for change in found["changes"]] == ["rate_per_minute"]
    assert found["not_judged"].startswith(said)
    assert (found["calls"], found["would_be_refused"]) == (None, None)


@pytest.mark.parametrize("options", [["--hours", "0"], ["--hours", "x"], ["--howers", "1"]])
def test_a_wrong_option_is_no_verdict(tmp_path: Path, options: list[str]) -> None:
    """Exit 1, where other commands have 2: for CI, 2 says that calls would be refused."""
    file = config(tmp_path, "a.yaml")
    result = planned("sqlite:///x", file, file, *options)
    assert (result.exit_code, result.stdout) == (1, "")
    assert options[0] in result.stderr
    assert CliRunner().invoke(main, ["plan"]).exit_code == 1


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--since", "yesterday", "--since 'yesterday' is no instant such as 2026-11-26T08:00:00Z."),
        ("--since", "2999-01-01", "There is no time from 2999-01-01T00:00:00Z until"),
    ],
)
def test_a_time_that_can_not_be_meant_is_told(tmp_path: Path, option: str, value: str, said: str) -> None:
    """Exit 1, and what is allowed."""
    file = config(tmp_path, "a.yaml")
    result = planned("sqlite:///x", file, file, option, value)
    assert result.exit_code == 1
    assert said in result.stderr


def test_a_file_that_is_wrong_is_told_as_check_tells_it(tmp_path: Path) -> None:
    """With file, line and column; exit 1."""
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("tennants: []\n")
    result = planned(f"sqlite:///{tmp_path}/x", config(tmp_path, "a.yaml"), wrong)
    assert result.exit_code == 1
    assert "wrong.yaml:1:1" in result.stderr
