"""A failed test is looked at again, alone: `scripts/second_look.py` as `make test` runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "second_look.py"
FAILS_AT = """
from pathlib import Path

def test_it():
    runs = Path(__file__).with_suffix(".runs")
    runs.write_text(f"{runs.read_text() if runs.exists() else ''}.")
    assert len(runs.read_text()) not in FAILING
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return tmp_path


def _write(project: Path, name: str, *failing: int) -> None:
    """A test that fails at these of its runs."""
    (project / f"test_{name}.py").write_text(FAILS_AT.replace("FAILING", repr(failing)))


def _run(project: Path) -> subprocess.CompletedProcess[str]:
    """As the Makefile does it. Plugins would cost a second each time."""
    command = ["sh", "-c", '"$0" -m pytest -q --cache-clear || "$0" "$1" $?', sys.executable, str(SCRIPT)]
    environ = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    return subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True, check=False)


def _runs(project: Path, name: str) -> int:
    return len((project / f"test_{name}.runs").read_text())


def test_who_failed_once_passes_and_is_named(project: Path) -> None:
    _write(project, "steady")
    _write(project, "unlucky", 1)
    done = _run(project)
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("then passed 3 times of 3\n      test_unlucky.py::test_it\n")
    assert (_runs(project, "steady"), _runs(project, "unlucky")) == (1, 4)


@pytest.mark.parametrize(("failing", "runs"), [((1, 2, 3, 4), 2), ((1, 4), 4)])
def test_who_fails_again_fails_the_run(project: Path, failing: tuple[int, ...], runs: int) -> None:
    _write(project, "broken", *failing)
    done = _run(project)
    assert done.returncode == 1
    assert "failed again" in done.stdout
    assert _runs(project, "broken") == runs


def test_one_that_fails_again_is_enough(project: Path) -> None:
    _write(project, "broken", 1, 2)
    _write(project, "unlucky", 1)
    assert _run(project).returncode == 1


def test_many_at_once_are_no_accident(project: Path) -> None:
    for number in range(11):
        _write(project, f"number{number}", 1)
    done = _run(project)
    assert (done.returncode, _runs(project, "number0")) == (1, 1)


def test_what_cannot_be_collected_gets_no_second_look(project: Path) -> None:
    _write(project, "unlucky", 1)
    (project / "test_broken.py").write_text("import nothing_of_that_name")
    done = _run(project)
    assert done.returncode == 2
    assert "second look" not in done.stdout


def test_what_failed_another_day_is_not_looked_at(project: Path) -> None:
    _write(project, "old", 1, 2)
    assert _run(project).returncode == 1
    _write(project, "unlucky", 1)
    (project / "test_old.py").unlink()
    assert _run(project).returncode == 0
