"""The place where the workers of one server meet."""

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
