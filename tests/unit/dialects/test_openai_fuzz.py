"""Whatever JSON stands at whatever member: the request is read, or refused in words; nothing else (S3, S9)."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpetuo.adapters.dialects.openai import BadRequest, fingerprint, parse_chat, parse_embeddings, render
from perpetuo.domain.model.chat import Ask
from perpetuo.domain.model.models import Target
from perpetuo.domain.model.upstream import Outbound
from tests.examples import examples
from tests.odd import MEMBERS, VALUES

PART_KEYS = ["type", "text", "image_url", "input_audio", "file", "url", "data", "file_data", "Type", "content", "audio"]
WORDS = ["", "text", "image_url", "function", "m", "auto", "data:;base64,AAAA", "\ufffe", "\U0001f600", "a\u0000b"]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, 1, -1, 2**31 - 1, 2**31, 2**53 + 1, 2**63, 2**64, 10**400])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(WORDS)
    | st.text(max_size=5)
)
ANY = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(PART_KEYS), inner, max_size=4),
    max_leaves=8,
)
MESSAGE = st.fixed_dictionaries({}, optional={"role": SCALARS, "content": ANY, "audio": ANY, "tool_calls": ANY})
GOOD: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "input": "hi"}


def read(parse: Any, body: bytes) -> Ask | None:
    """What is made of a body; ``None``: it was refused, with something to say."""
    try:
        ask: Ask = parse(body)
        fingerprint("POST", "/v1/x", body)
    except BadRequest as error:
        refusal = error
    else:
        return ask
    assert refusal.message
    return None


def check_rendered(ask: Ask, body: bytes) -> None:
    """What was accepted can go to any target, and goes with the same values."""
    for model, field in ((ask.model, None), ("another", "max_tokens"), ("*", "max_completion_tokens")):
        out = Outbound(ask, Target("p", model), "call", field, None if field is None else 7, 0.0)
        given, sent = json.loads(body), json.loads(render(out))
        assert sent["model"] == (model if model == "another" else ask.model)
        assert field is None or sent[field] == 7
        for name in ("model", "stream_options", "max_tokens", "max_completion_tokens"):
            given.pop(name, None)
            sent.pop(name, None)
        assert sent == given


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("parse", [parse_chat, parse_embeddings])
def test_s3_every_member_takes_every_kind_of_value(parse: Any, member: str) -> None:
    """An empty list as `service_tier` was a 500."""
    for value in VALUES:
        body = json.dumps(GOOD | {"stream": True, member: value}).encode()
        ask = read(parse, body)
        if ask is not None:
            check_rendered(ask, body)


@examples(80, 1_000)
@given(st.dictionaries(st.sampled_from(MEMBERS), ANY, max_size=4), st.lists(MESSAGE | ANY, min_size=1, max_size=3))
@pytest.mark.parametrize("parse", [parse_chat, parse_embeddings])
def test_s3_any_value_at_any_member_is_read_or_refused(parse: Any, members: Any, messages: Any) -> None:
    """Never an exception of another kind, which would be a 500; and what is read can be sent on."""
    for body in (json.dumps(GOOD | members), json.dumps(GOOD | {"messages": messages}, ensure_ascii=False)):
        ask = read(parse, body.encode())
        if ask is not None:
            check_rendered(ask, body.encode())


BODIES = [
    json.dumps(GOOD | {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": 5}).encode(),
    json.dumps(GOOD | {"tools": [{"type": "function", "function": {"name": "f"}}], "modalities": ["text"]}).encode(),
    json.dumps(
        GOOD | {"messages": [{"content": [{"type": "text", "text": "é\u2028"}], "audio": {"id": "1"}}]}
    ).encode(),
]
PIECES = [
    b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\\u0000", b"\\ud800", b"\\ud83d\\ude00", b"\xff", b"\xc0\xaf",
    b"\xef\xbb\xbf", b"null", b"NaN", b"-0", b"1e999", b'"model":"x",', b'"\\u006dodel":1,', b'"type":"text",', b"\0",
]  # fmt: skip
CHANGE = st.tuples(st.integers(0, 250), st.integers(0, 9), st.sampled_from(PIECES) | st.binary(max_size=3))


@examples(150, 2_000)
@given(st.sampled_from(BODIES), st.lists(CHANGE, min_size=1, max_size=3))
def test_s3_s9_any_bytes_are_read_or_refused(body: bytes, changes: list[tuple[int, int, bytes]]) -> None:
    """Good bodies with pieces cut out and put in; a body that is read is JSON without a doubled top-level key."""
    for at, cut, piece in changes:
        body = body[:at] + piece + body[at + cut :]
    for parse in (parse_chat, parse_embeddings):
        ask = read(parse, body)
        if ask is not None:
            names = json.loads(body, object_pairs_hook=lambda found: [name for name, _ in found])
            assert len(set(names)) == len(names)
            check_rendered(ask, body)
