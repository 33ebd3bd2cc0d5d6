"""
Has the configuration file changed?

Rule 1: what is compared is the identity of the file that the path leads to (device, inode, times, size), five times a
        second: that sees writes in place, renames over it, and Kubernetes swapping the link above a ConfigMap, on every
        file system, without a library.
Rule 2: a change is told once it has been the same at two looks, so that a half-written file is rarely read; one that is
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
    on_change: Callable[[], Awaitable[None]],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Call ``on_change`` after each change of ``path``, until cancelled. It must not raise."""
    known = _identity(path)
    while True:
        await sleep(INTERVAL)
        seen = _identity(path)
        while seen is not None and seen != known:
            await sleep(SETTLED)
            again = _identity(path)
            if again == seen:
                known = seen
                await on_change()
            seen = again


def _identity(path: Path) -> Identity:
    """``None`` when there is no such file; links are followed."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size
