"""``perpetuo plan`` over SQLite, and what it says when there is nothing to read."""

from pathlib import Path

import pytest

from tests.contract.plan_contract import PlanContract, config, planned


class TestSqlite(PlanContract):
    @pytest.fixture
    def plan_url(self, sqlite_url: str) -> str:
        return sqlite_url


def test_a_database_that_is_away_is_one_sentence(tmp_path: Path) -> None:
    """Exit 1: it could not be found out."""
    result = planned("postgresql://127.0.0.1:1/none", config(tmp_path, "a.yaml"), config(tmp_path, "b.yaml"))
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("The recorded calls can't be read: ")
    assert result.stderr.count("\n") == 1


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
