"""``traceparent`` and ``tracestate``: what is valid goes on as a child, what is not is ignored (W3C Trace Context)."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpetuo.domain.model.trace import Trace, span_of
from perpetuo.entrypoints.http.intake import Options, options_of, read_head
from perpetuo.entrypoints.http.traces import state_of, trace_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
CHILD = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3]")
HEX = "0123456789abcdef"
SEVERAL = ",".join(f"k{n}={'y' * 50}" for n in range(8))


def ids(digits: int) -> st.SearchStrategy[str]:
    return st.text(HEX, min_size=digits, max_size=digits).filter(lambda text: text.strip("0") != "")


@given(ids(32), ids(16), st.integers(0, 255), st.integers(1, 9))
def test_a_valid_traceparent_goes_on_as_a_child(trace: str, span: str, flags: int, attempt: int) -> None:
    """Its trace id and known flags are kept; the span id is this attempt's own."""
    read = trace_of(f"00-{trace}-{span}-{flags:02x}", None)
    assert read == Trace(trace, span, flags)
    child = read.child("0193-call", attempt)
    assert child == f"00-{trace}-{span_of('0193-call', attempt)}-{flags & 3:02x}"
    assert CHILD.fullmatch(child)
    assert read.sampled == (flags % 2 == 1)


def test_each_attempt_of_each_call_has_a_span_of_its_own() -> None:
    """Ids follow from call and attempt: the same again, and no two alike."""
    spans = [span_of(call, attempt) for call in ("a", "b") for attempt in range(9)]
    assert len(set(spans)) == len(spans)
    assert span_of("a", 1) == spans[1]


@pytest.mark.parametrize(
    "text",
    [
        None, "", "canary", PARENT.upper(), PARENT + "-", PARENT + "-more", PARENT + "x", PARENT[:-1],
        "ff" + PARENT[2:],
        PARENT.replace(TRACE, "0" * 32), PARENT.replace(SPAN, "0" * 16), PARENT.replace("4bf9", "4bg9"),
        f"{PARENT},{PARENT}",
    ],
)  # fmt: skip
def test_an_invalid_traceparent_is_ignored(text: str | None) -> None:
    """Nothing of it is kept or sent on, and neither is the tracestate beside it."""
    assert trace_of(text, "vendor=1") is None


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    """And goes on as version 00 without what follows."""
    read = trace_of(f"01-{TRACE}-{SPAN}-01-what-comes-later", None)
    assert read is not None
    assert read.child("c", 1).startswith(f"00-{TRACE}-")
    assert trace_of(f"01-{TRACE}-{SPAN}-01.", None) is None


def test_headers_sent_twice_are_one_list() -> None:
    """Which tracestate can be; two traceparents are none."""
    head = read_head([(b"traceparent", PARENT.encode()), (b"tracestate", b"a=1"), (b"tracestate", b"b=2")])
    said = options_of(head)
    assert isinstance(said, Options)
    assert said.trace == Trace(TRACE, SPAN, 1, "a=1,b=2")
    said = options_of(read_head([(b"traceparent", PARENT.encode())] * 2))
    assert isinstance(said, Options)
    assert said.trace is None


@pytest.mark.parametrize(
    ("text", "sent_on"),
    [
        ("a=1", "a=1"),
        ("a=1 , b=2\t,,t@v=x y", "a=1,b=2,t@v=x y"),
        ("a=1,a=2", None),
        ("a=1,=2", None),
        ("a=b=c", None),
        ("A=1", None),
        ("a=\x7f", None),
        ("a=\u00e9", None),
        (" , ", None),
        (",".join(f"k{n}=1" for n in range(32)), ",".join(f"k{n}=1" for n in range(32))),
        (",".join(f"k{n}=1" for n in range(33)), None),
        (f"long={'x' * 200}," + SEVERAL, SEVERAL),
        (",".join(f"k{n}={'y' * 97}" for n in range(9)), ",".join(f"k{n}={'y' * 97}" for n in range(5))),
    ],
)  # fmt: skip
def test_tracestate_goes_on_within_its_limits(text: str, sent_on: str | None) -> None:
    """Whole, or shortened as the standard says, or not at all."""
    assert state_of(text) == sent_on


@given(st.text(st.characters(max_codepoint=255), max_size=700))
def test_s1_whatever_is_sent_as_tracestate_is_a_safe_header(text: str) -> None:
    """Printable ASCII of at most 512 characters, so that no line of a request is anybody else's."""
    state = state_of(text)
    assert state is None or (len(state) <= 512 and re.fullmatch(r"[\x20-\x7e]+", state))
