"""
Which promises did this run prove?

After a run over everything (`make test`, `make test-slow`) `PromisesRan` prints each promise with the number of its
tests that ran, and whether all of them passed. With ``CI=true`` a promise of which no test passed fails the run: a test
that was skipped, deselected or renamed proves nothing.
"""

import importlib.util
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pytest

ROOT = Path(__file__).parents[1]
COLUMNS = 5


def promise_table() -> ModuleType:
    """``scripts/promise_table.py``, which knows how tests name promises."""
    spec = importlib.util.spec_from_file_location("promise_table", ROOT / "scripts" / "promise_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@attrs.define
class Tally:
    """Tests of one promise, each parameter of a test by itself."""

    passed: int = 0
    failed: int = 0


class PromisesRan:
    """A pytest plugin."""

    def __init__(self, config: pytest.Config) -> None:
        script = promise_table()
        self._named = script.promises_in
        self._promises: list[str] = list(script.promises(script.PAGE.read_text()))
        self._config = config
        self.tallies: dict[str, Tally] = defaultdict(Tally)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.failed and not (report.passed and report.when == "call"):
            return
        function = report.nodeid.partition("[")[0].rpartition("::")[2]
        for promise in self._named(function):
            if report.failed:
                self.tallies[promise].failed += 1
            else:
                self.tallies[promise].passed += 1

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._must_prove_all() and self._unproved() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if not _over_everything(self._config):
            return
        terminalreporter.section("promises: tests that ran")
        for line in table(self._promises, self.tallies):
            terminalreporter.write_line(line)
        if self._must_prove_all() and self._unproved():
            terminalreporter.write_line(f"no test passed for: {', '.join(self._unproved())}", red=True)

    def _must_prove_all(self) -> bool:
        fast = self._config.getoption("markexpr") == "not slow"
        return os.environ.get("CI") == "true" and fast and _over_everything(self._config)

    def _unproved(self) -> list[str]:
        return [number for number in self._promises if self.tallies[number].passed == 0]


def _over_everything(config: pytest.Config) -> bool:
    """No files, names or last failures were picked."""
    picked = any(config.getoption(name, None) for name in ("keyword", "deselect", "lf", "failedfirst", "collectonly"))
    return config.args_source == pytest.Config.ArgsSource.TESTPATHS and not picked


def table(promises: Sequence[str], tallies: Mapping[str, Tally]) -> Iterator[str]:
    """The promises in columns, read downwards."""
    cells = [_cell(number, tallies.get(number, Tally())) for number in promises]
    height = -(-len(cells) // COLUMNS)
    for row in range(height):
        yield "".join(f"{cell:<18}" for cell in cells[row::height]).rstrip()


def _cell(number: str, tally: Tally) -> str:
    if tally.failed:
        return f"{number:<3} {tally.failed} FAILED"
    return f"{number:<3}{tally.passed:>4} pass" if tally.passed else f"{number:<3}   - none"
