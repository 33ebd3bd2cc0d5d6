"""The place where the workers of one server meet."""

import os
from pathlib import Path

from perpetuo.entrypoints.process import rundir


def test_the_directory_is_named_and_removed() -> None:
    """Children find it in the environment; nothing stays behind."""
    environ: dict[str, str] = {}
    with rundir.made(environ) as run_dir:
        assert environ[rundir.VARIABLE] == str(run_dir)
        assert (run_dir / "metrics").is_dir()
        assert run_dir.stat().st_mode & 0o077 == 0
    assert not run_dir.exists()
    assert rundir.VARIABLE not in environ


def test_o3_a_slot_is_free_again_when_its_holder_is_gone(tmp_path: Path) -> None:
    """The lowest free slot is taken, so a replaced worker continues the counters of the dead one."""
    first, descriptor = rundir.claim_slot(tmp_path)
    second, _ = rundir.claim_slot(tmp_path)
    assert (first, second) == (0, 1)
    os.close(descriptor)
    assert rundir.claim_slot(tmp_path)[0] == 0
