"""
Where do the workers of one server meet?

In a directory that the main process makes at start, names in ``PERPETUO_RUN_DIR`` and removes at exit:

    metrics/       the workers' counters (mmap files), so that ``/metrics`` can add them up
    slot-<n>       held with ``flock`` by the worker that has place n; it continues that place's counters
    came-up        there once a worker has got through its start

Rule: a lock, not a pid, says who holds a slot: it ends with its holder, however that ended.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "PERPETUO_RUN_DIR"
CAME_UP = "came-up"


@contextmanager
def made(environ: MutableMapping[str, str] = os.environ) -> Iterator[Path]:
    """A fresh run directory for this process and its children; removed at the end."""
    path = Path(tempfile.mkdtemp(prefix="perpetuo-run-"))
    (path / "metrics").mkdir()
    environ[VARIABLE] = str(path)
    try:
        yield path
    finally:
        environ.pop(VARIABLE, None)
        shutil.rmtree(path, ignore_errors=True)


def claim_slot(run_dir: Path, most: int = 1024) -> tuple[int, int]:
    """
    Take the lowest free slot, for as long as this process lives: ``(slot, file descriptor)``.

    The descriptor must stay open; closing it gives the slot back.
    """
    for slot in range(most):
        descriptor = os.open(run_dir / f"slot-{slot}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        return slot, descriptor
    raise RuntimeError(f"{most} workers hold a slot in {run_dir} already")
