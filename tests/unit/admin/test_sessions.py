"""Sessions and their secret: signed, bound to their key, over after 12 hours."""

import hashlib
import stat
from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpetuo.adapters.environment import Environment, read
from perpetuo.domain.model.settings import AdminKey
from perpetuo.entrypoints.http.admin.sessions import Session, Sessions, SignedOut, holder, is_token, secret_of
from perpetuo.entrypoints.http.admin.signing import own

NOW = 1_790_000_000
ALICE = AdminKey("alice", hashlib.sha256(b"alice-key").digest())
BOB = AdminKey("bob", hashlib.sha256(b"bob-key").digest(), "read")
SESSIONS = Sessions(b"s" * 32)


def environment(**variables: str) -> Environment:
    return read({"REDIS_URL": "memory://", **variables})


def test_s7_a_session_is_its_keys_and_ends_after_twelve_hours() -> None:
    """To the second, and with the role the key has now."""
    session = SESSIONS.begin(ALICE, NOW)
    assert SESSIONS.read(session.text, [BOB, ALICE], NOW + 12 * 3_600 - 1) == session
    assert SESSIONS.read(session.text, [BOB, ALICE], NOW + 12 * 3_600) is SignedOut.EXPIRED
    demoted = SESSIONS.read(session.text, [attrs.evolve(ALICE, role="read")], NOW)
    assert isinstance(demoted, Session)
    assert demoted.key.role == "read"


def test_s7_a_session_ends_with_its_key() -> None:
    """A key that was removed or replaced under the same name, or another secret: signed out."""
    session = SESSIONS.begin(ALICE, NOW)
    assert SESSIONS.read(session.text, [BOB], NOW) is SignedOut.INVALID
    assert SESSIONS.read(session.text, [attrs.evolve(ALICE, digest=BOB.digest)], NOW) is SignedOut.INVALID
    assert Sessions(b"t" * 32).read(session.text, [ALICE], NOW) is SignedOut.INVALID


@given(st.data())
@settings(max_examples=100)
def test_s7_no_changed_cookie_is_a_session(data: st.DataObject) -> None:
    """Any character replaced by any other that means something else."""
    session = SESSIONS.begin(ALICE, NOW)
    at = data.draw(st.integers(0, len(session.text) - 1))
    text = session.text[:at] + data.draw(st.characters()) + session.text[at + 1 :]
    found = SESSIONS.read(text, [ALICE, BOB], NOW)
    assert isinstance(found, SignedOut) or found.key is ALICE  # the last character of base64 has idle bits
    if at < session.text.index(".") - 1 and text != session.text:
        assert isinstance(found, SignedOut)


@given(st.text(max_size=60))
@settings(max_examples=100)
def test_s7_no_text_is_a_session_or_an_error(text: str) -> None:
    """Whatever a client sends as a cookie."""
    assert isinstance(SESSIONS.read(text, [ALICE], NOW), SignedOut)


def test_s7_a_forms_token_is_bound_to_its_session() -> None:
    """Another session of the same key has another token."""
    first, second = SESSIONS.begin(ALICE, NOW), SESSIONS.begin(ALICE, NOW)
    assert is_token(first, first.token)
    assert not is_token(first, second.token)
    assert not is_token(first, "")
    assert not is_token(first, "\udcff")


def test_s7_keys_are_found_by_their_hash() -> None:
    """And nothing else is."""
    assert holder("bob-key", [ALICE, BOB]) is BOB
    assert holder("bob-key ", [ALICE, BOB]) is None
    assert holder("", [ALICE, BOB]) is None
    assert holder("\udc80", [ALICE, BOB]) is None


def test_s7_workers_share_the_secret_and_config_hashes_do_not_give_it_away(tmp_path: Path) -> None:
    """From the admin key on all nodes alike; else from a file of this server that nobody else can read."""
    key = environment(PERPETUO_ADMIN_KEY="k" * 24)
    assert secret_of(key) == secret_of(attrs.evolve(key, run_dir=tmp_path))
    first = secret_of(environment(PERPETUO_RUN_DIR=str(tmp_path)))
    assert secret_of(environment(PERPETUO_RUN_DIR=str(tmp_path))) == first
    assert len(first) == 32
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert secret_of(environment()) != secret_of(environment())


@pytest.mark.parametrize("target", ["/admin", "/admin/events?request_id=a%20b", "/admin?x=1"])
def test_s7_signing_in_leads_back(target: str) -> None:
    """To a page of ours."""
    assert own(target) == target


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "https://evil.example/admin",
        "/administrator",
        "/admin\\evil",
        "/admin/\r\nx: y",
        "",
        "/v1/key",
    ],
)
def test_s7_signing_in_leads_nowhere_else(target: str) -> None:
    """What is no page of ours becomes the overview."""
    assert own(target) == "/admin"
