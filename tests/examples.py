"""
How many examples does Hypothesis try?

    @examples(100, 1_000)                   # few in `make test`, many in `make test-slow`
    @given(...)
    def test_r1_...

Few are enough where a defect of any size shows soon; many are for what hides. A test with this decorator carries the
mark ``examples``, by which `make test-slow` finds it; EXAMPLES=many chooses the larger number.
"""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from hypothesis import settings

Test = TypeVar("Test", bound=Callable[..., Any])
MANY = os.environ.get("EXAMPLES") == "many"


def examples(few: int, many: int, **options: Any) -> Callable[[Test], Test]:
    """`hypothesis.settings` with one of two numbers; a busy machine is no failure, so there is no deadline."""

    def decorate(test: Test) -> Test:
        limited = settings(max_examples=many if MANY else few, deadline=None, **options)(test)
        marked: Test = pytest.mark.examples(pytest.mark.timeout(600)(limited) if MANY else limited)
        return marked

    return decorate
