"""
Where do the workers of one server meet?

In a directory that the main process makes at start, names in ``PERPETUO_RUN_DIR`` and removes at exit:

    metrics/       the workers' counters, so that ``/metrics`` can add them up
    came-up        there once a worker has got through its start
    configuration  the files that were last taken over (`perpetuo.adapters.configfile.kept`)
    reload-asked   touched before workers are told to read the configuration again
    *.said         what a worker has said for all of them
    server         locked by the main process for as long as it lives

A server that was killed leaves its directory. The next one takes it away, once it has had time for calls in flight.
"""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "PERPETUO_RUN_DIR"
CAME_UP = "came-up"
SERVER = "server"
PREFIX = "perpetuo-run-"
LEFT_ALONE_SECONDS = 600
"""Workers whose main process was killed finish their calls, a minute at most."""


@contextmanager
def made(environ: MutableMapping[str, str] = os.environ) -> Iterator[Path]:
    """A fresh run directory for this process and its children; removed at the end."""
    path = Path(tempfile.mkdtemp(prefix=PREFIX))
    (path / "metrics").mkdir()
    environ[VARIABLE] = str(path)
    with (path / SERVER).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _sweep(path.parent)
        try:
            yield path
        finally:
            environ.pop(VARIABLE, None)
            shutil.rmtree(path, ignore_errors=True)


def _sweep(directory: Path) -> None:
    """Take away what servers of this user left when they were killed."""
    for path in directory.glob(f"{PREFIX}*"):
        try:
            found = path.stat()
            if found.st_uid == os.getuid() and found.st_mtime < time.time() - LEFT_ALONE_SECONDS and _is_over(path):
                shutil.rmtree(path, ignore_errors=True)
        except OSError:
            continue  # another server takes it away at this moment


def _is_over(path: Path) -> bool:
    with (path / SERVER).open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
