"""Can the journal be believed? The upstream of the tests in this folder, asked without a gateway."""

import concurrent.futures
import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.journal_upstream import Entry, JournalUpstream
from tests.live import eventually
from tests.patience import PATIENCE


@pytest.fixture(scope="module")
def upstream() -> Iterator[JournalUpstream]:
    with JournalUpstream() as running:
        yield running


def ask(upstream: JournalUpstream, call: str, model: str = "m", **body: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "canary"}], **body}
    headers = {"x-perpetuo-call": call}
    return httpx.post(
        f"{upstream.base_url}/chat/completions", json=body, headers=headers, timeout=PATIENCE, verify=False
    )


def entry_of(upstream: JournalUpstream, call: str) -> Entry:
    found: Entry = eventually(lambda: next((e for e in upstream.entries() if e.call == call), None))
    return found


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_an_answer_keeps_to_the_limit_and_what_it_used_is_written_down(upstream: JournalUpstream, field: str) -> None:
    """Usage in the answer and in the journal are the same, and the text names the call."""
    limit: dict[str, Any] = {field: 1}
    answer = ask(upstream, field, **limit).json()
    entry = entry_of(upstream, field)
    assert answer["choices"][0]["message"]["content"] == f"{field} canary"
    assert (answer["usage"]["prompt_tokens"], 1) == (entry.input_tokens, entry.output_tokens)
    assert (entry.outcome, entry.status, entry.reported) == ("complete", 200, True)
    assert entry.started <= entry.ended


def test_a_stream_has_an_event_for_each_token_then_usage_then_done(upstream: JournalUpstream) -> None:
    """As OpenAI sends it."""
    upstream.behave("seven", "tokens=7")
    text = ask(upstream, "streamed", "seven", stream=True, stream_options={"include_usage": True}).text
    *events, done = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    found = [json.loads(event) for event in events]
    assert (len(found), done) == (7 + 2, "[DONE]")
    assert found[-1]["usage"]["completion_tokens"] == entry_of(upstream, "streamed").output_tokens == 7


@pytest.mark.parametrize(
    ("behaviour", "outcome", "status"),
    [("status=503", "error", 503), ("end=reset", "reset", 0), ("end=truncate", "truncate", 0)],
)
def test_faults_to_order(upstream: JournalUpstream, behaviour: str, outcome: str, status: int) -> None:
    """Each is written down as what it was, and costs nothing."""
    upstream.behave("faulty", behaviour)
    if status:
        assert ask(upstream, behaviour, "faulty").status_code == status
    else:
        with pytest.raises(httpx.HTTPError):
            ask(upstream, behaviour, "faulty")
    entry = entry_of(upstream, behaviour)
    assert (entry.outcome, entry.status, entry.output_tokens, entry.reported) == (outcome, status, 0, False)


def test_a_stream_that_breaks_has_cost_what_was_sent(upstream: JournalUpstream) -> None:
    """Three events and a reset are three tokens."""
    upstream.behave("breaking", "tokens=9,end=reset,after=3,gap=0.01")
    with pytest.raises(httpx.HTTPError):
        ask(upstream, "broken", "breaking", stream=True)
    entry = entry_of(upstream, "broken")
    assert (entry.outcome, entry.output_tokens, entry.reported) == ("reset", 3, False)


def test_a_missing_usage_is_known_to_the_journal_alone(upstream: JournalUpstream) -> None:
    """The answer says nothing of it."""
    upstream.behave("silent", "usage=0,tokens=4")
    assert "usage" not in ask(upstream, "unsaid", "silent").json()
    entry = entry_of(upstream, "unsaid")
    assert (entry.output_tokens, entry.reported) == (4, False)


def test_held_back_answers_come_when_the_model_behaves_otherwise(upstream: JournalUpstream) -> None:
    """Who waits is known meanwhile; then the new behaviour counts for all of them."""
    upstream.behave("held", "wait=1")
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        answers = [pool.submit(ask, upstream, f"held-{i}", "held") for i in range(5)]
        eventually(lambda: len(upstream.working("held")) == 5)
        assert upstream.entries("held") == []
        upstream.behave("held", "status=429,retry_after=7")
        assert {a.result().headers["retry-after"] for a in answers} == {"7"}
    assert upstream.working("held") == []


def test_who_leaves_is_written_down(upstream: JournalUpstream) -> None:
    """A client that goes before its answer ends the work on it."""
    upstream.behave("slow", "wait=1")
    body = b'{"model":"slow"}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nx-perpetuo-call: gone\r\ncontent-length: %d\r\n\r\n" % len(body)
    with socket.create_connection(("127.0.0.1", upstream.port)) as client:
        client.sendall(head + body)
        eventually(lambda: upstream.working("slow") == ["gone"])
    assert entry_of(upstream, "gone").outcome == "left"
