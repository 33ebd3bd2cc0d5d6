"""
What does a worker find ready when it is born?

The nursery imports this module, a single time, before it forks the first worker.

Rule 1: what is imported here stays for good. The collector would look at it again and again while it grows (7 % of the
time), and later, by touching it, copy what workers share. So it is off meanwhile, and never looks at it afterwards.
"""

import gc
from importlib import import_module

from perpetuo.adapters.configfile.catalogue import load_catalogue

MODULES = ("perpetuo.entrypoints.http.app", "perpetuo.entrypoints.process.worker", "uvloop")


def fill() -> None:
    """Import, and read, everything that every worker needs."""
    gc.disable()
    try:
        for name in MODULES:
            import_module(name)
        load_catalogue()
        gc.freeze()
    finally:
        gc.enable()


fill()
