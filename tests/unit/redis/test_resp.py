"""Commands as bytes: what is spliced is the same as what hiredis would have packed."""

from typing import Any

import hiredis
from hypothesis import given
from hypothesis import strategies as st

from perpetuo.adapters.redis.resp import Bulks, pack_call

PARTS = st.lists(st.binary(max_size=20) | st.text(max_size=8) | st.integers(-(2**70), 2**70), min_size=1, max_size=8)


GROUPS = st.lists(st.tuples(PARTS, st.booleans()), max_size=5)
"""Parts, and whether they were written down beforehand."""


@given(GROUPS, GROUPS)
def test_spliced_calls_are_those_of_hiredis(
    keys: list[tuple[list[object], bool]], arguments: list[tuple[list[object], bool]]
) -> None:
    """Whichever parts were written down beforehand; the keys are announced by their number."""
    plain: list[Any] = [part for parts, _ in keys for part in parts]
    further: list[Any] = [part for parts, _ in arguments for part in parts]
    packed = pack_call(b"EVALSHA", b"0123", _blocks(keys), _blocks(arguments))
    assert packed == hiredis.pack_command((b"EVALSHA", b"0123", len(plain), *plain, *further))


def _blocks(groups: list[tuple[list[object], bool]]) -> list[Bulks | list[object]]:
    return [Bulks.of(*parts) if early else parts for parts, early in groups]


def test_an_empty_run_of_parts_is_none() -> None:
    """A call without limits has no keys to splice."""
    assert pack_call(b"EVALSHA", b"0123", [Bulks.of()], []) == b"*3\r\n$7\r\nEVALSHA\r\n$4\r\n0123\r\n$1\r\n0\r\n"
