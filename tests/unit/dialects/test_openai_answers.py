"""How much an answer used, and what a provider's error means."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpetuo.adapters.dialects.openai_answers import (
    as_events,
    error_status,
    read_error,
    read_reply,
    read_usage,
    secret,
)
from perpetuo.adapters.dialects.sse import ChatStreamReader
from perpetuo.domain.model.upstream import Ending, Fault
from perpetuo.domain.model.usage import Usage
from tests.examples import examples

NOW_US = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z


def error(status: int, body: Any, **headers: str) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_error(status, raw, {name.replace("_", "-"): text for name, text in headers.items()}, NOW_US)


def reported(prompt: Any, completion: Any = None, total: Any = None, **more: Any) -> dict[str, Any]:
    given = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}
    return {name: value for name, value in given.items() if value is not None} | more


@pytest.mark.parametrize(
    ("wire", "usage"),
    [
        (reported(5, 3, 8), Usage(5, 3)),
        (reported(5, 3), Usage(5, 3)),
        (reported(5, None, 5), Usage(5, 0)),
        (reported(5, 3, 18), Usage(5, 13)),
        (reported(5, 3, 2), Usage(5, 3)),
        (reported(5, 3, 8, prompt_tokens_details={"cached_tokens": 4}), Usage(5, 3, 4)),
        (reported(5, 3, 8, prompt_tokens_details={"cached_tokens": 9}), Usage(5, 3, 5)),
        (reported(5, 3, 8, prompt_tokens_details=None), Usage(5, 3)),
        (reported(5, 3, 8, prompt_cache_hit_tokens=2), Usage(5, 3, 2)),
        (None, None),
        ({}, None),
        ([], None),
        (reported(0, 0, 0), None),
        (reported(-1, 3), None),
        (reported("5", 3), None),
        (reported(5.0, 3), None),
        (reported(True, 3), None),
        (reported(5, 2**60), None),
        (reported(5), None),
    ],
)
def test_b9_usage_is_believed_when_it_is_clear(wire: object, usage: Usage | None) -> None:
    """Odd or all-zero usage is no usage: the call is then settled on a bound."""
    assert read_usage(wire) == usage


@pytest.mark.parametrize("beyond", [10**8 + 1, 2**31, 2**53 - 2, 2**60])
def test_b4_an_absurd_report_is_not_charged(beyond: int) -> None:
    """9,007,199,254,740,990 tokens were $27,021,597,764, and Redis refused to settle that: now the bound counts."""
    for wire in (reported(beyond, 3), reported(5, beyond), reported(5, 3, beyond + 5), reported(beyond, 3, 8)):
        assert read_usage(wire) is None
        reply = read_reply(json.dumps({"choices": [{"message": {"content": "Hi"}}], "usage": wire}).encode())
        assert reply is not None
        assert (reply.usage, reply.output_bytes) == (None, 2)
    assert read_usage(reported(10**8, 10**8)) == Usage(10**8, 10**8)
    assert read_usage(reported(5, 3, 8, prompt_tokens_details={"cached_tokens": beyond})) == Usage(5, 3, 5)


def test_b9_reasoning_only_in_the_total_is_charged() -> None:
    """xAI and Gemini leave it out of ``completion_tokens``."""
    assert read_usage({"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 112}) == Usage(10, 102)


def test_a_reply_is_read() -> None:
    """Usage, and the bytes that bound it when it is missing."""
    message = {"role": "assistant", "content": "é", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    reading = read_reply(json.dumps({"choices": [{"message": message}], "usage": reported(5, 3)}).encode())
    assert reading is not None
    assert (reading.usage, reading.output_bytes, reading.error) == (Usage(5, 3), 0, False)


@pytest.mark.parametrize("raw", [b"", b"<html>", b"[]", b"5", b'{"a":"\xff"}', b'{"a":NaN}', b"[" * 100_000])
def test_s4_a_reply_that_is_no_object_is_none(raw: bytes) -> None:
    """Nothing of it goes on."""
    assert read_reply(raw) is None


def test_b9_a_reply_of_unknown_shape_counts_whole() -> None:
    """The bound must cover text we don't recognise."""
    raw = json.dumps({"choices": [{"message": {"content": [{"text": "abc"}]}}], "usage": [1]}).encode()
    reading = read_reply(raw)
    assert reading is not None
    assert (reading.usage, reading.output_bytes) == (None, len(raw))


def test_an_error_inside_a_200_is_seen() -> None:
    """OpenRouter answers so; the status it stands for is in the code."""
    raw = b'{"error":{"code":429,"message":"slow down"}}'
    reading = read_reply(raw)
    assert reading is not None
    assert reading.error
    assert error_status(raw) == 429
    assert error_status(b'{"error":{"code":"x"}}') == error_status(b'{"error":{"code":200}}') == 502
    assert not getattr(read_reply(b'{"error":null,"choices":[]}'), "error", True)


CASES = [
    (400, {"error": {"message": "bad", "type": "invalid_request_error", "code": "x"}}, Fault.CLIENT_ERROR, "x"),
    (404, {"error": {"message": "no such model", "code": "model_not_found"}}, Fault.CLIENT_ERROR, "model_not_found"),
    (413, b"too big", Fault.CLIENT_ERROR, None),
    (422, {"detail": "no"}, Fault.CLIENT_ERROR, None),
    (400, {"error": {"code": "context_length_exceeded"}}, Fault.CONTEXT_LENGTH, "context_length_exceeded"),
    (
        400,
        {"error": {"code": 400, "type": "exceed_context_size_error", "message": "…"}},
        Fault.CONTEXT_LENGTH,
        "context_length_exceeded",
    ),
    (
        400,
        {"object": "error", "message": "This model's maximum context length is 4096 tokens", "code": 400},
        Fault.CONTEXT_LENGTH,
        "context_length_exceeded",
    ),
    (400, {"error": "the request exceeds the available context size"}, Fault.CONTEXT_LENGTH, "context_length_exceeded"),
    (401, {"error": {"code": "invalid_api_key"}}, Fault.CREDENTIAL, "invalid_api_key"),
    (402, b"", Fault.CREDENTIAL, None),
    (403, b"", Fault.CREDENTIAL, None),
    (429, {"error": {"code": "rate_limit_exceeded"}}, Fault.RATE_LIMITED, "rate_limit_exceeded"),
    (429, b"", Fault.RATE_LIMITED, None),
    (429, {"error": {"code": "insufficient_quota"}}, Fault.CREDENTIAL, "insufficient_quota"),
    (429, {"error": {"type": "insufficient_quota", "code": None}}, Fault.CREDENTIAL, "insufficient_quota"),
    (301, b"", Fault.SERVER_ERROR, None),
    (405, b"", Fault.SERVER_ERROR, None),
    (408, b"", Fault.SERVER_ERROR, None),
    (409, b"", Fault.SERVER_ERROR, None),
    (418, b"", Fault.SERVER_ERROR, None),
    (500, {"error": {"message": "maximum context length"}}, Fault.SERVER_ERROR, None),
    (529, {"error": {"code": 529}}, Fault.SERVER_ERROR, "529"),
]


@pytest.mark.parametrize(("status", "body", "fault", "code"), CASES)
def test_c5_every_error_has_its_fault(status: int, body: Any, fault: Fault, code: str | None) -> None:
    """What each status, code and text of known providers means for breakers and retries."""
    reading = error(status, body)
    assert (reading.fault, reading.code) == (fault, code)


@pytest.mark.parametrize("member", ["code", "type"])
def test_a1_a_call_whose_provider_sends_a_nul_is_a_row_all_the_same(member: str) -> None:
    """Found: the NUL of an error's code went into the event, which PostgreSQL refused: the call was in no table."""
    assert error(400, {"error": {member: "a\u0000b\n" + "c" * 500}}).code == "ab" + "c" * 124


LLAMA_500 = {
    "input (5001 tokens) is too large to process. increase the physical batch size (current batch size: 512)": (
        Fault.CONTEXT_LENGTH,
        "context_length_exceeded",
    ),
    "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj": (
        Fault.CLIENT_ERROR,
        "unsupported_input",
    ),
    'Failed to parse tools: Expected \'tools\' to be an array, got "x"; tools = "x"': (
        Fault.CLIENT_ERROR,
        "invalid_tools",
    ),
}


@pytest.mark.parametrize("message", LLAMA_500)
def test_c5_one_client_with_a_too_long_text_does_not_take_llama_cpp_from_everybody(message: str) -> None:
    """llama.cpp answers 500 to some requests that are at fault themselves: it looked broken, and its breaker opened."""
    reading = error(500, {"error": {"code": 500, "message": message, "type": "server_error"}})
    assert (reading.status, reading.fault, reading.code) == (400, *LLAMA_500[message])
    shown = json.loads(reading.body)["error"]
    assert (shown["type"], shown["code"], shown["message"]) == ("invalid_request_error", reading.code, message)


def test_c5_a_500_of_anybody_else_stays_one() -> None:
    """The same words without llama.cpp's members around them are no excuse."""
    for body in (
        {"message": "the index is too large to process"},
        {"code": 500, "message": "x", "type": "server_error"},
    ):
        assert (error(500, {"error": body}).status, error(500, {"error": body}).fault) == (500, Fault.SERVER_ERROR)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>internal-host-17 nginx</html>",
        {"error": {"message": ["internal-host-17"], "code": {}, "param": 5}},
        {"error": [1]},
        [],
        {"error": {"message": "m", "secret": "internal-host-17"}},
    ],
)
def test_s1_a_client_sees_an_envelope_and_nothing_else(body: Any) -> None:
    """Pages, hosts and unknown members of a provider's error stay here."""
    shown = error(400, body).body
    assert set(json.loads(shown)["error"]) == {"message", "type", "param", "code", "source"}
    assert json.loads(shown)["error"]["source"] == "provider"
    assert b"internal-host" not in shown


def test_c5_what_is_said_about_our_credential_stays_here() -> None:
    """Providers quote parts of the key."""
    for status, code in ((401, "invalid_api_key"), (403, "x"), (429, "insufficient_quota")):
        shown = error(status, {"error": {"message": "Incorrect API key: sk-ab***yz", "code": code, "param": "sk"}}).body
        assert b"sk" not in shown
        assert code.encode() not in shown


XAI = {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: xai-secret-1. See x.ai."}
GEMINI = [
    {
        "error": {
            "code": 400,
            "message": "API key not valid. Please pass a valid API key.",
            "status": "INVALID_ARGUMENT",
            "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}],
        }
    }
]
BAD_KEYS = [
    XAI,
    GEMINI,
    GEMINI[0],
    {"error": {"message": "API key expired. Please renew the API key.", "code": 400}},
    {"error": {"message": "no", "details": GEMINI[0]["error"]["details"]}},
    {"error": {"message": "no", "code": "invalid_api_key"}},
    {"error": {"message": "no", "type": "authentication_error", "code": None}},
    {"error": {"message": "Invalid API key", "code": 400}},
]


@pytest.mark.parametrize("body", BAD_KEYS)
def test_c5_a_400_about_our_key_is_not_the_clients(body: Any) -> None:
    """xAI and Gemini answer so: clients read "Incorrect API key: xai-…", and the next target was never tried."""
    reading = error(400, body)
    assert reading.fault is Fault.CREDENTIAL
    assert json.loads(reading.body)["error"]["message"] == "The provider refused the gateway's credential."
    assert b"xai-secret-1" not in reading.body


@pytest.mark.parametrize(
    "message",
    [
        "Invalid value for 'user': Incorrect API key provided",
        "'stop' may not be: API key not valid",
        "Your tools mention an invalid API key parameter",
    ],
)
def test_c5_a_client_can_not_talk_our_credential_into_a_cool_down(message: str) -> None:
    """Its own words in a provider's text, or as the name of its model, say nothing about our key."""
    assert error(400, {"error": {"message": message}}).fault is Fault.CLIENT_ERROR
    for model, said in (
        ("Incorrect API key", "Incorrect API key is not a valid model ID"),
        ("api key", "API key invalid"),
    ):
        reading = read_error(400, json.dumps({"error": {"message": said}}).encode(), {}, NOW_US, None, model)
        assert reading.fault is Fault.CLIENT_ERROR


@pytest.mark.parametrize("status", [400, 404, 422, 429, 500])
def test_s1_our_key_is_in_no_text_that_goes_on(status: int) -> None:
    """Whatever a provider quotes it in, escaped or not; what stands around it stays."""
    key = "sk/our-own+key"
    given = {"message": f"You sent 'Bearer {key}', sk-x", "type": key, "code": f"a-{key}", "param": key}
    for raw in (json.dumps({"error": given}), json.dumps({"error": given}).replace("/", "\\/")):
        reading = read_error(status, raw.encode(), {}, NOW_US, secret(key))
        assert key not in json.dumps(json.loads(reading.body), ensure_ascii=False)
        assert key not in (reading.code or "")
        assert json.loads(reading.body)["error"]["message"] == "You sent 'Bearer [redacted]', sk-x"


def test_s1_a_key_that_is_a_mere_word_does_not_riddle_the_text() -> None:
    """Local servers are given ``EMPTY`` or ``x``."""
    reading = read_error(400, b'{"error":"x: expected an index, not x"}', {}, NOW_US, secret("x"))
    assert json.loads(reading.body)["error"]["message"] == "[redacted]: expected an index, not [redacted]"


@pytest.mark.parametrize(
    ("headers", "wait_us"),
    [
        ({}, None),
        ({"retry_after": "2"}, 2_000_000),
        ({"retry_after": "0.5"}, 500_000),
        ({"retry_after": "-3"}, 0),
        ({"retry_after_ms": "1500", "retry_after": "9"}, 1_500_000),
        ({"retry_after_ms": "x", "retry_after": "9"}, 9_000_000),
        ({"retry_after": "Thu, 01 Jan 2026 00:00:30 GMT"}, 30_000_000),
        ({"retry_after": "Wed, 31 Dec 2025 00:00:00 GMT"}, 0),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "inf"}, None),
        ({"retry_after": "soon"}, None),
        ({"retry_after": ""}, None),
        ({"retry_after": "1e300"}, 31 * 86_400_000_000),
    ],
)
def test_c6_the_wait_a_provider_asks_for(headers: dict[str, str], wait_us: int | None) -> None:
    """Seconds, milliseconds or a date; nonsense is none."""
    assert error(429, b"", **headers).retry_after_us == wait_us


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["error", "code", "type", "message", "choices", "usage", "detail"]), inner)
    ),
    max_leaves=8,
)


@examples(60, 1_000)
@given(JSON, st.sampled_from([200, 400, 429, 500]), st.text(max_size=12))
def test_s4_no_answer_raises_anything(value: Any, status: int, text: str) -> None:
    """Whatever shape a provider's JSON has."""
    raw = json.dumps(value).encode()
    read_reply(raw)
    as_events(raw)
    error_status(raw)
    assert json.loads(read_error(status, raw, {"retry-after": text}, NOW_US).body)["error"]["source"] == "provider"


def test_a_whole_answer_as_a_stream() -> None:
    """For a provider that answers a stream request with plain JSON."""
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    raw = json.dumps(
        {
            "id": "x",
            "object": "chat.completion",
            "choices": [{"index": 0, "message": {"role": "assistant", "tool_calls": calls}, "finish_reason": "stop"}],
            "usage": reported(5, 3),
        },
        indent=1,
    ).encode()
    events = as_events(raw)
    assert events is not None
    reader = ChatStreamReader(wants_usage=True)
    out = [json.loads(line[6:]) for line in reader.feed(events).split(b"\n\n")[:-1]]
    assert out[0]["object"] == "chat.completion.chunk"
    assert out[0]["choices"][0]["delta"]["tool_calls"] == [{"index": 0, **calls[0]}]
    assert out[1]["choices"] == []
    assert (reader.usage, reader.end()) == (Usage(5, 3), Ending.COMPLETE)
