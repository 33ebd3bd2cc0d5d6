"""
Which worker says what happens to all of them?

A file that can't be read as configuration is the same news in each worker. The first one says it where an operator
looks, the others at level ``debug``.

Rule 1: the workers of one server meet in their run directory. For each subject it holds a file with what was said last.
Rule 2: when the main process is told to reload (SIGHUP), the same is news again: it calls `ask_again` first.
"""

import fcntl
from pathlib import Path

ASKED = "reload-asked"


class Once:
    """The workers of ``directory``; ``None``: this one is alone."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def first(self, subject: str, news: object) -> bool:
        """Is this worker the first that says ``news`` (whatever its `repr` tells apart) of ``subject``?"""
        if self._directory is None:
            return True
        text = repr((news, _touched(self._directory / ASKED))).encode()
        try:
            with (self._directory / f"{subject}.said").open("a+b") as said:
                fcntl.flock(said, fcntl.LOCK_EX)
                said.seek(0)
                if said.read() == text:
                    return False
                said.truncate(0)
                said.write(text)
        except OSError:
            return True  # twice is better than never
        return True


def ask_again(directory: Path | None) -> None:
    """The workers of ``directory`` are about to be asked again: whatever they find is to be said."""
    if directory is not None:
        (directory / ASKED).touch()


def _touched(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
