"""What counts as an idempotency key? (I1)"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.entrypoints.http.intake import idempotency_key, read_head

VISIBLE = "".join(chr(code) for code in range(0x21, 0x7F))
NAMES = [b"x-idempotency-key", b"idempotency-key"]


def read(*values: bytes, name: bytes = NAMES[0]) -> str | None | Refusal:
    return idempotency_key(read_head([(name, value) for value in values]))


def refused(found: str | None | Refusal) -> bool:
    return isinstance(found, Refusal) and found.reason is Reason.IDEMPOTENCY_KEY_INVALID


@pytest.mark.parametrize("name", NAMES)
def test_i1_either_header_names_the_key(name: bytes) -> None:
    """Ours, and the one of the IETF's draft; without one there is none."""
    assert read(b"order-7", name=name) == "order-7"
    assert read(name=name) is None


def test_i1_a_quoted_key_is_the_same_key() -> None:
    """The draft quotes it; one quote, or quotes inside, are part of the key."""
    assert read(b'"order-7"') == read(b"order-7") == read(b"  order-7 ") == "order-7"
    assert read(b'"order') == '"order'
    assert read(b'or"der') == 'or"der'
    assert read(b'""a""') == '"a"'


@given(st.text(VISIBLE, min_size=1, max_size=255))
def test_i1_every_visible_ascii_text_of_up_to_255_is_a_key(text: str) -> None:
    """Quoted or not, and whatever it is made of."""
    assert read(b'"' + text.encode() + b'"') == text
    if len(text) < 2 or not (text[0] == text[-1] == '"'):
        assert read(text.encode()) == text


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b'""',
        b'" "',
        b"a b",
        b"a\tb",
        b"a\x00",
        b"a\x7f",
        b"\xe9",
        "é".encode(),
        b"x" * 256,
        b'"' + b"x" * 256 + b'"',
    ],
)
def test_i1_anything_else_is_refused(value: bytes) -> None:
    """Empty, also in quotes; blanks and controls within; beyond ASCII; 256 characters."""
    assert refused(read(value))


def test_i1_two_keys_are_refused_even_if_they_are_equal() -> None:
    """Which one would count? In one header or in both."""
    assert refused(read(b"a", b"a"))
    assert refused(idempotency_key(read_head([(name, b"a") for name in NAMES])))
