"""Events that are not decoded because they differ in nothing but their text: as if each had been."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perpetuo.adapters.dialects.alike import MOST_BYTES, Frame
from perpetuo.adapters.dialects.sse import DONE, ChatStreamReader

TEXTS = [" hi", "word", "é", "€", 'a"b', "x\\y", "new\nline", "", "\x7f", "data: {", "]}", "\u2028", "😀"]


def event(delta: dict[str, Any], finish: str | None = None, *, ascii_only: bool = True, **more: Any) -> bytes:
    data = {"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}
    return b"data: " + json.dumps(data, separators=(",", ":"), ensure_ascii=ascii_only).encode() + b"\n\n"


def around(raw: bytes, tail: bytes = b'"},"finish_reason":null}]}') -> bytes:
    return b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"' + raw + tail + b"\n\n"


USUAL = st.builds(event, st.fixed_dictionaries({"content": st.sampled_from(TEXTS)}), ascii_only=st.booleans())
ODD = st.sampled_from(
    [
        event({"role": "assistant", "content": ""}),
        event({"content": "a", "reasoning_content": "hm"}),
        event({"tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}),
        event({}, "stop"),
        event({"content": "both"}, "stop"),
        event({"content": "a"}, usage={"prompt_tokens": 5, "completion_tokens": 7}),
        event({"content": "a"}, content="elsewhere"),
        event({"content": "a"}, created=2),
        b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7}}\n\n',
        b": comment\n\n",
        b"event: x\ndata: {}\n\n",
        b'data: {"error":{"message":"x"}}\n\n',
        around(b"\xff"),
        around(b"\xe2\x82"),
        around(b'a"b'),
        around(b"a\x01b"),
        around(b"a", b'"},"finish_reason":null}]}}'),
        around(b"a", b'"},"finish_reason":null}]'),
        DONE,
    ]
)


def heard(reader: ChatStreamReader) -> tuple[object, ...]:
    return reader.usage, reader.output_bytes, reader.verdict, reader.started, reader.error, reader.end()


@settings(max_examples=300)
@given(
    events=st.lists(USUAL | USUAL | USUAL | ODD, max_size=12),
    cuts=st.lists(st.integers(0, 3_000), max_size=4),
    choices=st.integers(1, 2),
    wants_usage=st.booleans(),
)
@example(events=[event({"content": "a"}), around(b"\xe2\x82"), around(b"\xac")], cuts=[], choices=1, wants_usage=False)
@example(events=[event({"content": t}) for t in "abcd"], cuts=[], choices=1, wants_usage=False)
def test_c7_an_event_that_is_not_decoded_says_the_same(
    events: list[bytes], cuts: list[int], choices: int, wants_usage: bool
) -> None:
    """Whatever comes, in any splitting: the reader that looks for frames and one that decodes all hear the same."""
    data = b"".join(events)
    looking, decoding = (ChatStreamReader(choices=choices, wants_usage=wants_usage) for _ in range(2))
    decoding._learning = 0
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    for start, end in itertools.pairwise(edges):
        piece = data[start:end]
        assert looking.feed(piece) == decoding.feed(piece)
        assert heard(looking)[:5] == heard(decoding)[:5]
    assert heard(looking) == heard(decoding)


def test_most_events_of_a_stream_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first two are, the odd one, and the last: the rest has the bytes of the second around its text."""
    texts = [event({"content": f" word{n}"}) for n in range(40)]
    given_ = [event({"role": "assistant", "content": ""}), *texts[:20], event({"content": "\n"}), *texts[20:]]
    decoded: list[bytes] = []
    plain = ChatStreamReader._read_plain

    def counting(self: ChatStreamReader, part: bytes) -> bytes | None:
        decoded.append(part)
        return plain(self, part)

    monkeypatch.setattr(ChatStreamReader, "_read_plain", counting)
    reader = ChatStreamReader()
    assert reader.feed(b"".join([*given_, event({}, "stop"), DONE])) == b"".join([*given_, event({}, "stop")])
    assert [part.count(b"\n\n") for part in decoded] == [1, 1, 1, 1]
    assert reader.output_bytes == sum(len(f" word{n}") for n in range(40)) + 1


def test_s4_odd_events_in_a_large_block_are_not_looked_at_again_from_each() -> None:
    """A run ends where `MOST_BYTES` do, and the next one goes on."""
    frame = Frame.of(around(b"a"), "a")
    assert frame is not None
    block = around(b"word") * 2_000
    end, size = frame.run(block, 0)
    assert 0 < end <= MOST_BYTES
    assert size == 4 * (end // len(around(b"word")))
    reader = ChatStreamReader()
    assert reader.feed(block) == block
    assert reader.output_bytes == 8_000


@pytest.mark.parametrize(
    "odd", [event({"content": ""}), event({"content": 'a"'}), event({"content": "a"}, content="a"), b"data: {}\n\n"]
)
def test_there_is_no_frame_around_a_text_that_can_not_be_found_for_sure(odd: bytes) -> None:
    """Empty, escaped, or under a name that stands twice."""
    content = json.loads(odd[6:]).get("choices", [{"delta": {"content": "a"}}])[0]["delta"]["content"]
    assert Frame.of(odd, content) is None
