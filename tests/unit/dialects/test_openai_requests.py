"""What a request in OpenAI's dialect is read as, and which requests are refused."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpetuo.adapters.dialects.openai import BadRequest, fingerprint, parse_chat, parse_embeddings, render
from perpetuo.domain.model.chat import Ask
from perpetuo.domain.model.models import Target
from perpetuo.domain.model.upstream import Outbound

MESSAGES = b'"messages":[{"role":"user","content":"hi"}]'


def body(extra: bytes = b"", model: bytes = b'"model":"m"') -> bytes:
    return b"{" + model + b"," + MESSAGES + extra + b"}"


def chat(**members: Any) -> Ask:
    given = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **members}
    return parse_chat(json.dumps(given).encode())


def part(kind: str, **members: Any) -> dict[str, Any]:
    return {"type": kind, **members}


def ask_with(*parts: Any) -> Ask:
    return chat(messages=[{"role": "user", "content": list(parts)}])


# --- what is read ---


def test_a_plain_request_is_read() -> None:
    """Everything decisions need is there, and the values are the client's bytes."""
    raw = body(b',"n":2,"max_tokens":5,"max_completion_tokens":7,"temperature":1.50,"stream":true')
    ask = parse_chat(raw)
    assert (ask.model, ask.stream, ask.choices, ask.output_limit) == ("m", True, 2, 7)
    assert ask.fields["temperature"] == b"1.50"
    assert list(ask.fields)[2:5] == ["n", "max_tokens", "max_completion_tokens"]
    assert ask.text_bytes == len(raw)


@pytest.mark.parametrize("name", ["n", "max_tokens", "max_completion_tokens", "stream", "stream_options"])
def test_null_is_as_good_as_absent(name: str) -> None:
    """OpenAI's clients send null for what they leave out."""
    ask = chat(**{name: None})
    assert (ask.choices, ask.output_limit, ask.stream, ask.include_usage) == (1, None, False, False)


def test_the_client_is_remembered_to_have_asked_for_usage() -> None:
    """Only such clients get the usage chunk."""
    assert chat(stream=True, stream_options={"include_usage": True}).include_usage
    assert not chat(stream=True, stream_options={"include_usage": False}).include_usage


# --- what is refused ---

REFUSED = [
    (b"", None),
    (b"[]", None),
    (b'"x"', None),
    (b"{", None),
    (b"\xef\xbb\xbf" + body(), None),
    (body() + b"x", None),
    (body(b',"a":NaN'), None),
    (body(b',"a":[Infinity]'), None),
    (body(b',"a":-Infinity'), None),
    (body(b',"a":"\xff"'), None),
    (body(b',"a":["\xed\xa0\x80"]'), None),
    (body(b',"a":"\\ud800"'), None),
    (body(b',"a":["\\udc00x"]'), None),
    (body(b',"a":"\\ud83d\\u0041"'), None),
    (body(b',"a":"\n"'), None),
    (body(b',"a":01'), None),
    (body(b',"a":[1,]'), None),
    (b'{"messages":[{}]}', "model"),
    (b'{"model":"m"}', "messages"),
    (body(model=b'"model":5'), "model"),
    (body(model=b'"model":null'), "model"),
    (body(model=b'"model":""'), "model"),
    (body(model=b'"model":"a\\u0000"'), "model"),
    (body(model=b'"model":"' + b"a" * 257 + b'"'), "model"),
    (b'{"model":"m","messages":[]}', "messages"),
    (b'{"model":"m","messages":"hi"}', "messages"),
    (b'{"model":"m","messages":null}', "messages"),
    (b'{"model":"m","messages":[{"content":"a"},5]}', "messages[1]"),
    (b'{"model":"m","messages":[{"content":"a"},{"content":5}]}', "messages[1].content"),
    (b'{"model":"m","messages":[{"content":[{"type":"text"},5]}]}', "messages[0].content[1]"),
    (body(b',"n":0'), "n"),
    (body(b',"n":129'), "n"),
    (body(b',"n":1.0'), "n"),
    (body(b',"n":true'), "n"),
    (body(b',"n":"1"'), "n"),
    (body(b',"max_tokens":-1'), "max_tokens"),
    (body(b',"max_tokens":1e9'), "max_tokens"),
    (body(b',"max_tokens":99999999999'), "max_tokens"),
    (body(b',"max_completion_tokens":' + b"9" * 5000), "max_completion_tokens"),
    (body(b',"max_completion_tokens":[]'), "max_completion_tokens"),
    (body(b',"stream":1'), "stream"),
    (body(b',"stream":"true"'), "stream"),
    (body(b',"stream_options":[]'), "stream_options"),
    (body(b',"stream_options":{"include_usage":1}'), "stream_options.include_usage"),
    (body(b',"tools":{}'), "tools"),
    (body(b',"modalities":"text"'), "modalities"),
]


@pytest.mark.parametrize(("raw", "param"), REFUSED)
def test_a_malformed_request_is_refused_and_the_member_named(raw: bytes, param: str | None) -> None:
    """The whole body is checked, members nobody reads too; ``param`` is what OpenAI would name."""
    with pytest.raises(BadRequest) as refused:
        parse_chat(raw)
    assert refused.value.param == param
    assert refused.value.message.endswith(".")


@pytest.mark.parametrize(
    "raw",
    [
        body(b',"model":"m"'),
        body(b',"model":"other"'),
        body(b',"\\u006dodel":"other"'),
        body(b' , "n" : 1, "\\u006e":2 '),
        body(b',"max_tokens":1,"max_tokens":12'),
        body(b',"max_tokens":12,"max_tokens":1'),
        body(b',"x":1,"x":1'),
        body(b',"\xc3\xa4":1,"\\u00e4":1'),
        b'{"model":"m","messages":[],' + MESSAGES + b"}",
        b'{"a":1,"a":1,' + body()[1:],
    ],
)
def test_s9_a_key_that_stands_twice_is_refused(raw: bytes) -> None:
    """In any spelling: what we priced must be what the provider reads."""
    with pytest.raises(BadRequest, match="twice"):
        parse_chat(raw)


KEYS = st.text(alphabet='abk"\\ä\u2028', min_size=1, max_size=3)
VALUES = st.sampled_from([1, 12, "", "a", '":', [1, {"a": 2}], {"a": 1, "b": 1}, None, 1.5])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(KEYS, VALUES), max_size=5), st.sampled_from(["", " ", "\n\t"]), st.booleans())
def test_s9_holds_for_any_members_and_spacing(pairs: list[tuple[str, Any]], gap: str, ascii_only: bool) -> None:
    """Refused exactly when a key repeats: never a good body, never a bad one let through."""
    pairs = [("model", "m"), ("messages", [{"content": "x"}]), *pairs]
    written = [[json.dumps(one, ensure_ascii=ascii_only) for one in pair] for pair in pairs]
    inner = ",".join(f"{gap}{key}{gap}:{gap}{value}{gap}" for key, value in written)
    raw = (gap + "{" + inner + "}" + gap).encode()
    keys = [key for key, _ in pairs]
    if len(set(keys)) == len(keys):
        assert list(parse_chat(raw).fields) == keys
    else:
        with pytest.raises(BadRequest, match="twice"):
            parse_chat(raw)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 60))
def test_s3_no_body_raises_anything_else(noise: bytes, at: int) -> None:
    """Whatever is put into a good body, it is read or refused."""
    good = body(b',"stream_options":{"include_usage":true}')
    for raw in (noise, good[:at] + noise + good[at:]):
        for parse in (parse_chat, parse_embeddings):
            try:
                ask = parse(raw)
            except BadRequest:
                continue
            json.loads(raw)
            assert ask.body == raw


# --- what is counted ---

DATA_URL = "data:image/png;base64," + "A" * 1000


def test_b2_media_is_counted_as_parts_and_base64_is_no_text() -> None:
    """Images, audio and files cost by the model's bound, not by their bytes."""
    ask = ask_with(
        part("text", text="look"),
        part("image_url", image_url={"url": DATA_URL}),
        part("image_url", image_url={"url": "https://example.org/a.png"}),
        part("image_url", image_url=DATA_URL),
        part("input_audio", input_audio={"data": "B" * 500, "format": "wav"}),
        part("file", file={"file_data": "data:application/pdf;base64," + "C" * 200, "filename": "a.pdf"}),
        part("file", file={"file_id": "f-1"}),
        part("video_url", video_url={"url": "https://example.org/a.mp4"}),
    )
    assert (ask.images, ask.audios, ask.files) == (3, 1, 3)
    assert ask.text_bytes == len(ask.body) - 1000 - 1000 - 500 - 200


def test_b2_text_that_looks_like_media_stays_text() -> None:
    """A client can't make its text free by dressing it up."""
    ask = chat(messages=[{"role": "user", "content": DATA_URL}])
    assert (ask.images, ask.text_bytes) == (0, len(ask.body))
    ask = ask_with(part("text", text=DATA_URL), DATA_URL)
    assert (ask.images, ask.files, ask.text_bytes) == (0, 0, len(ask.body))
    ask = ask_with(part("image_url", image_url={"url": "data:text/plain," + "A" * 1000}))
    assert (ask.images, ask.text_bytes) == (1, len(ask.body))


def test_b2_a_part_that_is_unknown_or_mixed_counts_as_a_file() -> None:
    """What we don't know may cost anything; it needs a bound."""
    assert ask_with(part("hologram")).files == 1
    assert ask_with(part("text", text="a", file={"file_id": "x"})).files == 1
    assert ask_with({"image_url": {"url": "x"}}).images == 1
    assert ask_with({"type": 5}).files == 1


def test_b2_spoken_answers_referred_to_are_counted() -> None:
    """An earlier audio answer is read again as input."""
    ask = chat(messages=[{"role": "assistant", "audio": {"id": "a1"}}, {"role": "user", "content": "go on"}])
    assert ask.audios == 1


@pytest.mark.parametrize(
    "message",
    [
        b'{"content":"x","content":[{"type":"image_url","image_url":"u"}]}',
        b'{"content":[{"type":"image_url"}],"cont\\u0065nt":"x"}',
        b'{"content":[{"type":"hologram","type":"text","text":"x"}]}',
        b'{"audio":{"id":"a"},"audio":null,"content":"x"}',
        b'{},{"content":[{"a":1}],"content":"y"}',
    ],
)
def test_s9_parts_that_could_be_read_differently_are_refused(message: bytes) -> None:
    """A provider that takes the first of two must not see other parts than we counted."""
    with pytest.raises(BadRequest, match="twice"):
        parse_chat(b'{"model":"m","messages":[' + message + b"]}")


def test_tool_calls_and_escapes_are_no_reason_to_refuse() -> None:
    """The stricter look at odd bodies finds nothing wrong with ordinary ones."""
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"content":"type"}'}}]
    messages = [
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c", "content": [part("text", text="Grüße")]},
    ]
    assert chat(messages=messages).files == 0


# --- what can't be bounded ---


@pytest.mark.parametrize(
    ("name", "value", "unbounded"),
    [
        ("service_tier", "flex", True),
        ("service_tier", "priority", True),
        ("service_tier", 5, True),
        ("service_tier", "auto", False),
        ("service_tier", "default", False),
        ("service_tier", None, False),
        ("web_search_options", {}, True),
        ("web_search_options", None, False),
        ("modalities", ["text", "audio"], True),
        ("modalities", ["text"], False),
        ("audio", {"voice": "x"}, True),
        ("prediction", {"type": "content", "content": "x"}, True),
        ("tools", [{"type": "web_search"}], True),
        ("tools", [{"type": "function", "function": {"name": "f"}}], False),
        ("plugins", [{"id": "web"}], True),
        ("models", ["dearer"], True),
        ("store", True, False),
        ("metadata", {"audio": 1}, False),
    ],
)
def test_b2_what_can_cost_extra_is_named(name: str, value: Any, unbounded: bool) -> None:
    """Under a budget such a call is refused, and told which member it was."""
    assert chat(**{name: value}).unbounded == (name if unbounded else None)


@pytest.mark.parametrize(
    ("members", "lifts"),
    [
        ({"n_predict": 5}, "n_predict"),
        ({"max_new_tokens": 5}, "max_new_tokens"),
        ({"max_output_tokens": 5}, "max_output_tokens"),
        ({"num_predict": -1}, "num_predict"),
        ({"best_of": 3}, "best_of"),
        ({"best_of": None}, None),
        ({"min_tokens": 6, "max_tokens": 5}, "min_tokens"),
        ({"min_tokens": 5, "max_tokens": 5}, None),
        ({"min_tokens": 5}, "min_tokens"),
        ({"min_tokens": "5", "max_tokens": 9}, "min_tokens"),
        ({"max_tokens": 5}, None),
    ],
)
def test_b8_what_lifts_the_limit_is_named(members: dict[str, Any], lifts: str | None) -> None:
    """llama.cpp obeys the last or largest of several names; only ours may count."""
    assert chat(**members).lifts_limit == lifts


# --- embeddings ---


@pytest.mark.parametrize("given_input", ["a", ["a", "b"], [1, 2], [[1], [2, 3]]])
def test_embeddings_take_texts_and_tokens(given_input: Any) -> None:
    """All four shapes of OpenAI's ``input``."""
    raw = json.dumps({"model": "e", "input": given_input}).encode()
    assert parse_embeddings(raw).text_bytes == len(raw)


@pytest.mark.parametrize("given_input", [None, 5, "", [], {}, ["a", 1], [True], [[1], "a"], [["a"]], [1.5], [None]])
def test_embeddings_of_anything_else_are_refused(given_input: Any) -> None:
    """The parameter at fault is ``input``."""
    with pytest.raises(BadRequest) as refused:
        parse_embeddings(json.dumps({"model": "e", "input": given_input}).encode())
    assert refused.value.param == "input"


# --- fingerprints ---


def test_i3_spacing_order_and_escapes_do_not_matter() -> None:
    """JSON that differs only so is the same request."""
    one = b'{"a":1,"b":{"x":[1,2],"y":"\xc3\xa4"}}'
    same = b' { "b" : {"y":"\\u00e4","x":[1, 2]},\n"\\u0061":1}'
    assert fingerprint("POST", "/v1", one) == fingerprint("POST", "/v1", same)


@pytest.mark.parametrize(
    "other", [b'{"a":[2,1]}', b'{"a":[1,2.0]}', b'{"a":[1,"2"]}', b'{"a":[1,2],"b":null}', b'{"A":[1,2]}']
)
def test_i3_order_in_arrays_and_numbers_as_written_matter(other: bytes) -> None:
    """Another request under the same key must be seen."""
    assert fingerprint("POST", "/v1", b'{"a":[1,2]}') != fingerprint("POST", "/v1", other)
    assert fingerprint("POST", "/v1", b"{}") != fingerprint("POST", "/v2", b"{}")
    assert fingerprint("POST", "/v1", b"{}") != fingerprint("GET", "/v1", b"{}")


def test_i3_a_long_number_is_no_error() -> None:
    """Numbers are never converted."""
    assert len(fingerprint("POST", "/v1", b'{"a":' + b"9" * 10_000 + b"}")) == 64


# --- what is sent ---


def sent(ask: Ask, *, model: str = "m", limit: int | None = None, field: str | None = "max_tokens") -> bytes:
    return render(Outbound(ask, Target("p", model), "call", field, limit, 0.0))


def test_a_request_that_needs_no_change_goes_out_byte_for_byte() -> None:
    """Odd spacing included."""
    raw = b' {"model" : "m",' + MESSAGES + b',"temperature": 1.50}\n'
    assert sent(parse_chat(raw)) == raw
    assert sent(parse_chat(raw), model="*") == raw


def test_the_model_is_swapped_and_all_else_kept() -> None:
    """Values are the client's bytes, members in its order; odd keys survive."""
    raw = b'{"model" : "m", "a\\"b":1.50, "\xc3\xa4" : [1E2],' + MESSAGES + b"}"
    out = sent(parse_chat(raw), model='x"y')
    assert out == b'{"model":"x\\"y","a\\"b":1.50,"\xc3\xa4":[1E2],' + MESSAGES + b"}"


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_b8_the_limit_is_sent_under_one_name(field: str) -> None:
    """The other name is gone, whichever the client wrote."""
    ask = chat(max_tokens=100, max_completion_tokens=200)
    out = json.loads(sent(ask, limit=50, field=field))
    assert {name: out[name] for name in out if name.startswith("max_")} == {field: 50}


def test_without_a_limit_the_clients_names_stay() -> None:
    """For tenants without a budget nothing is set or clamped."""
    out = json.loads(sent(chat(max_tokens=100, max_completion_tokens=200), model="x", limit=None, field=None))
    assert (out["max_tokens"], out["max_completion_tokens"]) == (100, 200)


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}, {"include_obfuscation": False}])
def test_usage_is_always_asked_of_streams(options: dict[str, Any] | None) -> None:
    """Merged with what the client sent."""
    out = json.loads(sent(chat(stream=True, stream_options=options)))
    assert out["stream_options"] == {**(options or {}), "include_usage": True}


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=4), st.booleans())
def test_what_is_sent_is_what_was_asked(extra: dict[str, Any], stream: bool) -> None:
    """After the three changes, a provider reads the client's request."""
    ask = chat(**extra, stream=stream, max_tokens=9)
    out = json.loads(sent(ask, model="other", limit=7))
    expected = {**json.loads(ask.body), "model": "other", "max_tokens": 7}
    if stream:
        expected["stream_options"] = {"include_usage": True}
    assert out == expected
