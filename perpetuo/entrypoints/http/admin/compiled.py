"""
Why does not every worker compile the templates that it shows?

What was compiled is kept as Python keeps what it has compiled: in ``__pycache__`` beside the sources, by whoever needed
it first. Measured on a busy machine: 130 ms of CPU for the templates of the overview, 420 for all of them.

Rule 1: nothing is written where Python would write nothing (`sys.dont_write_bytecode`, a directory that can't be
        written). Then a worker compiles what it shows, and keeps it to itself.
Rule 2: what is kept counts for the same text of the template, the same Python, Jinja and settings; anything else, and
        what can't be read, is compiled anew.
"""

import sys
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError

from jinja2 import FileSystemBytecodeCache
from jinja2.bccache import Bucket


class Kept(FileSystemBytecodeCache):
    """Compiled templates in ``directory``. ``mark`` differs where templates would be compiled differently."""

    def __init__(self, directory: Path, mark: str) -> None:
        super().__init__(str(directory), f"%s.{mark}.jinja")

    def load_bytecode(self, bucket: Bucket) -> None:
        try:
            super().load_bytecode(bucket)
        except (OSError, EOFError, ValueError, UnpicklingError):
            bucket.reset()

    def dump_bytecode(self, bucket: Bucket) -> None:
        if not sys.dont_write_bytecode:
            with suppress(OSError):
                Path(self.directory).mkdir(exist_ok=True)
                super().dump_bytecode(bucket)
