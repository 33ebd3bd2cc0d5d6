"""Is it true what docs/faults.md says about its tests?"""

import ast
import re
from pathlib import Path

import pytest

from tests.unit.docs.pages import ROOT

PAGE = (ROOT / "docs" / "faults.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("|") and not line.startswith(("| Fault |", "|---"))]
REFERENCE = re.compile(r"\[[\w/.]+\]\(\.\./(tests/[\w/]+\.py)\): ((?:`\w+`(?:, )?)+)")


def functions(file: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_each_fault_says_what_is_seen_and_names_tests_that_exist(row: str) -> None:
    """A fault without a test is a claim; so is one whose test was renamed."""
    fault, seen, tests = (cell.strip() for cell in row.strip("|").split("|"))
    assert fault
    assert seen
    named = [(file, name) for file, names in REFERENCE.findall(tests) for name in re.findall(r"`(\w+)`", names)]
    assert named
    assert len(named) == tests.count("`test_")
    assert all(name in functions(ROOT / file) for file, name in named)


@pytest.mark.parametrize(
    "word",
    [
        "SIGSTOP", "SCRIPT FLUSH", "CLIENT PAUSE", "Out of memory", "eviction", "reply is lost", "Table locked",
        "A row that no table takes", "SIGKILL after admit", "SIGTERM", "black-holing", "529", "Retry-After",
        "gzip bomb", "prober", "Midnight", "price changes", "Slow by the thousand", "Desync", "Secrets", "Two tenants",
    ],
)  # fmt: skip
def test_the_matrix_has_the_fault(word: str) -> None:
    """Nobody drops a row unnoticed."""
    assert any(word in row.split("|")[1] for row in ROWS)
