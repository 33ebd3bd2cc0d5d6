"""Commands as bytes: what is spliced is the same as what hiredis would have packed."""

from typing import Any

import hiredis
from hypothesis import given
from hypothesis import strategies as st

from perpetuo.adapters.redis.resp import Bulks, counted, pack

PARTS = st.lists(st.binary(max_size=20) | st.text(max_size=8) | st.integers(-(2**70), 2**70), min_size=1, max_size=8)


@given(st.lists(st.tuples(PARTS, st.booleans()), min_size=1, max_size=5))
def test_spliced_commands_are_those_of_hiredis(groups: list[tuple[list[object], bool]]) -> None:
    """Whichever parts were written down beforehand."""
    plain: list[Any] = [part for parts, _ in groups for part in parts]
    spliced = [one for parts, early in groups for one in ([Bulks.of(*parts)] if early else parts)]
    assert pack(spliced) == hiredis.pack_command(tuple(plain))
    assert counted(spliced) == len(plain)


def test_an_empty_run_of_parts_is_none() -> None:
    """A call without limits has no keys to splice."""
    assert pack([b"PING", Bulks.of()]) == b"*1\r\n$4\r\nPING\r\n"
