"""
Have the configuration's files changed since they were read?

Rule 1: what is compared is the identity of the files that the paths lead to (device, inode, times, size), five times a
        second: that sees writes in place, renames over them, and Kubernetes swapping the link above a ConfigMap, on
        every file system, without a library. Included files are looked for anew each time: a new one and one that is
        gone are changes too.
Rule 2: it is compared with the files as they were before they were last read, at the start too and whoever had them
        read: so no change falls between a reading and the first look.
Rule 3: a change is told once it has been the same at two looks, so that a half-written file is rarely read; while the
        main file is away there is no change.
"""

import asyncio
from collections.abc import Awaitable, Callable
from glob import glob
from pathlib import Path, PurePath

import attrs

INTERVAL = 0.2
SETTLED = 0.05
"""Seconds for which a change has to be left alone before it is told."""

Identity = tuple[int, ...] | None


@attrs.frozen
class Seen:
    """A configuration's files at one look: ``path``, and what ``patterns`` beside it lead to."""

    path: Path
    patterns: tuple[str, ...]
    main: Identity
    included: tuple[tuple[str, Identity], ...]
    """Relative to the directory of ``path``."""


async def watch(
    was_read_as: Callable[[], Seen],
    on_change: Callable[[], Awaitable[None]],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """
    Call ``on_change`` whenever the files are others than ``was_read_as``, until cancelled.

    ``on_change`` reads them, after taking their identity for ``was_read_as``; it must not raise.
    """
    while True:
        await sleep(INTERVAL)
        seen = await _again(was_read_as())
        while seen.main is not None and seen != was_read_as():
            await sleep(SETTLED)
            again = await _again(was_read_as())
            if again == seen:
                await on_change()
            seen = again


async def _again(seen: Seen) -> Seen:
    """Another look at the same; beside the calls where there may be many files (1,000 take 14 ms)."""
    if not seen.patterns:
        return look(seen.path)
    return await asyncio.to_thread(look, seen.path, seen.patterns)


def look(path: Path, patterns: tuple[str, ...] = ()) -> Seen:
    """The files as they are now."""
    main = identity(path)
    names = dict.fromkeys(name for pattern in patterns for name in _matches(path.parent, pattern))
    names.pop(path.name, None)
    return Seen(path, patterns, main, tuple((name, identity(path.parent / name)) for name in names))


def _matches(directory: Path, pattern: str) -> list[str]:
    """
    What ``pattern`` names in ``directory``, sorted; without a wildcard whether there is such a file or not.

    As in a shell, a wildcard takes no name that begins with a dot: so neither the directories of a ConfigMap nor an
    editor's half-written files are read.
    """
    if not has_wildcard(pattern):
        return [str(PurePath(pattern))]
    names = glob(pattern, root_dir=directory, recursive=True)  # noqa: PTH207 - unlike Path.glob, it leaves out dotfiles
    return sorted(name for name in names if not (directory / name).is_dir())


def has_wildcard(pattern: str) -> bool:
    return any(sign in pattern for sign in "*?[")


def identity(path: Path) -> Identity:
    """``None`` when there is no such file; links are followed."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size
