"""What goes through the reader of a stream, in any splitting, and what it takes note of."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpetuo.adapters.dialects.sse import DONE, ChatStreamReader, Verdict
from perpetuo.domain.model.upstream import Ending
from perpetuo.domain.model.usage import Usage

USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}


def chunk(content: str | None = None, finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    delta = {} if content is None else {"content": content}
    return {"id": "c", "choices": [{"index": index, "delta": delta, "finish_reason": finish}], **more}


def event(data: Any) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


def read(data: bytes, cuts: tuple[int, ...] = (), **asked: Any) -> tuple[bytes, ChatStreamReader]:
    reader = ChatStreamReader(**asked)
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return b"".join(reader.feed(data[a:b]) for a, b in itertools.pairwise(edges)), reader


GOOD = [event(chunk("Hallo ")), event(chunk("Wörld")), event(chunk(finish="stop"))]


def test_c7_a_whole_stream_goes_through_untouched() -> None:
    """Byte for byte, without its terminal event."""
    out, reader = read(b"".join(GOOD) + DONE)
    assert out == b"".join(GOOD)
    assert (reader.verdict, reader.end(), reader.output_bytes) == (Verdict.DONE, Ending.COMPLETE, 12)


EVENTS = st.sampled_from(
    [
        event(chunk("a")),
        event(chunk("ä€😀")),
        event(chunk(finish="stop")),
        event({"choices": [], "usage": USAGE}),
        event({**chunk("x"), "usage": None}),
        b": comment\n\n",
        b"event: x\ndata: {}\n\n",
        b"data:{}\n\n",
        b'data: {"a":\ndata: 1}\n\n',
        b"id: 5\n\n",
        b"\n",
        b"retry: 5\ndata: {}\nfoo\n\n",
        b"data: <<\n\n",
        b'data: {"a":1}{"b":2}\n\n',
        b'data: {"a":{}\n\ndata: {"b":1}}\n\n',
        b'data: {"error":{"message":"x"}}\n\n',
        b'data: "text"\n\n',
        b"data: \xff\n\n",
        b'data: {"choices":5}\n\n',
        DONE,
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(EVENTS, max_size=8),
    st.lists(st.integers(0, 2000), max_size=12),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.booleans(),
)
def test_c7_splitting_and_line_ends_change_nothing(events: list[bytes], cuts: list[int], end: bytes, bom: bool) -> None:
    """However the bytes arrive, the same goes on and the same is noted."""
    raw = b"".join(events)
    expected, reader = read(raw)
    out, other = read((b"\xef\xbb\xbf" if bom else b"") + raw.replace(b"\n", end), tuple(cuts))
    assert out == expected
    for name in ("verdict", "usage", "output_bytes", "started", "error"):
        assert getattr(other, name) == getattr(reader, name), name
    assert other.end() == reader.end()


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_c7_byte_by_byte_is_no_different(end: bytes) -> None:
    """A CR and its LF may come apart, in the middle of an event of two lines."""
    raw = b'data: {"choices":\ndata: []}\n\n'.replace(b"\n", end)
    out, reader = read(raw, tuple(range(len(raw))))
    assert (out, reader.verdict) == (b'data: {"choices": []}\n\n', None)


@settings(max_examples=200, deadline=None)
@given(st.lists(EVENTS, max_size=8), st.lists(st.integers(0, 2000), max_size=12))
def test_c7_only_valid_events_go_on(events: list[bytes], cuts: list[int]) -> None:
    """Every event a client gets is a JSON object in a ``data:`` line of its own, or our comment."""
    out, _ = read(b"".join(events), tuple(cuts))
    for one in out.split(b"\n\n")[:-1]:
        assert one == b": keep-alive" or isinstance(json.loads(one.removeprefix(b"data: ")), dict)
    assert not out or out.endswith(b"\n\n")


@pytest.mark.parametrize(
    "bad",
    [
        b"data: {\n\n",
        b"data: <<\n\n",
        b"data: [1\n\n",
        b"data: 5\n\n",
        b'data: {"a":NaN}\n\n',
        b'data: {"a":"\xff"}\n\n',
    ],
)
def test_c7_an_event_that_is_no_json_object_ends_the_stream(bad: bytes) -> None:
    """It may have carried text; what stood before it in the same bytes still goes on."""
    out, reader = read(GOOD[0] + bad + GOOD[1] + DONE)
    assert (out, reader.verdict, reader.end()) == (GOOD[0], Verdict.MALFORMED, Ending.MALFORMED)


@pytest.mark.parametrize(
    "bad",
    [
        b'data: {"a":1}{"b":2}\n\ndata:  \n\n',
        b'data: {"a":{}\n\ndata: {"b":1}}\n\n',
        b'data: {"a":{}\n\ndata: {"b":1}{"c":1}}\n\n',
        b'data: {"a":[{}\n\ndata: {}]}{}\n\n',
        b'data: {"choices":[]}{"choices":[]}\n\n',
        b'data: {"choices":[]}{"choices":[]}\n\ndata: {"choices":[],"a":\n\ndata: {}}\n\n',
        b'data: {"choices":[],"a":"\xff"}\n\n',
    ],
)
def test_c7_events_can_not_make_up_for_each_other(bad: bytes) -> None:
    """Reading many events at once must not accept what one by one would be refused."""
    _, reader = read(GOOD[0] + bad)
    assert reader.verdict is Verdict.MALFORMED


@pytest.mark.parametrize("tail", [b"", b"data: ", b'data: {"cho', GOOD[1][:-1], b"data: [DON"])
def test_c7_a_stream_cut_short_is_truncated(tail: bytes) -> None:
    """Also when its last event lacks only its blank line."""
    out, reader = read(GOOD[0] + tail)
    assert (out, reader.end()) == (GOOD[0], Ending.TRUNCATED)


@pytest.mark.parametrize("tail", [b"data: [DONE]", b"data: [DONE]\n", b"data:[DONE]\r\n"])
def test_c7_a_terminal_event_without_its_blank_line_counts(tail: bytes) -> None:
    """Some servers forget it at the very end."""
    assert read(GOOD[0] + tail)[1].end() is Ending.COMPLETE


def test_c7_a_finish_reason_and_a_clean_end_are_complete() -> None:
    """The gateway then adds the missing ``[DONE]``."""
    assert read(b"".join(GOOD))[1].end() is Ending.COMPLETE
    assert read(event(chunk("a", finish="")))[1].end() is Ending.TRUNCATED


def test_c7_every_choice_must_have_finished() -> None:
    """One of two answers is half a call."""
    first, second = event(chunk(finish="stop")), event(chunk(finish="length", index=1))
    assert read(first, choices=2)[1].end() is Ending.TRUNCATED
    assert read(first + first, choices=2)[1].end() is Ending.TRUNCATED
    assert read(first + second, choices=2)[1].end() is Ending.COMPLETE


def test_nothing_after_the_terminal_event_counts() -> None:
    """Neither to the client nor into the bill."""
    out, reader = read(GOOD[0] + DONE + GOOD[1] + b"data: <<\n\n")
    assert (out, reader.verdict, reader.output_bytes) == (GOOD[0], Verdict.DONE, 6)
    assert reader.feed(GOOD[1]) == b""


@pytest.mark.parametrize("cuts", [(), tuple(range(0, 2000, 7))])
def test_the_usage_chunk_is_for_those_who_asked(cuts: tuple[int, ...]) -> None:
    """It is read in any case."""
    raw = b"".join(GOOD) + event({"choices": [], "usage": USAGE}) + DONE
    out, reader = read(raw, cuts)
    assert (out, reader.usage) == (b"".join(GOOD), Usage(5, 3))
    out, reader = read(raw, cuts, wants_usage=True)
    assert (out, reader.usage) == (raw.removesuffix(DONE), Usage(5, 3))


@pytest.mark.parametrize("cuts", [(), tuple(range(0, 2000, 7))])
def test_b8_two_answers_from_llama_cpp_do_not_cost_as_much_as_one(cuts: tuple[int, ...]) -> None:
    """It reports on each of them by itself, in two chunks without choices; the prompt was read once."""
    own = [event({"choices": [], "usage": {**USAGE, "completion_tokens": n, "total_tokens": 5 + n}}) for n in (3, 4)]
    first, second = event(chunk("a", finish="stop")), event(chunk("b", finish="stop", index=1))
    out, reader = read(first + own[0] + second + own[1] + DONE, cuts, choices=2)
    assert (out, reader.usage) == (first + second, Usage(5, 7))
    assert read(own[0] + own[1], cuts)[1].usage == Usage(5, 4)
    beside = event(chunk("a", usage=USAGE))
    assert read(beside + own[1], cuts, choices=2)[1].usage == Usage(5, 4)


def test_usage_beside_choices_is_kept_in_place() -> None:
    """Some servers put it into the last chunk, or count up in every one."""
    raw = event(chunk("a", usage={**USAGE, "completion_tokens": 1, "total_tokens": 6})) + event(
        chunk(finish="stop", usage=USAGE)
    )
    out, reader = read(raw)
    assert (out, reader.usage) == (raw, Usage(5, 3))
    assert read(event(chunk("a", usage=None)))[1].usage is None


@pytest.mark.parametrize(
    "data",
    [
        b'{"error":{"message":"x","code":500}}',
        b'{"error":"x"}',
        b'{"object":"error","message":"x","code":400}',
        b'{"error":{"code":1},"choices":[]}',
    ],
)
def test_an_error_event_ends_the_stream(data: bytes) -> None:
    """It doesn't go on; what it says is kept for us."""
    out, reader = read(GOOD[0] + b"data: " + data + b"\n\n" + DONE)
    assert (out, reader.verdict, reader.error) == (GOOD[0], Verdict.ERROR, data)
    assert read(b"error: " + data + b"\n\n")[1].verdict is Verdict.ERROR
    assert read(event(chunk("a", error=None)))[1].verdict is None


def test_comments_are_no_first_token_but_keep_the_client_alive() -> None:
    """A provider's own text in them goes nowhere."""
    out, reader = read(b": host-17 processing\n\n: x\n\n")
    assert (out, reader.started) == (b": keep-alive\n\n" * 2, False)
    assert read(GOOD[0])[1].started
    assert read(b"event: ping\n\n")[0] == b""


def test_b9_every_kind_of_output_is_counted() -> None:
    """The bound of a call without usage covers all that may have been tokens."""
    function = {"name": "fn", "arguments": '{"a"'}
    delta = {
        "content": "é",
        "refusal": "no",
        "reasoning_content": "abc",
        "reasoning": "de",
        "tool_calls": [{"index": 0, "function": function}],
        "function_call": function,
    }
    raw = event({"choices": [{"index": 0, "delta": delta}, {"index": 1, "delta": {"content": "xy"}}]})
    assert read(raw)[1].output_bytes == 2 + 2 + 3 + 2 + 6 + 6 + 2


def test_b9_an_event_of_unknown_shape_counts_whole() -> None:
    """Its finish and usage are read as far as they are clear."""
    raw = event({"choices": [{"delta": {"content": [{"text": "a"}]}, "finish_reason": "stop"}], "usage": USAGE})
    out, reader = read(raw)
    assert (out, reader.usage, reader.end()) == (raw, Usage(5, 3), Ending.COMPLETE)
    assert reader.output_bytes == len(raw) - len(b"data: \n\n")


def test_s4_an_endless_event_is_not_kept() -> None:
    """Nor is its prefix lost that was good."""
    out, reader = read(GOOD[0] + b"data: " + b"x" * 100, limit=99)
    assert (out, reader.verdict) == (GOOD[0], Verdict.TOO_LARGE)
    assert read(b"x" * 100, tuple(range(100)), limit=99)[1].verdict is Verdict.TOO_LARGE


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_c7_no_bytes_raise_anything(noise: bytes, cuts: list[int]) -> None:
    """A stream of noise is truncated, malformed or nothing; never a crash."""
    for raw in (noise, GOOD[0] + noise, b"data: " + noise + b"\n\n", b"data: " + b"[" * 5000 + noise + b"\n\n"):
        _, reader = read(raw, tuple(cuts))
        reader.end()
