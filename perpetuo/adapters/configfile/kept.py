"""
What did the configuration's files say when they were last right?

All workers go by the same, also one that dies while the file is broken and comes back, and one that saw two quick edits
as one, the second broken. So whoever takes a configuration over leaves its texts in the run directory, which only this
user can enter and which ends with the server.

Rule 1: texts are kept as they were written: a ``${NAME}`` stays one, and its value is in no file of ours.
Rule 2: they are replaced whole, so that nobody reads half of them.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import attrs
import msgspec

from perpetuo.adapters.configfile.sources import Sources, with_texts
from perpetuo.adapters.configfile.watch import Seen

NAME = "configuration"
_Files = tuple[tuple[str, str], ...]
"""File and text."""


def keep(directory: Path | None, sources: Sources) -> None:
    """
    Leave what is right and about to be taken over; without a run directory nobody asks for it.

    A copy that can't be written (the disk is full) is left out: the configuration is right all the same.
    """
    if directory is None:
        return
    files: _Files = tuple((source.file, source.text) for source in sources.files)
    written = directory / f"{NAME}-{os.getpid()}"
    with suppress(OSError):
        with os.fdopen(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.encode(files))
        written.replace(directory / NAME)


def last_kept(directory: Path | None, broken: Seen, variables: Mapping[str, str]) -> Sources | None:
    """What was taken over last, in the place of ``broken`` files; ``None``: nothing was yet."""
    try:
        raw = (directory / NAME).read_bytes() if directory is not None else b""
    except OSError:
        raw = b""
    if not raw:
        return None
    files = msgspec.json.decode(raw, type=_Files)
    return attrs.evolve(with_texts(broken.path, files, variables), seen=broken)
