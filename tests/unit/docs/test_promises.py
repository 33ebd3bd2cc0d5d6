"""Is it true what docs/promises.md says about its tests?"""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.promises_ran import PromisesRan, Tally, promise_table, table

script = promise_table()
PAGE: str = script.PAGE.read_text()
PROMISES = set(script.promises(PAGE))


@pytest.fixture(scope="module")
def tests() -> Any:
    """Every test that names a promise; reading all of them takes a second."""
    return script.collect()


def test_the_table_is_up_to_date(tests: Any) -> None:
    """Somebody who adds a test for a promise adds it to the page: run scripts/promise_table.py."""
    assert script.rewritten(PAGE, tests) == PAGE, "run: .venv/bin/python scripts/promise_table.py"


def test_each_named_test_exists(tests: Any) -> None:
    """No test that was renamed or removed is still claimed."""
    existing = {(test.file, test.name) for test in tests}
    claimed = {
        (f"tests/{file}", name)
        for row in PAGE.splitlines()
        for file, names in re.findall(r"\[([\w/]+\.py)\]\([^)]*\): ([^<|]*)", row)
        for name in re.findall(r"`(\w+)`", names)
    }
    assert claimed
    assert claimed <= existing


def test_promises_without_a_test_are_listed(tests: Any) -> None:
    """What no test holds is not passed over."""
    tested = {number for test in tests for number in test.promises}
    listed = re.search(r"^- No test of that name: (.*)\.$", PAGE, re.MULTILINE)
    assert listed is not None
    assert set(re.findall(r"[A-Z]\d+", listed[1])) == PROMISES - tested


def test_tests_name_promises_that_exist(tests: Any) -> None:
    """A slip such as ``test_b10_…`` would prove nothing."""
    letters = {number[0] for number in PROMISES}
    unknown = {n for test in tests for n in test.promises if n[0] in letters and n not in PROMISES}
    assert not unknown


@pytest.mark.parametrize(
    ("file", "level"),
    [
        ("tests/unit/policy/test_rate.py", "unit"),
        ("tests/contract/ledger_contract.py", "contract"),
        ("tests/integration/redis/test_x.py", "servers"),
        ("tests/integration/cluster/test_x.py", "cluster"),
    ],
)
def test_levels_go_by_folders(file: str, level: str) -> None:
    """Where a test stands says what it runs on."""
    assert script.Test("test_r1_x", file, ("R1",)).level == level


def test_names_may_hold_several_promises(tmp_path: Path) -> None:
    """``test_r1_b3_…`` counts for both; other names for none."""
    (tmp_path / "tests" / "unit").mkdir(parents=True)
    (tmp_path / "tests" / "unit" / "test_x.py").write_text("def test_r1_b3_x(): ...\ndef test_other(): ...\n")
    assert [test.promises for test in script.collect(tmp_path)] == [("R1", "B3")]


def test_a_run_counts_the_tests_of_each_promise(pytestconfig: pytest.Config) -> None:
    """Passed ones when they were called, failed ones in whatever phase; skipped ones prove nothing."""
    ran = PromisesRan(pytestconfig)
    said = [("call", "passed"), ("setup", "passed"), ("call", "skipped"), ("setup", "failed"), ("teardown", "passed")]
    for when, outcome in said:
        name, place = "tests/x.py::test_r1_b3_x[a::b]", ("tests/x.py", 1, "x")
        ran.pytest_runtest_logreport(pytest.TestReport(name, place, {}, outcome, None, when))  # type: ignore[arg-type]
    assert ran.tallies == {"R1": Tally(1, 1), "B3": Tally(1, 1)}


def test_the_table_of_a_run_reads_downwards() -> None:
    """How many passed, how many failed, and which have no test that ran."""
    lines = list(table(["R1", "R2", "R3", "B1", "B2", "B3"], {"R1": Tally(12), "R2": Tally(3, 1), "B3": Tally(1)}))
    assert lines[0].split() == ["R1", "12", "pass", "R3", "-", "none", "B2", "-", "none"]
    assert lines[1].split() == ["R2", "1", "FAILED", "B1", "-", "none", "B3", "1", "pass"]
