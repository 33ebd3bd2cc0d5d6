"""Does ``perpetuo check`` say yes and no so that people and scripts understand?"""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from perpetuo.entrypoints.commands.group import COMMANDS, main
from tests.unit.configfile.samples import VALID

SAMPLE = Path(__file__).parents[2] / "perpetuo.config.yaml"


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, arguments, env=env)


def test_contract_check_summarises_a_valid_file() -> None:
    """Exit 0, and what is in the file: plain lines on a pipe."""
    result = run("check", str(SAMPLE))
    assert result.exit_code == 0
    assert "is valid: 1 provider, 1 model, 1 tenant, 1 key (version " in result.stdout
    assert "  tenant  demo  pro  100/min, 20 at once, $50 a day, $1000 a month  1 key" in result.stdout
    assert "sk-perpetuo-pro-1" not in result.output


def test_contract_check_reads_the_path_from_the_environment(tmp_path: Path) -> None:
    """Without FILE, PERPETUO_CONFIG_PATH names it."""
    result = run("check", env={"PERPETUO_CONFIG_PATH": str(SAMPLE)})
    assert result.exit_code == 0
    missing = run("check", env={"PERPETUO_CONFIG_PATH": str(tmp_path / "none.yaml")})
    assert missing.exit_code == 2
    assert "none.yaml:1:1: there is no such file" in missing.stderr


def test_contract_check_exits_2_with_every_problem(tmp_path: Path) -> None:
    """One line a problem on stderr, then how many."""
    path = tmp_path / "c.yaml"
    path.write_text("providers: []\nmodels: 3\ntennants: []\n")
    result = run("check", str(path))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f"{path}:2:9: models: 3 is not allowed: a list",
        f"{path}:3:1: tennants: unknown key (did you mean tenants?); known here: providers, models, plans, tenants, "
        "include, retry, idempotency, budget, errors, audit, admin, server, redis",
        "2 problems",
    ]


def test_contract_check_is_not_surprised_by_a_file_that_is_no_text(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 and a folder are problems with a place."""
    path = tmp_path / "c.yaml"
    path.write_bytes(b"a: 1\nb: \xff\n")
    assert f"{path}:2:4: is not UTF-8 from here on" in run("check", str(path)).stderr
    assert "can't be read" in run("check", str(tmp_path)).stderr


def test_contract_check_warns_of_published_keys(tmp_path: Path) -> None:
    """The file is valid, but serve would refuse it: said here already."""
    path = tmp_path / "c.yaml"
    text = SAMPLE.read_text().replace(
        "- id: demo\n    kind: demo", "- id: demo\n    kind: openai\n    baseUrl: https://x/v1"
    )
    path.write_text(text)
    result = run("check", str(path))
    assert result.exit_code == 0
    assert "sk-perpetuo-pro-1, which our documentation publishes" in result.stderr


def test_contract_secrets_may_come_from_files(tmp_path: Path) -> None:
    """``NAME_FILE`` stands in for ``NAME``; a file that is missing is told where it is used."""
    path = tmp_path / "c.yaml"
    path.write_text(SAMPLE.read_text().replace('"sk-perpetuo-pro-1"', '"${MY_KEY}"'))
    (tmp_path / "secret").write_text("sk-mine\n")
    assert run("check", str(path), env={"MY_KEY_FILE": str(tmp_path / "secret")}).exit_code == 0
    result = run("check", str(path), env={"MY_KEY_FILE": str(tmp_path / "none")})
    assert result.exit_code == 2
    assert "tenants[0].apiKeys[0]: MY_KEY_FILE names" in result.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_be_loaded(name: str) -> None:
    """A line in the table leads to a command that can explain itself."""
    result = run(name, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_an_unknown_command_is_a_usage_error() -> None:
    """No traceback for a typing mistake."""
    assert run("chek").exit_code == 2


def test_contract_check_says_which_files_it_read(tmp_path: Path) -> None:
    """With what each holds; a pattern that matches nothing yet is mentioned, and is no mistake."""
    path = tmp_path / "c.yaml"
    (tmp_path / "tenants.d").mkdir()
    (tmp_path / "none.d").mkdir()
    (tmp_path / "tenants.d" / "a.yaml").write_text("tenants: [{id: team-a, limits: {budgetDay: 1}}]\n")
    path.write_text(f"{VALID}include: ['tenants.d/*.yaml', 'none.d/*.yaml']\n")
    result = run("check", str(path))
    assert result.exit_code == 0
    assert f"  file  {path}  2 providers, 2 models, 1 plan, 1 tenant" in result.stdout.splitlines()
    assert f"  file  {tmp_path / 'tenants.d' / 'a.yaml'}  1 tenant" in result.stdout.splitlines()
    assert "warning: include: none.d/*.yaml matches no file yet." in result.stderr
