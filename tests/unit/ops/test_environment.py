"""What the environment asks for, and what is said when it asks for something impossible."""

from pathlib import Path

import pytest

from perpetuo.adapters import environment
from perpetuo.adapters.environment import InvalidEnvironmentError, Variables


def problems(**environ: str) -> list[str]:
    with pytest.raises(InvalidEnvironmentError) as raised:
        environment.read(environ)
    return raised.value.problems


def test_defaults_are_the_contracts() -> None:
    """An empty environment is what the runbook's table says."""
    asked = environment.read({})
    assert (asked.port, asked.host, asked.management_port, asked.log_level) == (3000, "127.0.0.1", None, "info")
    assert (asked.redis_url, asked.database_url) == ("redis://localhost:6379", None)
    assert asked.config_path == Path("perpetuo.config.yaml")
    assert 1 <= asked.workers <= 8
    assert not asked.beyond_loopback


def test_a_container_listens_on_every_address() -> None:
    """Inside a container loopback would be unreachable; HOST still decides."""
    assert environment.read({"PERPETUO_CONTAINER": "1"}).host == "0.0.0.0"
    assert environment.read({"PERPETUO_CONTAINER": "1", "HOST": "127.0.0.1"}).host == "127.0.0.1"


def test_empty_variables_count_as_not_set() -> None:
    """Compose passes on what is not set as an empty text."""
    asked = environment.read({"PERPETUO_ADMIN_KEY": "", "MANAGEMENT_PORT": "", "WORKERS": ""})
    assert (asked.admin_key, asked.management_port) == (None, None)


def test_secrets_may_come_from_files(tmp_path: Path) -> None:
    """NAME_FILE stands in for NAME, without its last line break."""
    secret = tmp_path / "url"
    secret.write_text("postgresql://user:p@host/db\n")
    assert environment.read({"DATABASE_URL_FILE": str(secret)}).database_url == "postgresql://user:p@host/db"
    assert Variables({"OPENAI_API_KEY_FILE": str(secret)})["OPENAI_API_KEY"].startswith("postgresql")


def test_a_file_and_a_value_at_once_are_ambiguous(tmp_path: Path) -> None:
    """Nobody should guess which of two secrets counts."""
    (tmp_path / "x").write_text("memory://")
    assert "both set" in problems(REDIS_URL="memory://", REDIS_URL_FILE=str(tmp_path / "x"))[0]
    assert "can't be read" in problems(REDIS_URL_FILE=str(tmp_path / "missing"))[0]


def test_every_problem_is_told_at_once_and_no_secret() -> None:
    """One run shows all that is wrong; URLs and keys are not repeated."""
    found = problems(
        PORT="0", MANAGEMENT_PORT="x", LOG_LEVEL="loud", LOG_FORMAT="xml", REDIS_URL="http://u:hush@h",
        DATABASE_URL="mysql://u:hush@h/d", PERPETUO_ADMIN_KEY="hush", WORKERS="none",
    )  # fmt: skip
    assert len(found) == 8
    assert "hush" not in " ".join(found)


@pytest.mark.parametrize("text", ["-1", "٣", "3000.0", "70000", " 80", "+80", "1e3"])
def test_only_a_port_is_a_port(text: str) -> None:
    """Digits of other scripts, signs and fractions are mistakes."""
    assert problems(PORT=text)


def test_two_ports_have_to_differ() -> None:
    """The management listener can't share its port."""
    assert "same as PORT" in problems(PORT="3000", MANAGEMENT_PORT="3000")[0]


def test_memory_is_for_one_worker() -> None:
    """An explicit WORKERS above 1 is an error, the default is 1."""
    assert environment.read({"REDIS_URL": "memory://"}).workers == 1
    assert environment.read({"REDIS_URL": "memory://", "WORKERS": "1"}).workers == 1
    assert "memory://" in problems(REDIS_URL="memory://", WORKERS="2")[0]


def test_secrets_stay_out_of_repr() -> None:
    """A traceback or a debug line shows no password."""
    shown = repr(environment.read({"REDIS_URL": "redis://:hush@h", "PERPETUO_ADMIN_KEY": "hush" * 6}))
    assert "hush" not in shown


def test_cpus_follow_the_cgroups_quota(tmp_path: Path) -> None:
    """A container limited to half a CPU gets one worker, whatever the machine has."""
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert environment.usable_cpus(tmp_path) == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert environment.usable_cpus(tmp_path) >= 1
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("100000\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert environment.usable_cpus(tmp_path) == 1
