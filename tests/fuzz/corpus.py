"""
Where are the inputs kept that the fuzzer has found worth keeping?

In a text file, one to a line, smallest first, so that a change can be read in a diff. The fuzzer wants a folder.
"""

import hashlib
from pathlib import Path

LINES = Path(__file__).with_name("corpus.txt")
LONGEST = 200
"""Bytes of an input in the file: what is longer can't be read, and adds little."""


def load(lines: Path = LINES) -> list[bytes]:
    return [_from_line(line) for line in lines.read_text("ascii").splitlines() if line and not line.startswith("# ")]


def as_line(data: bytes) -> str:
    return data.decode("latin-1").encode("unicode_escape").decode("ascii")


def _from_line(line: str) -> bytes:
    return line.encode("ascii").decode("unicode_escape").encode("latin-1")


def unpack(folder: Path, inputs: list[bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for data in inputs:
        (folder / hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)


def pack(folder: Path, lines: Path = LINES) -> int:
    """Write the file anew from the folder; how many there are."""
    found = {file.read_bytes() for file in folder.iterdir()}
    inputs = sorted((data for data in found if 0 < len(data) <= LONGEST), key=lambda data: (len(data), data))
    head = "# Written by `make fuzz-transport KEEP=1`; what the steps mean is in script.py.\n"
    lines.write_text(head + "".join(f"{as_line(data)}\n" for data in inputs), "ascii")
    return len(inputs)
