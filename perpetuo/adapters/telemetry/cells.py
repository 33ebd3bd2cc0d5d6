"""
Where are a worker's counters, so that any worker can add up all of them and a killed one loses none?

Each worker holds a *slot*: two files in a directory that the workers of one server share.

    <n>.values   doubles, mapped into memory; a cell is one of them
    <n>.names    a line for each cell in use, in order: the name of its number, as JSON

Rule 1: a slot is claimed with ``flock`` on its values and continued where its last holder left it, so that
no counter falls when a worker is replaced and there are never more files than there were workers at once.
Rule 2: a cell's name is on disk before its first use; counting is one addition in mapped memory, no system call.
(prometheus-client's own files cost 3.5 µs an increment, measured; a call makes a dozen.)
Rule 3: files have their full size from the start (512 KiB): a full disk fails the claim, not a running worker. Cells
beyond that all share the first one, which nobody reads.
"""

import fcntl
import mmap
import os
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import msgspec

CAPACITY = 65_536
SIZE = CAPACITY * 8
SPILL = ("",)
"""Name of the cell that takes what found no room."""

Name = tuple[str, ...]


class Cells:
    """One worker's numbers: ``cells.values[cells.cell(name)] += 1``."""

    def __init__(
        self, values: "memoryview[float]", names: Sequence[Name], appendix: int | None, lock: int | None, slot: int = 0
    ) -> None:
        self.values = values
        self.slot = slot
        """The number of the files, from 0; a replaced worker takes over that of the one before it."""
        self._names = list(names)
        self._index = {name: index for index, name in enumerate(self._names)}
        self._appendix = appendix
        self._lock = lock
        self.cell(SPILL)

    @classmethod
    def claim(cls, directory: Path) -> "Cells":
        """Take the lowest free slot of ``directory`` for as long as this process lives."""
        for slot in count():
            lock = os.open(directory / f"{slot}.values", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            return cls._continue(directory, slot, lock)
        raise AssertionError  # count() has no end

    @classmethod
    def _continue(cls, directory: Path, slot: int, lock: int) -> "Cells":
        size = os.fstat(lock).st_size
        if size < SIZE:
            os.pwrite(lock, bytes(SIZE - size), size)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        appendix = os.open(directory / f"{slot}.names", flags, 0o600)
        text = _read(appendix)
        whole = text[: text.rfind(b"\n") + 1]  # a holder killed in the middle of a line
        os.ftruncate(appendix, len(whole))
        values = memoryview(mmap.mmap(lock, SIZE)).cast("d")
        return cls(values, list(_parsed(whole)), appendix, lock, slot)

    @classmethod
    def in_process(cls) -> "Cells":
        """For one process that shares with nobody."""
        return cls(memoryview(bytearray(SIZE)).cast("d"), (), None, None)

    def cell(self, name: Name) -> int:
        """Index of the cell of this name, made if need be."""
        index = self._index.get(name)
        if index is not None:
            return index
        if len(self._names) == CAPACITY:
            return 0
        if self._appendix is not None:
            os.write(self._appendix, msgspec.json.encode(name) + b"\n")
        self._index[name] = index = len(self._names)
        self._names.append(name)
        return index

    def snapshot(self) -> dict[Name, float]:
        """The numbers of this worker."""
        return dict(zip(self._names, self.values, strict=False))

    def close(self) -> None:
        """Give the slot back."""
        if self._lock is not None and self._appendix is not None:
            fcntl.flock(
                self._lock, fcntl.LOCK_UN
            )  # the mapping has a duplicate of the descriptor, so closing is not enough
            os.close(self._lock)
            os.close(self._appendix)
        self._appendix = self._lock = None


def read_all(directory: Path) -> list[dict[Name, float]]:
    """The numbers of every slot, held or not."""
    slots = []
    for path in sorted(directory.glob("*.values")):
        names = path.with_suffix(".names")
        if names.exists():
            slots.append(_read_slot(names, path))
    return slots


def _read_slot(names: Path, values: Path) -> dict[Name, float]:
    text = names.read_bytes()  # before the values: each name read has a cell by then
    data = values.read_bytes()
    numbers = memoryview(data[: len(data) // 8 * 8]).cast("d")
    return dict(zip(_parsed(text[: text.rfind(b"\n") + 1]), numbers, strict=False))


_known: dict[bytes, Name] = {}


def _parsed(text: bytes) -> Iterator[Name]:
    for line in text.splitlines():
        name = _known.get(line)
        if name is None:
            name = _known[line] = msgspec.json.decode(line, type=Name)
        yield name


def _read(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
