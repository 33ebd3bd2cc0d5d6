"""What does the official SDK raise when the model, or the gateway, refuses?"""

from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.integration.llm.model import CONTEXT, MODEL, ModelServer
from tests.live import LiveGateway, eventually
from tests.patience import PATIENCE

HELLO: Any = [{"role": "user", "content": "Say hello."}]
TOO_LONG: Any = {"model": MODEL, "messages": [{"role": "user", "content": "hello world " * CONTEXT}], "max_tokens": 5}


def attempts(error: openai.APIStatusError) -> str:
    """How often the provider was asked."""
    return str(error.response.headers["x-perpetuo-attempts"])


def test_a_key_nobody_has_is_an_authentication_error(gateway: LiveGateway) -> None:
    """401, as `AuthenticationError`, and the SDK is told not to try again."""
    with (
        OpenAI(base_url=f"{gateway.url}/v1", api_key="sk-nobody-has-this-one") as sdk,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        sdk.models.list()
    assert caught.value.code == "invalid_api_key"
    assert caught.value.response.headers["x-should-retry"] == "false"


def test_a_model_nobody_configured_is_a_not_found_error(client: OpenAI) -> None:
    """404 from `create` and from `retrieve`."""
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-9", messages=HELLO)
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")


def test_c5_a_value_the_model_refuses_is_a_bad_request_error(client: OpenAI) -> None:
    """
    The model's own 400 with the model's own words, after one attempt.

    llama.cpp puts the status into `error.code`, as a number; the SDK's `code` is text, so it gets the error's type.
    """
    wrong: Any = "hot"
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=HELLO, temperature=wrong)
    assert caught.value.status_code == 400
    assert caught.value.code == "invalid_request_error"
    assert caught.value.type == "invalid_request_error"
    assert "temperature" in str(caught.value)
    body: Any = caught.value.body
    assert body["source"] == "provider"
    assert attempts(caught.value) == "1"


@pytest.mark.parametrize("stream", [False, True])
def test_c9_too_long_a_conversation_has_the_code_that_clients_look_for(client: OpenAI, stream: bool) -> None:
    """llama.cpp says `exceed_context_size_error`; clients that shorten and try again look for OpenAI's code."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**TOO_LONG, stream=stream)
    assert caught.value.code == "context_length_exceeded"
    assert str(CONTEXT) in str(caught.value)
    assert attempts(caught.value) == "1"


def test_c5_too_long_a_text_to_embed_is_the_clients_error(client: OpenAI) -> None:
    """
    llama.cpp answers 500 to it: one client with a long text would open the breaker for everybody.

    It is a 400 with OpenAI's code instead, after one attempt, and the model goes on answering.
    """
    for _ in range(3):
        with pytest.raises(openai.BadRequestError) as caught:
            client.embeddings.create(model=MODEL, input="word " * CONTEXT)
        assert caught.value.code == "context_length_exceeded"
        assert attempts(caught.value) == "1"


@pytest.mark.anyio
async def test_the_async_sdk_raises_the_same(async_client: AsyncOpenAI) -> None:
    """One of each kind."""
    with pytest.raises(openai.NotFoundError):
        await async_client.models.retrieve("gpt-9")
    with pytest.raises(openai.BadRequestError) as caught:
        await async_client.chat.completions.create(**TOO_LONG, stream=True)
    assert caught.value.code == "context_length_exceeded"


def test_c5_a_picture_for_a_model_of_text_is_the_clients_error(client: OpenAI, unlimited: OpenAI) -> None:
    """llama.cpp answers 500 to that as well. (For a tenant with a budget it does not get so far.)"""
    picture: Any = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}
    with pytest.raises(openai.PermissionDeniedError) as refused:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": [picture]}])
    assert refused.value.code == "cost_not_bounded"
    with pytest.raises(openai.BadRequestError, match="image input is not supported") as caught:
        unlimited.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": [picture]}])
    assert caught.value.code == "unsupported_input"


def test_an_unfinished_call_times_out_in_the_sdks_own_words(client: OpenAI, model: ModelServer) -> None:
    """A client's own time limit: `APITimeoutError`."""
    hurried = client.with_options(timeout=0.05)
    with pytest.raises(openai.APITimeoutError):
        hurried.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=200, extra_body={"ignore_eos": True})
    eventually(lambda: not model.busy(), 10 * PATIENCE)  # it goes on after its client has left


def test_what_is_not_served_is_a_not_found_error_that_says_what_is(client: OpenAI) -> None:
    """`responses.create` does not exist here."""
    with pytest.raises(openai.NotFoundError, match="/v1/chat/completions"):
        client.responses.create(model=MODEL, input="hello")
