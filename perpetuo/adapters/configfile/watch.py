"""
Has the configuration file changed since it was read?

Rule 1: what is compared is the identity of the file that the path leads to (device, inode, times, size), five times a
        second: that sees writes in place, renames over it, and Kubernetes swapping the link above a ConfigMap, on every
        file system, without a library.
Rule 2: it is compared with the file as it was before it was last read, at the start too and whoever had it read: so
        no change falls between a reading and the first look.
Rule 3: a change is told once it has been the same at two looks, so that a half-written file is rarely read; one that is
        away for a moment is no change.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

INTERVAL = 0.2
SETTLED = 0.05
"""Seconds for which a change has to be left alone before it is told."""

Identity = tuple[int, ...] | None


async def watch(
    path: Path,
    was_read_as: Callable[[], Identity],
    on_change: Callable[[], Awaitable[None]],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """
    Call ``on_change`` whenever ``path`` is another file than ``was_read_as``, until cancelled.

    ``on_change`` reads it, after taking its identity for ``was_read_as``; it must not raise.
    """
    while True:
        await sleep(INTERVAL)
        seen = identity(path)
        while seen is not None and seen != was_read_as():
            await sleep(SETTLED)
            again = identity(path)
            if again == seen:
                await on_change()
            seen = again


def identity(path: Path) -> Identity:
    """``None`` when there is no such file; links are followed."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size
