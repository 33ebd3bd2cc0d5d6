"""The official SDK, unchanged, asks a real model through the gateway: what does it get?"""

import json
import time
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI, NotFoundError, OpenAI
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel

from tests.integration.llm.model import MODEL, ModelServer
from tests.live import eventually

HELLO: Any = [{"role": "user", "content": "Say hello."}]
FIXED: Any = {"model": MODEL, "messages": HELLO, "max_tokens": 12, "temperature": 0, "seed": 1}
LONG: Any = {**FIXED, "max_tokens": 1_000, "extra_body": {"ignore_eos": True}}


def text_of(chunks: Iterable[ChatCompletionChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def test_the_sdk_gets_text_usage_and_what_the_call_cost(client: OpenAI) -> None:
    """A plain call: the model's words, its usage, and the gateway's own headers, which agree with each other."""
    began = time.monotonic()
    raw = client.chat.completions.with_raw_response.create(**FIXED)
    took_ms = (time.monotonic() - began) * 1_000
    answer = raw.parse()
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert 0 < answer.usage.completion_tokens <= 12
    assert raw.headers["x-perpetuo-provider"] == "llama"
    assert raw.headers["x-perpetuo-model"] == MODEL
    assert raw.headers["x-perpetuo-attempts"] == "1"
    assert raw.headers["x-request-id"] == answer._request_id
    assert int(raw.headers["x-ratelimit-remaining-requests"]) < int(raw.headers["x-ratelimit-limit-requests"])
    assert 0 < Decimal(raw.headers["x-perpetuo-overhead-ms"]) < took_ms
    assert Decimal(raw.headers["x-perpetuo-budget-remaining-usd"]) < 1_000
    details = answer.usage.prompt_tokens_details
    cached = (details.cached_tokens or 0) if details is not None else 0
    price = Decimal("0.5") * (answer.usage.prompt_tokens - cached) + Decimal("0.25") * cached
    price += Decimal("1.5") * answer.usage.completion_tokens
    assert Decimal(raw.headers["x-perpetuo-cost-usd"]) == price / 1_000_000


def test_the_model_says_the_same_with_and_without_the_gateway(client: OpenAI, model: ModelServer) -> None:
    """Same request, same seed, temperature 0: the gateway adds nothing to the prompt and takes nothing away."""
    through = client.chat.completions.create(**FIXED).choices[0].message.content
    direct = OpenAI(base_url=f"{model.url}/v1", api_key="none").chat.completions.create(**FIXED)
    assert through == direct.choices[0].message.content


@pytest.mark.anyio
async def test_the_async_sdk_gets_the_same(async_client: AsyncOpenAI, client: OpenAI) -> None:
    """`AsyncOpenAI`, streamed and not."""
    answer = await async_client.chat.completions.create(**FIXED)
    assert answer.choices[0].message.content == client.chat.completions.create(**FIXED).choices[0].message.content
    chunks = [chunk async for chunk in await async_client.chat.completions.create(**FIXED, stream=True)]
    assert text_of(chunks) == answer.choices[0].message.content


def test_a_stream_has_the_words_of_the_plain_answer_and_no_usage_unless_asked(client: OpenAI) -> None:
    """The gateway always asks the model for usage; a client that did not ask sees no trace of it."""
    plain = client.chat.completions.create(**FIXED).choices[0].message.content
    chunks = list(client.chat.completions.create(**FIXED, stream=True))
    assert text_of(chunks) == plain
    assert all(chunk.usage is None for chunk in chunks)
    assert all(chunk.choices for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason in {"stop", "length"}


def test_the_usage_chunk_comes_last_when_asked(client: OpenAI) -> None:
    """`include_usage`: one chunk without choices at the end, with the numbers of the plain answer."""
    asked = client.chat.completions.create(**FIXED, stream=True, stream_options={"include_usage": True})
    *chunks, last = list(asked)
    assert last.choices == []
    assert last.usage is not None
    plain = client.chat.completions.create(**FIXED).usage
    assert plain is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (plain.prompt_tokens, plain.completion_tokens)
    assert all(chunk.usage is None for chunk in chunks)


def test_a_first_delta_whose_content_is_null_goes_through(client: OpenAI) -> None:
    """llama.cpp begins with `{"role": "assistant", "content": null}`: valid, and not the first token."""
    first = next(iter(client.chat.completions.create(**FIXED, stream=True)))
    assert first.choices[0].delta.role == "assistant"
    assert first.choices[0].delta.content is None


def test_a_stream_is_sent_as_the_contract_says(client: OpenAI) -> None:
    """Content type, no caching, no buffering, and `[DONE]` as the very last event."""
    with client.chat.completions.with_streaming_response.create(**FIXED, stream=True) as raw:
        body = raw.read()
    assert raw.headers["content-type"].startswith("text/event-stream")
    assert raw.headers["cache-control"] == "no-cache"
    assert raw.headers["x-accel-buffering"] == "no"
    assert raw.headers["x-perpetuo-provider"] == "llama"
    *events, done, rest = body.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    assert all(json.loads(event.removeprefix(b"data: "))["object"] == "chat.completion.chunk" for event in events)


def test_a_stream_arrives_while_the_model_is_still_talking(client: OpenAI, model: ModelServer) -> None:
    """Tokens are not collected on the way: the first is here while the model's slot is busy."""
    with client.chat.completions.create(**LONG, stream=True) as stream:
        next(text for chunk in stream if (text := text_of([chunk])))
        assert model.busy() == 1


class Person(BaseModel):
    name: str
    age: int


SCHEMA: Any = {
    "type": "json_schema",
    "json_schema": {
        "name": "person",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "enum": ["Ada", "Grace"]},
                "age": {"type": "integer", "minimum": 10, "maximum": 99},
            },
            "required": ["name", "age"],
            "additionalProperties": False,
        },
    },
}
ABOUT_SOMEBODY: Any = {**FIXED, "messages": [{"role": "user", "content": "Describe a person."}], "max_tokens": 40}


def test_an_answer_keeps_to_a_json_schema(client: OpenAI) -> None:
    """`response_format` reaches the model: its answer is a value of that schema, streamed too."""
    answer = client.chat.completions.create(**ABOUT_SOMEBODY, response_format=SCHEMA)
    person = Person.model_validate_json(answer.choices[0].message.content or "")
    assert person.name in {"Ada", "Grace"}
    assert 10 <= person.age <= 99
    chunks = client.chat.completions.create(**ABOUT_SOMEBODY, response_format=SCHEMA, stream=True)
    assert Person.model_validate_json(text_of(chunks)) == person


def test_the_sdk_parses_into_a_class(client: OpenAI) -> None:
    """`parse` makes the schema of a pydantic class and reads the answer into it."""
    asked = {**ABOUT_SOMEBODY, "messages": [{"role": "user", "content": "Ada is 36."}], "max_tokens": 60}
    answer = client.chat.completions.parse(**asked, response_format=Person, stop=["\n\n\n"])
    assert isinstance(answer.choices[0].message.parsed, Person)


def _asked_and_called(city: str, call: str) -> list[Any]:
    arguments = json.dumps({"city": city})
    function = {"name": "get_weather", "arguments": arguments}
    return [
        {"role": "user", "content": f"Weather in {city}?"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": call, "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": call, "content": "Sunny"},
    ]


WEATHER: Any = {
    **FIXED,
    "max_tokens": 60,
    "messages": [
        {"role": "system", "content": "Call the function that answers the question."},
        *_asked_and_called("Rome", "call_1"),
        *_asked_and_called("Oslo", "call_2"),
        {"role": "user", "content": "Weather in Paris?"},
    ],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
            },
        }
    ],
    "tool_choice": "required",
}


def test_the_model_calls_a_tool(client: OpenAI) -> None:
    """Tools, earlier calls and their results go to the model; its own call comes back."""
    choice = client.chat.completions.create(**WEATHER).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Paris"})


def test_the_model_calls_a_tool_in_a_stream(client: OpenAI) -> None:
    """The pieces of its call arrive in order: name and id first, then the arguments."""
    chunks = list(client.chat.completions.create(**WEATHER, stream=True))
    pieces = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or []]
    named = [piece.function.name for piece in pieces if piece.function is not None and piece.function.name]
    assert named == ["get_weather"]
    assert pieces[0].id
    spoken = "".join(piece.function.arguments or "" for piece in pieces if piece.function is not None)
    assert json.loads(spoken) == {"city": "Paris"}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_two_answers_to_one_question(client: OpenAI) -> None:
    """`n: 2`: both come, whole and in a stream; the stream ends only when both have."""
    asked = {**FIXED, "n": 2, "temperature": 1}
    assert [choice.index for choice in client.chat.completions.create(**asked).choices] == [0, 1]
    chunks = list(client.chat.completions.create(**asked, stream=True))
    finished = {choice.index for chunk in chunks for choice in chunk.choices if choice.finish_reason}
    assert finished == {0, 1}


def test_members_we_do_not_know_reach_the_model(client: OpenAI) -> None:
    """`logprobs` and `extra_body` (here a grammar of llama.cpp's own) go on as the client wrote them."""
    answer = client.chat.completions.create(
        **FIXED, logprobs=True, top_logprobs=2, extra_body={"grammar": 'root ::= "yes" | "no"'}
    )
    assert answer.choices[0].message.content in {"yes", "no"}
    assert answer.choices[0].logprobs is not None


def test_embeddings_as_numbers_and_packed(client: OpenAI) -> None:
    """The SDK asks for base64 by default; both forms hold the same vectors, one for each input."""
    packed = client.embeddings.create(model=MODEL, input=["hello", "the sky is blue"])
    plain = client.embeddings.create(model=MODEL, input=["hello", "the sky is blue"], encoding_format="float")
    assert [item.index for item in packed.data] == [0, 1]
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-5)
    assert packed.usage.prompt_tokens > 0


@pytest.mark.anyio
async def test_embeddings_with_the_async_sdk(async_client: AsyncOpenAI) -> None:
    """Similar sentences are closer to each other than to a third: the vectors are the model's."""
    texts = ["The cat sleeps on the sofa.", "A cat is sleeping on the couch.", "Interest rates rose by two percent."]
    one, same, other = [
        item.embedding for item in (await async_client.embeddings.create(model=MODEL, input=texts)).data
    ]

    def nearness(left: list[float], right: list[float]) -> float:
        return sum(a * b for a, b in zip(left, right, strict=True))

    assert nearness(one, same) > nearness(one, other)


def test_models_are_listed_and_found(client: OpenAI) -> None:
    """`models.list` and `models.retrieve`."""
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL


def test_a_finished_stream_can_be_asked_for(client: OpenAI) -> None:
    """`GET /v1/requests/{id}`, within two seconds: what a stream cost, which its headers could not say."""
    with client.chat.completions.with_streaming_response.create(**FIXED, stream=True) as raw:
        raw.read()

    def look() -> Any:
        try:
            return client.get(f"/requests/{raw.headers['x-request-id']}", cast_to=httpx.Response).json()
        except NotFoundError:
            return None

    found = eventually(look)
    assert found["outcome"] == "completed"
    assert found["usage"]["basis"] == "reported"
    assert 0 < found["usage"]["output_tokens"] <= 12
