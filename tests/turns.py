"""
In which order, and beside what, do tests run?

The suite runs in several processes (pytest-xdist), because most of its time is waiting. A test marked ``alone``
measures time, so nothing else may run meanwhile: it waits for the tests under way, and holds back new ones.

Two file locks, both freed by the kernel when a process dies. Whoever wants to begin passes ``gate``; ordinary tests
then share ``floor``, a test that is alone takes it whole and keeps ``gate`` closed until it has.

A module's tests run in one process, one after the other; those of a folder in `TOGETHER` as well. What takes longest
begins first, so that no process is busy for a minute when the others have ended. Tests that are alone come last, in one
process: each of them would stop all others, and in the end there is nobody to stop.
"""

import fcntl
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

TOGETHER = (
    ("tests/browser/", "tests/integration/llm/"),
    ("tests/integration/cluster/", "tests/integration/faults/"),
)
"""
Folders whose tests share something that takes long to start, and what they share keeps both cores busy: so one is done
after the other where they stand in one line, and the lines are begun first.
"""
ORDER = (
    *chain(*TOGETHER),
    "tests/integration/ops/",
    "tests/integration/gateway/",
    "tests/integration/admin/",
    "tests/integration/sql/",
    "tests/integration/",
    "tests/unit/test_memory_ledger_machine.py",
    "tests/unit/",
)
"""
What begins first; within a folder modules of many tests do.

Unit tests come last: they are many and short, so that all processes end at the same time, and tests that are alone find
nobody to wait for, nor to keep waiting.
"""
ALONE = "alone"
"""The scope of all tests that are alone."""
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
    with turn(_folder(RUN), alone=_is_alone(item)):
        return (yield)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests into the order that processes are given them in; and tell the first process which of them are alone."""
    if RUN is None:
        return
    sizes = Counter(_scope(item.nodeid) for item in items)
    items.sort(key=lambda item: (_is_alone(item), _rank(item.nodeid), -sizes[_scope(item.nodeid)]))
    folder = _folder(RUN)
    folder.mkdir(parents=True, exist_ok=True)
    whole = folder / f"alone-{os.getpid()}"
    whole.write_text(json.dumps([item.nodeid for item in items if _is_alone(item)]))
    whole.replace(folder / "alone")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """``--dist loadscope`` with scopes of our own, handed out in the order in which they were collected."""
    if config.getoption("dist") != "loadscope":
        return None

    @cache
    def alone() -> frozenset[str]:
        run = scheduler.nodes[0].workerinput["testrunuid"]
        return frozenset(json.loads((_folder(run) / "alone").read_text()))

    config.option.loadscopereorder = False
    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = lambda test: ALONE if test in alone() else _scope(test)
    return scheduler


def _folder(run: str) -> Path:
    return Path(tempfile.gettempdir()) / f"tests-{run}"


def _is_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None


def _scope(test: str) -> str:
    """What a test belongs to, by its name."""
    lines = (folders[0] for folders in TOGETHER if test.startswith(folders))
    return next(lines, test.partition("[")[0].rpartition("::")[0])


def _rank(test: str) -> int:
    return next((rank for rank, folder in enumerate(ORDER) if test.startswith(folder)), len(ORDER))
