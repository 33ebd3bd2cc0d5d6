"""What the fuzzer has found so far, played again; and would it find what we know to be wrong?"""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpetuo.adapters.providers.transport import connection, llhttp, response
from perpetuo.adapters.providers.transport.connection import Connection, Http1Exchange
from perpetuo.domain.model.upstream import UpstreamFailure
from tests.fuzz import corpus, plays
from tests.fuzz.plays import OK, PLAYS
from tests.fuzz.scene import play


@pytest.mark.parametrize("name", PLAYS)
def test_s4_no_play_with_a_name_breaks_a_promise(name: str) -> None:
    """Also those that once did, raw as the fuzzer found them."""
    play(PLAYS[name])


def test_s4_no_input_that_the_fuzzer_kept_breaks_a_promise() -> None:
    """All of its corpus; each input reaches something that no other does."""
    play_all(corpus.load())


PIECES = st.one_of(
    st.sampled_from(plays.PIECES),
    st.builds(lambda letter, number: bytes((0xFF, letter, number)), st.sampled_from(b"ncaktfb"), st.integers(0, 40)),
    st.binary(max_size=4),
)


@given(pieces=st.lists(PIECES, max_size=25))
@settings(max_examples=300, deadline=None)
def test_s4_no_play_of_servers_and_callers_breaks_a_promise(pieces: list[bytes]) -> None:
    """Several calls on several connections; answers, goodbyes, aborts and time in any order."""
    play(b"".join(pieces))


def test_the_second_call_gets_the_second_answer_over_the_same_connection() -> None:
    """The stage itself: a play does happen."""
    first, second = play(PLAYS["two calls"])
    assert (first.body, second.body, first.whole, second.whole) == (b"ok", b"no", True, True)
    (late,) = play(b"\xfft\x01" + OK[:10])
    assert isinstance(late.failure, UpstreamFailure)


# Planted bugs.


def deaf_while_idle(self: Connection, data: bytes) -> None:
    if self._exchange is not None:
        self._exchange.on_data(data)


def forgiving(self: Http1Exchange, data: bytes) -> None:
    try:
        self._reader.feed(data)
    except response.Malformed:
        self._reader.complete = True
    if self._reader.complete:
        self._leave(15.0)
    self._wake()


def never_sent(self: Http1Exchange, fault: Any, text: str) -> None:
    if self._connection is not None:
        self.failure = UpstreamFailure(fault, False, text)
        self._leave(0.0)
        self._wake()


def kept_whatever_happened(self: Http1Exchange, keep_s: float) -> None:
    taken, self._connection = self._connection, None
    self._abort.detach(self._aborted)
    if taken is not None:
        taken.free(15.0)


def never_given_back(self: llhttp.LlhttpUpstream, taken: Connection, keep_s: float) -> None:
    self._busy.discard(taken)


def used_by_two(self: llhttp.LlhttpUpstream) -> Connection | None:
    return next((one for one in (*self._idle, *self._busy) if not one.closed), None)


def in_a_hurry(self: connection.Connection, due: float) -> None:
    """Nobody looks again."""


PLANTED: dict[str, tuple[type, str, Callable[..., Any]]] = {
    "what is said while idle is overheard": (Connection, "data_received", deaf_while_idle),
    "bytes after the end are forgiven": (Http1Exchange, "on_data", forgiving),
    "sent is never true": (Http1Exchange, "fail", never_sent),
    "a connection is kept whatever happened": (Http1Exchange, "_leave", kept_whatever_happened),
    "slots are not given back": (llhttp.LlhttpUpstream, "_freed", never_given_back),
    "a connection is used by two": (llhttp.LlhttpUpstream, "_take", used_by_two),
    "nobody looks at the time": (Connection, "watch", in_a_hurry),
    "the end of an answer is not noticed": (response.ResponseReader, "on_message_complete", lambda self: None),
    "a 1xx is the answer": (response.ResponseReader, "_refuse", lambda self, problem: None),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_seen_in_the_corpus(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The judges of a play would notice."""
    where, method, bug = PLANTED[name]
    monkeypatch.setattr(where, method, bug)
    with pytest.raises(BaseException):  # noqa: B017, PT011 - a bug shows as whatever it leads to
        play_all([*corpus.load(), *PLAYS.values()])


def play_all(inputs: list[bytes]) -> None:
    for data in inputs:
        play(data)
