"""
Where do the workers of one server meet?

In a directory that the main process makes at start, names in ``PERPETUO_RUN_DIR`` and removes at exit:

    metrics/       the workers' counters, so that ``/metrics`` can add them up
    came-up        there once a worker has got through its start
    reload-asked   touched before workers are told to read the configuration again
    *.said         what a worker has said for all of them
"""

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
