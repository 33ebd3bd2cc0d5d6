"""Does a server leave anything behind, even one that was killed?"""

import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest

from perpetuo.entrypoints.process import rundir


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where run directories are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def untouched(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def test_it_is_gone_at_the_end(temporary: Path) -> None:
    """So is the variable that names it."""
    environ: dict[str, str] = {}
    with rundir.made(environ) as path:
        assert environ == {rundir.VARIABLE: str(path)}
        assert path.stat().st_mode & 0o077 == 0
        assert (path / "metrics").is_dir()
    assert (environ, list(temporary.iterdir())) == ({}, [])


def test_what_a_killed_server_left_is_taken_away_by_the_next(temporary: Path) -> None:
    """Not at once: its workers may be finishing calls; and never that of a server that lives, however old it is."""
    killed, lately = temporary / "perpetuo-run-killed", temporary / "perpetuo-run-lately"
    for path in (killed, lately):
        (path / "metrics").mkdir(parents=True)
        (path / rundir.SERVER).touch()
    untouched(killed, rundir.LEFT_ALONE_SECONDS + 1)
    untouched(lately, rundir.LEFT_ALONE_SECONDS - 60)
    other = temporary / "somebody-elses"
    other.mkdir()
    untouched(other, 10 * rundir.LEFT_ALONE_SECONDS)
    with rundir.made({}) as living:
        untouched(living, 10 * rundir.LEFT_ALONE_SECONDS)
        assert not killed.exists()
        with rundir.made({}):
            assert living.exists()
    assert sorted(temporary.iterdir()) == [lately, other]


def test_what_is_no_run_directory_of_ours_is_left_alone(temporary: Path) -> None:
    """Without the file that says whether its server lives nobody knows."""
    strange = temporary / "perpetuo-run-strange"
    strange.mkdir()
    untouched(strange, 10 * rundir.LEFT_ALONE_SECONDS)
    (temporary / "perpetuo-run-file").touch()
    untouched(temporary / "perpetuo-run-file", 10 * rundir.LEFT_ALONE_SECONDS)
    with rundir.made({}):
        assert len(list(temporary.iterdir())) == 3
    shutil.rmtree(strange)
