"""How deep a request may be nested: what is accepted can be sent, and what is not is the client's mistake."""

from collections.abc import Callable

import pytest

from perpetuo.adapters.dialects.openai import BadRequest, parse_chat, render
from perpetuo.domain.model.models import Target
from perpetuo.domain.model.upstream import Outbound
from tests.unit.dialects.test_openai_requests import body


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
@pytest.mark.parametrize("depth", [1_000, 1_000_000])
def test_s4_a_body_too_deep_is_refused_not_a_crash(opening: bytes, depth: int) -> None:
    """A million brackets end in a 400."""
    for raw in (opening * depth, body(b',"a":' + opening * depth), b'{"model":"m","messages":' + opening * depth):
        with pytest.raises(BadRequest):
            parse_chat(raw)


DEEP = 20_000


def from_depth(frames: int, what: Callable[[], bytes]) -> bytes:
    """``what()``, with so many more frames on the stack."""
    return what() if frames == 0 else from_depth(frames - 1, what)


@pytest.mark.parametrize("depth", [50, 400, 700, 850, 900, 930, 950, 970, 1_000, DEEP])
def test_s4_deep_stream_options_are_a_400_and_never_a_failure_of_the_provider(depth: int) -> None:
    """Read with much stack left and rendered with little: what was accepted goes out, from anywhere."""
    options = b'{"a":' + b"[" * depth + b"]" * depth + b"}"
    try:
        ask = parse_chat(body(b',"stream":true,"stream_options":' + options))
    except BadRequest:
        assert depth > 400
        return
    assert depth != DEEP
    outbound = Outbound(ask, Target("p", "other"), "call", "max_tokens", 7, 0.0)
    out = from_depth(200, lambda: render(outbound))
    assert out.endswith(b'"stream_options":' + options[:-1] + b',"include_usage":true},"max_tokens":7}')
