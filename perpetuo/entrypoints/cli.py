"""
What comes first when somebody types ``perpetuo``?

Rule 1: nothing that takes time is imported before a signal is answered: whoever changes their mind in the first second
gets a line, not a traceback. From `GatewayServer.run` on, the server answers signals itself.
Rule 2: a server sends for its nursery before everything else: its imports are the longest part of a start.
"""

import os
import signal
import sys
from typing import Any

SERVERS = ("dev", "serve")
INTERRUPTED = 128 + signal.SIGINT


def main() -> None:
    """The program: ``perpetuo COMMAND``."""
    serves = len(sys.argv) > 1 and sys.argv[1] in SERVERS
    signal.signal(signal.SIGINT, _leave)
    if serves:
        signal.signal(signal.SIGTERM, _leave)  # as process 1 of a container it would not hear it otherwise
        from perpetuo.entrypoints.process.nursery import open_nursery  # noqa: PLC0415 - see rule 1

        open_nursery()
    from perpetuo.entrypoints.commands.group import main as commands  # noqa: PLC0415 - see rule 1

    if not serves:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    commands()


def _leave(number: int, _frame: Any) -> None:
    """End here and now: there is nothing to clean up yet, and an exception might get lost in an import."""
    if number == signal.SIGINT:
        os.write(2, b"\nInterrupted before it had started.\n")
        os._exit(INTERRUPTED)
    os._exit(0)
