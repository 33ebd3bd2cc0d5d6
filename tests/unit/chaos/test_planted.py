"""The bugs that `tests.chaos.planted` plants: do they still have their places in the code?"""

import py_compile
from pathlib import Path

import pytest

from tests.chaos.planted import BUGS, Bug, plant


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_bug_can_be_planted(bug: Bug, tmp_path: Path) -> None:
    """Its text stands once in its file, and what comes of it still is Python, where it is Python."""
    (tmp_path / bug.file).parent.mkdir(parents=True)
    plant(bug, tmp_path)
    assert bug.new in (tmp_path / bug.file).read_text()
    if bug.file.endswith(".py"):
        py_compile.compile(str(tmp_path / bug.file), str(tmp_path / "compiled"), doraise=True)
