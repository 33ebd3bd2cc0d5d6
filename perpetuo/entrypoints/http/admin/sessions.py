"""
Who is signed in?

Rule 1: a session is a signed cookie: which key, until when, a nonce. No store is asked, so it works with Redis away.
Rule 2: it is signed with a secret that hashes in a configuration file do not give away: PERPETUO_ADMIN_KEY itself,
        which all workers of all nodes share; without one, a file the workers of this server share.
Rule 3: it ends after 12 h, whatever the browser keeps, or when its key is no longer there.
Rule 4: the token in a form is bound to the session it was made for.
"""

import base64
import binascii
import contextlib
import hmac
import os
import secrets
from collections.abc import Sequence
from enum import Enum
from hashlib import sha256
from pathlib import Path

import attrs
import msgspec

from perpetuo.adapters.environment import Environment
from perpetuo.domain.model.settings import AdminKey, Settings

SESSION_SECONDS = 12 * 3_600
COOKIE = "perpetuo_admin"
FROM_ENVIRONMENT = "PERPETUO_ADMIN_KEY"
"""What the key from the environment is called; it may act."""
SECRET_FILE = "session-secret"  # noqa: S105 - a file name


# --- keys ----------------------------------------------------------------------------------------


def keys_of(environment: Environment, settings: Settings) -> list[AdminKey]:
    """Every admin key there is."""
    given = environment.admin_key
    own = [AdminKey(FROM_ENVIRONMENT, sha256(given.encode()).digest())] if given is not None else []
    return [*own, *settings.admin_keys]


def holder(key: str, keys: Sequence[AdminKey]) -> AdminKey | None:
    """Whose key is this? All are compared, each in constant time."""
    digest = sha256(key.encode("utf-8", "surrogatepass")).digest()
    found = [known for known in keys if hmac.compare_digest(known.digest, digest)]
    return found[0] if found else None


# --- sessions ------------------------------------------------------------------------------------


class SignedOut(Enum):
    """Why there is no session; the value is what the sign-in page is told."""

    NO_COOKIE = "none"
    EXPIRED = "expired"
    INVALID = "invalid"


@attrs.frozen
class Session:
    """``text`` is the cookie; ``token`` goes into every form."""

    key: AdminKey
    text: str = attrs.field(repr=False)
    token: str = attrs.field(repr=False)


class _Claims(msgspec.Struct, array_like=True, frozen=True):
    name: str
    until: int
    nonce: str


class Sessions:
    """Makes and reads session cookies."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def begin(self, key: AdminKey, now_s: int) -> Session:
        claims = msgspec.json.encode(_Claims(key.name, now_s + SESSION_SECONDS, secrets.token_urlsafe(12)))
        return self._session(key, f"{_text(claims)}.{_text(self._sign(key, claims))}")

    def read(self, cookie: str | None, keys: Sequence[AdminKey], now_s: int) -> Session | SignedOut:
        if not cookie:
            return SignedOut.NO_COOKIE
        try:
            body, _, signature = cookie.partition(".")
            raw, signed = _bytes(body), _bytes(signature)
            claims = msgspec.json.decode(raw, type=_Claims)
        except (ValueError, binascii.Error, msgspec.DecodeError):
            return SignedOut.INVALID
        for key in keys:
            if key.name == claims.name and hmac.compare_digest(self._sign(key, raw), signed):
                return self._session(key, cookie) if now_s < claims.until else SignedOut.EXPIRED
        return SignedOut.INVALID

    def _session(self, key: AdminKey, text: str) -> Session:
        return Session(key, text, hmac.new(self._secret, b"form:" + text.encode(), sha256).hexdigest())

    def _sign(self, key: AdminKey, claims: bytes) -> bytes:
        return hmac.new(self._secret, b"session:" + key.digest + claims, sha256).digest()


def is_token(session: Session, given: str) -> bool:
    """Was this form made for this session?"""
    return hmac.compare_digest(session.token.encode(), given.encode("utf-8", "surrogatepass"))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)


# --- the secret ----------------------------------------------------------------------------------


def secret_of(environment: Environment) -> bytes:
    """What this server signs with (rule 2)."""
    if environment.admin_key is not None:
        return hmac.new(environment.admin_key.encode(), b"perpetuo admin sessions", sha256).digest()
    if environment.run_dir is None:
        return secrets.token_bytes(32)
    return _shared_secret(environment.run_dir / SECRET_FILE)


def _shared_secret(path: Path) -> bytes:
    """The first worker makes it, whole before it has its name; the others read it."""
    if not path.exists():
        draft = path.with_suffix(f".{os.getpid()}")
        draft.touch(mode=0o600)
        draft.write_bytes(secrets.token_bytes(32))
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    return path.read_bytes()
