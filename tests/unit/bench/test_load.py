"""Is what wrk is told what was meant?"""

import json

import attrs

from bench.cases import CASES, PROVIDERS, STREAMED, config, straight
from bench.load import script
from bench.trickle import CHUNKS, HEAD
from bench.upstream import completion, stream
from bench.yardstick import fields, work


def test_the_script_checks_status_text_and_events() -> None:
    """And sends the key and the body."""
    text = script(attrs.evolve(CASES["stream"], more={"x-more": "1"}))
    for part in (
        'wrk.headers["Authorization"] = [==[Bearer sk-bench-0003-0123456789abcdef]==]',
        'wrk.headers["x-more"] = [==[1]==]',
        "status ~= 200", "[==[[DONE]]==]", f"events(body) ~= {STREAMED}",
    ):  # fmt: skip
        assert part in text


def test_the_trickle_is_the_stream_event_by_event() -> None:
    """As many writes as events; without the chunks' heads, the same bytes."""
    assert len(CHUNKS) == STREAMED == stream().count(b"data: ")
    rest, body = b"".join(CHUNKS).removeprefix(HEAD), b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    assert body == stream()


def test_every_case_finds_its_model() -> None:
    """A provider with its address for each, and a path that a plain proxy sends to the same."""
    text = config(1_111, 2_222)
    for case, provider in PROVIDERS.items():
        port = 2_222 if provider == "trickle" else 1_111
        assert f'{{id: {provider}, kind: openai, baseUrl: "http://127.0.0.1:{port}/{provider}/v1"' in text
        assert f'"model":"{provider}"' in CASES[case].body
        assert straight(case).path.startswith(f"/{provider}/v1/")


def test_the_yardstick_answers_what_is_checked() -> None:
    """The same answer as the provider's, but for its id."""
    head, _, body = work(b"POST / HTTP/1.1\r\ncontent-length: 2", b'{"model": "m"}', {}).partition(b"\r\n\r\n")
    assert int(dict(fields(head))["content-length"]) == len(body) == len(completion())
    assert CASES["chat"].must in json.loads(body)["choices"][0]["message"]["content"]
