"""
How do tests that measure time run beside others?

The suite runs in several processes (pytest-xdist), because most of its time is waiting. A test marked ``alone``
measures time, so nothing else may run meanwhile: it waits for the tests under way, and holds back new ones.

Two file locks, both freed by the kernel when a process dies. Whoever wants to begin passes ``gate``; ordinary tests
then share ``floor``, a test that is alone takes it whole and keeps ``gate`` closed until it has.

A module's tests run in one process, one after the other; those of a folder in `TOGETHER` as well.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

TOGETHER = ("tests/integration/cluster/", "tests/browser/")
"""Folders whose tests share something that takes long to start."""
RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID")
"""Names this run in every process of it; none: a single process, which needs no turns."""


@contextmanager
def turn(folder: Path, *, alone: bool) -> Iterator[None]:
    """Wait for one's turn; have it until the end of the block."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "gate").open("w") as gate, (folder / "floor").open("w") as floor:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(floor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Before any timeout begins to count."""
    if RUN is None:
        return (yield)
    with turn(Path(tempfile.gettempdir()) / f"tests-{RUN}", alone=item.get_closest_marker("alone") is not None):
        return (yield)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """``--dist loadscope``, with scopes that are larger than a module."""
    if config.getoption("dist") != "loadscope":
        return None
    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = _scope
    return scheduler


def _scope(test: str) -> str:
    """What a test belongs to, by its name."""
    return next((folder for folder in TOGETHER if test.startswith(folder)), test.rpartition("::")[0])
