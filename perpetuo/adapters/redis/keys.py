"""
What is each key in Redis called? This is the one table of names; nobody else spells one.

Rule 1: a tenant lives in one of 16 shards, a stable hash of its id, and every key one decision touches carries
the shard's hash tag ``{sNN}``: one script is one atomic step on one Redis now and on a cluster later.
Rule 2: whatever comes from outside (tenant ids, key names, addresses) is percent-encoded outside ``[A-Za-z0-9._-]``,
so that no id can end up in another one's key.
"""

from functools import lru_cache
from urllib.parse import quote
from zlib import crc32

SHARDS = 16
PREFIX = "perpetuo:"
FORMAT = PREFIX + "format"
FORMAT_VERSION = "1"
"""Raise it when the meaning of a key changes; a release reads its own and the one before."""


def safe(name: str) -> str:
    """Percent-encode everything but letters, digits and ``._-`` (UTF-8)."""
    return quote(name, safe="").replace("~", "%7E")


@lru_cache(maxsize=65_536)
def safe_scope(scope: str) -> str:
    """A scope is a tenant or ``tenant/key``; the slash between them stays."""
    tenant, slash, key = scope.partition("/")
    return safe(tenant) + slash + safe(key)


@lru_cache(maxsize=16_384)
def shard_of(tenant: str) -> int:
    """The shard of a tenant: the same in every process, release and language (CRC-32 of the UTF-8 id)."""
    return crc32(tenant.encode()) % SHARDS


def shard_prefix(shard: int) -> str:
    return f"{PREFIX}{{s{shard:02d}}}:"


@lru_cache(maxsize=16_384)
def prefix_of(tenant: str) -> str:
    return shard_prefix(shard_of(tenant))


# --- keys of one tenant: ``p`` is `prefix_of` its tenant -----------------------------------------


def rate(p: str, scope: str) -> str:
    return f"{p}rate:{safe_scope(scope)}"


def budget(p: str, scope: str, window: str) -> str:
    return f"{p}budget:{safe_scope(scope)}:{window}"


def in_flight(p: str, scope: str) -> str:
    return f"{p}inflight:{safe_scope(scope)}"


def idempotency(p: str, tenant: str, digest: str) -> str:
    return f"{p}idem:{safe(tenant)}:{digest}"


def call(p: str, call_id: str) -> str:
    """``call_id`` is a UUID of our own making: nothing to encode."""
    return f"{p}call:{call_id}"


def answers(p: str, tenant: str) -> str:
    """The tenant's stored answers and their sizes, by the end of their time."""
    return f"{p}answers:{safe(tenant)}"


def kept(p: str, tenant: str) -> str:
    """Bytes of the tenant's stored answers."""
    return f"{p}kept:{safe(tenant)}"


# --- keys of one shard: ``p`` is its prefix ------------------------------------------------------


def holds(p: str) -> str:
    return p + "holds"


def seeded(p: str) -> str:
    return p + "seeded"


def seeding(p: str) -> str:
    """Held by the one worker that is reading the shard's counters back from SQL."""
    return p + "seeding"


def life(p: str) -> str:
    """Which life of the store the shard's data belongs to, and when its leases were last renewed by anybody."""
    return p + "life"


def events(p: str) -> str:
    return p + "events"


def raises(p: str) -> str:
    """Budgets of the shard's tenants that are raised for a while, by id, and which version of that this is."""
    return p + "raises"


def refusals(p: str, minute: int) -> str:
    return f"{p}refusals:{minute}"


# --- keys of no tenant ---------------------------------------------------------------------------


def login(address: str) -> str:
    return f"{PREFIX}login:{safe(address)}"


def breaker(provider: str) -> str:
    """There means open. Operators may delete or set it, so its name is a promise."""
    return f"{PREFIX}cb:{safe(provider)}"


def breaker_state(provider: str) -> str:
    """The rest of a breaker; the hash tag puts it into the slot of `breaker`."""
    return f"{PREFIX}cbs:{{{breaker(provider)}}}"


def breaker_history(provider: str) -> str:
    """Its latest changes, in the same slot."""
    return f"{breaker_state(provider)}:history"
