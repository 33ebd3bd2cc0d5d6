"""
Keys that only some servers understand: one that ignores case must be asked for exactly what we priced.

Go's ``encoding/json`` takes ``MAX_TOKENS`` for ``max_tokens``, the last one wins; so do Ollama, LocalAI and one-api.
"""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpetuo.adapters.dialects.openai import BadRequest, parse_chat, parse_embeddings

PRICED = [
    "model",
    "messages",
    "n",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "n_predict",
    "best_of",
    "min_tokens",
    "service_tier",
    "tools",
    "web_search_options",
    "models",
]


def with_keys(**members: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **members}).encode()


def with_message(message: str) -> bytes:
    return b'{"model":"m","messages":[{"role":"user","content":"hi"},' + message.encode() + b"]}"


def refusal(body: bytes) -> BadRequest:
    with pytest.raises(BadRequest) as refused:
        parse_chat(body)
    return refused.value


def test_b2_a_dearer_model_and_limit_in_capitals_are_refused() -> None:
    """Priced as model m with five tokens; Ollama would have run fifty answers of the other one."""
    body = with_keys(max_tokens=5, MAX_TOKENS=100_000, Model="gpt-expensive", N=50)
    assert refusal(body).param == "MAX_TOKENS"


@pytest.mark.parametrize("name", PRICED)
def test_b8_no_priced_member_passes_in_another_case(name: str) -> None:
    """Alone as well: without a limit that we know of, the one in capitals would count."""
    for other in (name.upper(), name.capitalize(), name[:-1] + name[-1].upper()):
        assert refusal(with_keys(**{other: 5})).param == other


@pytest.mark.parametrize(
    "name", ["max_token\u017f", "max_to\u212aens", "\u017fervice_tier", "\u017ftream", "MAX_TO\u212aEN\u017f"]
)
def test_s9_the_long_s_and_the_kelvin_sign_are_letters_too(name: str) -> None:
    """Go folds these two into ASCII; escaped and as they are."""
    assert refusal(with_keys(**{name: 5})).param == name
    assert refusal(json.dumps({name: 5}, ensure_ascii=False).encode()[:-1] + b"," + with_keys()[1:]).param == name


@pytest.mark.parametrize("pair", [("user", "User"), ("Foo", "fOO"), ("\u00e4", "\u00c4"), ("stop", "\u017ftop")])
def test_s9_two_keys_that_differ_only_in_case_are_one_key_twice(pair: tuple[str, str]) -> None:
    """Whatever they mean: two servers may read two requests."""
    one, other = pair
    assert refusal(with_keys(**{one: 1, other: 2})).param == other


def test_a_key_with_capitals_of_its_own_is_no_reason_to_refuse() -> None:
    """Extensions of some servers are written so."""
    body = with_keys(topK=4, X=1, **{"\u00e4": 1, "2": 1, "": 1})
    assert "topK" in parse_chat(body).fields


def test_s9_embeddings_are_read_as_strictly() -> None:
    """``Input`` beside ``input`` would be another text."""
    for other in ("Input", "MODEL", "\u017ftream"):
        with pytest.raises(BadRequest):
            parse_embeddings(json.dumps({"model": "m", "input": "a", other: "b"}).encode())


MESSAGES = [
    '{"content":[{"Type":"image_url","Image_URL":{"url":"https://x/a.png"}}]}',
    '{"content":[{"type":"text","text":"a","Type":"image_url"}]}',
    '{"content":[{"type":"text","text":"a","IMAGE_URL":{"url":"https://x/a.png"}}]}',
    '{"content":[{"type":"text","text":"a","Input_Audio":{"data":"AAAA"}}]}',
    '{"content":[{"type":"text","text":"a","FILE":{"file_id":"f"}}]}',
    '{"content":[{"type":"text","text":"a","\\u0046ile":{"file_id":"f"}}]}',
    '{"Content":[{"type":"image_url","image_url":{"url":"https://x/a.png"}}]}',
    '{"content":"a","CONTENT":[{"type":"image_url","image_url":{"url":"https://x/a.png"}}]}',
    '{"content":"a","\\u0043ontent":[{"type":"image_url","image_url":{"url":"https://x/a.png"}}]}',
    '{"role":"assistant","Audio":{"id":"a1"}}',
    '{"role":"assistant","audiO" : {"id":"a1"}}',
]


@pytest.mark.parametrize("message", MESSAGES)
def test_b2_media_in_capitals_does_not_pass_as_text(message: str) -> None:
    """Images, audio and files that only a lenient server sees would cost nothing here."""
    assert (refusal(with_message(message)).param or "").startswith("messages[1]")


def test_text_about_content_and_parts_of_other_servers_pass() -> None:
    """Capitals in what is said are nobody's business."""
    said = json.dumps(
        {"content": [{"type": "text", "text": 'He said "Content" and "AUDIO"', "cacheControl": {"a": 1}}]}
    )
    assert parse_chat(with_message(said)).files == 0


TOOLS = [
    '{"Type":"web_search"}',
    '{"type":"function","TYPE":"web_search"}',
    '{"type":"web_search","type":"function"}',
    '{"type": "function", "\\u0074ype":"web_search"}',
]


@pytest.mark.parametrize("tool", TOOLS)
def test_b2_a_tool_that_is_charged_for_each_use_is_not_hidden(tool: str) -> None:
    """A function to us, a web search to the provider."""
    given = with_keys()[:-1] + b',"tools":[{"type":"function","function":{"name":"f"}},' + tool.encode() + b"]}"
    assert refusal(given).param in ("tools", "type")


def test_functions_may_have_parameters_of_any_name() -> None:
    """A JSON Schema inside a tool is not read as a tool."""
    schema = {"type": "object", "properties": {"Type": {"type": "string"}, "type": {"type": "string"}}}
    tools = [{"type": "function", "function": {"name": "f", "description": "\u00e4 \u2028", "parameters": schema}}]
    assert parse_chat(with_keys(tools=tools)).unbounded is None


def test_s9_stream_options_in_capitals_are_refused() -> None:
    """A server that ignores case would not report what was used."""
    options = {"include_usage": True, "Include_Usage": False}
    assert refusal(with_keys(stream=True, stream_options=options)).param == "stream_options"


KEYS = st.text(alphabet="nNsS\u017fkK\u212a_\u00df\u1e9e", min_size=1, max_size=3)


@settings(max_examples=200, deadline=None)
@given(st.lists(KEYS, min_size=1, max_size=4, unique=True))
def test_s9_holds_for_any_keys(keys: list[str]) -> None:
    """Accepted is only what means the same to a server that ignores case."""
    try:
        fields = parse_chat(with_keys(**dict.fromkeys(keys, 1))).fields
    except BadRequest:
        return
    folded = [key.casefold() for key in fields]
    assert len(set(folded)) == len(folded)
    assert [key for key in fields if key.casefold() == "n"] in ([], ["n"])
