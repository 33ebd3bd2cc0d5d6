"""Does the interpreter get its interval back, whoever gave way, and in whatever order they ended?"""

import sys
from contextlib import ExitStack

import pytest

from perpetuo.adapters.system import GIVES_WAY_SECONDS, giving_way


def test_the_last_of_several_puts_the_interval_back() -> None:
    """The first may end first: it must not end it for the second, nor the second keep it for ever."""
    usual = sys.getswitchinterval()
    first, second = ExitStack(), ExitStack()
    first.enter_context(giving_way)
    second.enter_context(giving_way)
    first.close()
    assert sys.getswitchinterval() == pytest.approx(GIVES_WAY_SECONDS)
    second.close()
    assert sys.getswitchinterval() == pytest.approx(usual)
