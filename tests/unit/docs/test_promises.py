"""Is it true what docs/promises.md says about its tests?"""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from tests.unit.docs.pages import ROOT


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("promise_table", ROOT / "scripts" / "promise_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = _script()
PAGE: str = script.PAGE.read_text()
PROMISES = set(script.promises(PAGE))


def test_the_table_is_up_to_date() -> None:
    """Somebody who adds a test for a promise adds it to the page: run scripts/promise_table.py."""
    assert script.rewritten(PAGE, script.collect()) == PAGE, "run: .venv/bin/python scripts/promise_table.py"


def test_each_named_test_exists() -> None:
    """No test that was renamed or removed is still claimed."""
    existing = {(test.file, test.name) for test in script.collect()}
    claimed = {
        (f"tests/{file}", name)
        for row in PAGE.splitlines()
        for file, names in re.findall(r"\[([\w/]+\.py)\]\([^)]*\): ([^<|]*)", row)
        for name in re.findall(r"`(\w+)`", names)
    }
    assert claimed
    assert claimed <= existing


def test_promises_without_a_test_are_listed() -> None:
    """What no test holds is not passed over."""
    tested = {number for test in script.collect() for number in test.promises}
    listed = re.search(r"^- No test of that name: (.*)\.$", PAGE, re.MULTILINE)
    assert listed is not None
    assert set(re.findall(r"[A-Z]\d+", listed[1])) == PROMISES - tested


def test_tests_name_promises_that_exist() -> None:
    """A slip such as ``test_b10_…`` would prove nothing."""
    letters = {number[0] for number in PROMISES}
    unknown = {n for test in script.collect() for n in test.promises if n[0] in letters and n not in PROMISES}
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
