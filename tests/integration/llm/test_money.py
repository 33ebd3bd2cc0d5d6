"""Is what a real model used what was held for it, charged and recorded?"""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.integration.llm.model import MODEL, Row
from tests.live import LiveGateway, eventually

STORY: Any = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Tell me a story."}],
    "temperature": 1,
    "extra_body": {"ignore_eos": True},
}


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("most", [1, 7, 30])
def test_b2_a_limit_is_kept_to_the_token(client: OpenAI, recorded: Callable[[str], Row], name: str, most: int) -> None:
    """Under each of its names: the model stops there, says so, and the row has the same number."""
    limit: Any = {name: most}
    answer = client.chat.completions.create(**STORY, **limit)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == most
    assert answer.choices[0].finish_reason == "length"
    row = recorded(answer._request_id or "")
    assert (row["output_tokens"], row["usage_basis"]) == (most, "reported")
    assert row["cost_nano_usd"] <= row["hold_nano_usd"]


TEXTS = {
    "plain": "The quick brown fox jumps over the lazy dog. " * 4,
    "digits": "0123456789" * 9,
    "emoji": "🌍🚀👩‍👩‍👧‍👦" * 3,
    "chinese": "永续网关" * 6,
    "controls": "\x00\x01\x7f\u200b\ufeff" * 5,
    "spaces": " \n\t" * 20,
    "special": "<|im_start|>" * 10,
    "empty": "",
}


@pytest.mark.parametrize("kind", TEXTS)
def test_b2_the_hold_covers_whatever_the_tokenizer_makes_of_a_text(
    client: OpenAI, recorded: Callable[[str], Row], kind: str
) -> None:
    """A byte-level tokenizer never makes more tokens than bytes: held is enough, for odd texts too."""
    text = TEXTS[kind]
    answer = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": text}], max_tokens=2, extra_body={"ignore_eos": True}
    )
    row = recorded(answer._request_id or "")
    assert answer.usage is not None
    assert row["input_tokens"] == answer.usage.prompt_tokens <= len(text.encode()) + 1_024
    assert row["cost_nano_usd"] <= row["hold_nano_usd"]


def test_b2_many_short_messages_are_within_the_hold(client: OpenAI, recorded: Callable[[str], Row]) -> None:
    """The template adds tokens to each message that the client did not write."""
    messages: Any = [{"role": role, "content": "a"} for _ in range(8) for role in ("user", "assistant")]
    answer = client.chat.completions.create(model=MODEL, messages=[*messages, messages[0]], max_tokens=2)
    row = recorded(answer._request_id or "")
    assert row["cost_nano_usd"] <= row["hold_nano_usd"]


def test_b8_two_answers_are_within_the_hold_and_both_are_charged(
    client: OpenAI, recorded: Callable[[str], Row]
) -> None:
    """`n: 2`, streamed: llama.cpp reports on each answer by itself. (Not streamed it reports on the first alone.)"""
    stream = client.chat.completions.create(
        **STORY, max_tokens=10, n=2, stream=True, stream_options={"include_usage": True}
    )
    reported = [chunk.usage.completion_tokens for chunk in stream if chunk.usage is not None]
    row = recorded(stream.response.headers["x-request-id"])
    assert row["output_tokens"] == sum(reported) == 20
    assert row["cost_nano_usd"] <= row["hold_nano_usd"]


def test_b9_a_stream_left_in_the_middle_is_charged_for_what_it_said(
    client: OpenAI, recorded: Callable[[str], Row]
) -> None:
    """Leaving is not free: what was streamed is counted in bytes, and marked as an estimate."""
    stream = client.chat.completions.create(**STORY, max_tokens=1_000, stream=True)
    said = ""
    for chunk in stream:
        said += chunk.choices[0].delta.content or ""
        if len(said) > 40:
            break
    stream.close()
    row = recorded(stream.response.headers["x-request-id"])
    assert (row["outcome"], row["usage_basis"]) == ("cancelled", "estimated")
    assert row["output_tokens"] >= 10
    assert 0 < row["cost_nano_usd"] <= row["hold_nano_usd"]


def test_embeddings_are_charged_by_their_input(client: OpenAI, recorded: Callable[[str], Row]) -> None:
    """Nothing is written, so only the input costs."""
    raw = client.embeddings.with_raw_response.create(model=MODEL, input="How much is the fish?")
    row = recorded(raw.headers["x-request-id"])
    assert row["input_tokens"] == raw.parse().usage.prompt_tokens > 0
    assert row["cost_nano_usd"] == row["input_tokens"] * 500


def test_b4_no_hold_is_left_and_none_was_exceeded(client: OpenAI, gateway: LiveGateway) -> None:
    """After all of the above: nothing held, spent is the sum of the rows, and no hold was too small."""

    def standing() -> Any:
        return client.get("/key", cast_to=httpx.Response).json()["budgets"]

    eventually(lambda: all(float(budget["held_usd"]) == 0 for budget in standing()))
    exceeded = [line for line in gateway.get("/metrics").text.splitlines() if "hold_exceeded_total" in line]
    values = [line.split()[-1] for line in exceeded if not line.startswith("#")]
    assert values, exceeded
    assert all(float(value) == 0 for value in values)


def test_b7_what_is_spent_is_the_sum_of_the_rows(client: OpenAI, database: Path) -> None:
    """To the nano, over every call of this run, however it ended."""

    def agree() -> bool:
        budgets = client.get("/key", cast_to=httpx.Response).json()["budgets"]
        with sqlite3.connect(database) as connection:
            (spent,) = connection.execute("select sum(cost_nano_usd) from events where tenant_id = 'acme'").fetchone()
        return all(round(float(budget["used_usd"]) * 1e9) == spent for budget in budgets)

    eventually(agree)


def test_i2_a_stream_is_replayed_byte_for_byte(client: OpenAI, recorded: Callable[[str], Row]) -> None:
    """The model was asked once, with temperature 1; the second answer has the same bytes and costs nothing."""

    def ask(key: str) -> tuple[Any, bytes]:
        with client.chat.completions.with_streaming_response.create(
            **STORY, max_tokens=40, stream=True, stream_options={"include_usage": True},
            extra_headers={"x-idempotency-key": key},
        ) as raw:  # fmt: skip
            return raw.headers, raw.read()

    (first, said), (second, again), (_, other) = ask("once"), ask("once"), ask("another")
    assert (first["x-perpetuo-idempotency"], second["x-perpetuo-idempotency"]) == ("stored", "replayed")
    assert second["idempotent-replayed"] == "true"
    assert said == again != other
    assert said.endswith(b"data: [DONE]\n\n")
    assert recorded(first["x-request-id"])["idempotency"] == "stored"
    assert json.loads(said.split(b"\n\n")[-3].removeprefix(b"data: "))["usage"]["completion_tokens"] == 40


def test_i8_a_keyed_stream_that_lost_its_client_is_finished_and_replayed(client: OpenAI) -> None:
    """With a key a lost connection costs nobody the answer: the SDK asks again and has it."""
    asked: Any = {**STORY, "max_tokens": 30, "stream": True, "extra_headers": {"x-idempotency-key": "lost"}}
    stream = client.chat.completions.create(**asked)
    seen = next(text for chunk in stream if (text := chunk.choices[0].delta.content))
    stream.close()
    patient = client.with_options(max_retries=100)  # a second each, as told by the 409
    replayed = list(patient.chat.completions.create(**asked))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in replayed)
    assert text.startswith(seen)
    assert replayed[-1].choices[0].finish_reason == "length"
