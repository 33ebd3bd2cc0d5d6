"""
What may one scalar of the configuration be: how is it read, and how is that told to people and to editors?

Rule 1: a kind reads text and gives a value in the domain's unit (µs, bytes, nano-USD), or raises `ValueError` whose
        message may add a hint and never repeats the text.
Rule 2: ``allowed`` is the one sentence that the error, the reference and the editor show.
Rule 3: no number with a decimal point is read as a float where it is money or time.
"""

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from functools import cache
from hashlib import sha256
from ipaddress import ip_network
from pathlib import PurePath
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

import attrs

from perpetuo.adapters.configfile.problems import did_you_mean
from perpetuo.domain.model.money import MAX_BUDGET, Nano, Rate, nano_from_usd


@attrs.frozen(eq=False)
class Kind:
    """``read`` turns text into a value; ``schema`` is what JSON Schema says of it."""

    read: Callable[[str], Any]
    allowed: str
    schema: Mapping[str, Any]


class Unlimited(Enum):
    """A limit that is named and is none: it overrides the plan's."""

    UNLIMITED = "unlimited"


UNLIMITED = Unlimited.UNLIMITED

_WHOLE = re.compile(r"-?[0-9]{1,18}")
_DECIMAL = re.compile(r"[0-9]{1,15}(\.[0-9]{0,18})?|\.[0-9]{1,18}")
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?(ms|s|m|h|d)?")
_SIZE = re.compile(r"([0-9]{1,15}) ?(B|kB|KB|MB|GB|KiB|MiB|GiB)?")
_SHA256 = re.compile(r"sha256:([0-9a-fA-F]{64})")
_MICROSECONDS = {"ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_BYTES = {
    "B": 1,
    "kB": 1000,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
}


# --- numbers -------------------------------------------------------------------------------------


def whole(least: int, most: int | None = None) -> Kind:
    allowed = f"a whole number ≥ {least}" + (f" and ≤ {most:,}" if most is not None else "")

    def read(text: str) -> int:
        if not _WHOLE.fullmatch(text) or not least <= int(text) <= (most if most is not None else 10**18):
            raise ValueError
        return int(text)

    schema: dict[str, Any] = {"type": "integer", "minimum": least}
    return Kind(read, allowed, schema if most is None else schema | {"maximum": most})


def or_unlimited(kind: Kind) -> Kind:
    def read(text: str) -> Any:
        return UNLIMITED if text == "unlimited" else kind.read(text)

    return Kind(read, f"{kind.allowed}, or unlimited", {"anyOf": [kind.schema, {"const": "unlimited"}]})


def fraction(*, least: float = 0.0, above: bool = False) -> Kind:
    """A share between ``least`` and 1: a rate of failures or retries, never money."""

    def read(text: str) -> float:
        if not _DECIMAL.fullmatch(text) or not least <= float(text) <= 1 or (above and float(text) == least):
            raise ValueError
        return float(text)

    word = f"above {least:g}" if above else f"≥ {least:g}"
    bound = {"exclusiveMinimum": least} if above else {"minimum": least}
    return Kind(read, f"a number {word} and ≤ 1", {"type": "number", "maximum": 1, **bound})


def _usd(text: str, most: Nano) -> Nano:
    if not _DECIMAL.fullmatch(text):
        raise ValueError
    try:
        amount = nano_from_usd(Decimal(text))
    except ValueError as error:
        raise ValueError("at most 9 decimals") from error
    if amount > most:
        raise ValueError
    return amount


_USD = {"type": "number", "minimum": 0, "maximum": 1_000_000}
MONEY = Kind(
    lambda text: _usd(text, MAX_BUDGET),
    "an amount of USD without a unit, such as 50 or 0.25, ≥ 0 and ≤ 1,000,000",
    _USD,
)
PRICE = Kind(
    lambda text: Rate(_usd(text, MAX_BUDGET)),
    "a price in USD per million tokens without a unit, such as 0.5, ≥ 0 and ≤ 1,000,000",
    _USD,
)


def duration(least: str = "0s", most: str = "365d") -> Kind:
    """A span in µs, between two others as they are written."""
    low, high = _microseconds(least), _microseconds(most)

    def read(text: str) -> int:
        span = _microseconds(text)
        if not low <= span <= high:
            raise ValueError
        return span

    allowed = f"a duration such as 500ms, 30s, 5m, 24h or 90d, or a number of seconds, from {least} to {most}"
    text = {"type": "string", "pattern": f"^({_DURATION.pattern})$"}
    return Kind(read, allowed, {"anyOf": [{"type": "number", "minimum": 0}, text]})


def _microseconds(text: str) -> int:
    match = _DURATION.fullmatch(text)
    if not match:
        raise ValueError
    span = Decimal(match.group(1)) * _MICROSECONDS[match.group(2) or "s"]
    if span != int(span):
        raise ValueError("nothing finer than a microsecond")
    return int(span)


def size(least: int = 0, most: int = 1024**4) -> Kind:
    """Bytes."""

    def read(text: str) -> int:
        match = _SIZE.fullmatch(text)
        amount = int(match.group(1)) * _BYTES[match.group(2) or "B"] if match else -1
        if not least <= amount <= most:
            raise ValueError
        return amount

    allowed = f"a size such as 10MiB, 512KiB or 1MB, or a number of bytes, from {least:,} to {most:,} bytes"
    text = {"type": "string", "pattern": f"^({_SIZE.pattern})$"}
    return Kind(read, allowed, {"anyOf": [{"type": "integer", "minimum": 0}, text]})


# --- words ---------------------------------------------------------------------------------------


def choice(*words: str) -> Kind:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(did_you_mean(text, words).strip(" ()"))
        return text

    return Kind(read, f"one of {', '.join(words)}", {"enum": list(words)})


def status(*codes: int) -> Kind:
    """One of some HTTP statuses."""

    def read(text: str) -> int:
        if text not in map(str, codes):
            raise ValueError
        return int(text)

    return Kind(read, f"one of {', '.join(map(str, codes))}", {"enum": list(codes)})


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError
    return text == "true"


def printable(most: int, *, ascii_only: bool = False, without: str = "") -> Kind:
    """A name: it ends up in logs, headers, metrics and keys of a store."""

    def read(text: str) -> str:
        fits = 0 < len(text) <= most and text.isprintable() and text == text.strip()
        if not fits or (ascii_only and not text.isascii()) or any(c in text for c in without):
            raise ValueError
        return text

    allowed = f"1 to {most} printable {'ASCII ' if ascii_only else ''}characters"
    allowed += f" without {' '.join(without)}" if without else ""
    return Kind(read, allowed, {"type": "string", "minLength": 1, "maxLength": most})


def _credential(text: str) -> str:
    if not (0 < len(text) <= 4096 and text.isascii() and text.isprintable() and " " not in text):
        raise ValueError
    return text


def _digest(text: str) -> bytes:
    match = _SHA256.fullmatch(text)
    if not match:
        raise ValueError
    return bytes.fromhex(match.group(1))


def _key(text: str) -> bytes:
    """The digest of a key, written plain or as its hash: the key itself is not kept."""
    if text.startswith("sha256:"):
        return _digest(text)
    if len(text) > 512:
        raise ValueError
    return sha256(_credential(text).encode()).digest()


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        port_ok = parts.port is None or parts.port > 0
    except ValueError:
        raise ValueError("this is no address") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_ok or not _is_visible_ascii(text):
        raise ValueError
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("without user, query or fragment: credentials belong into apiKey")
    return text.rstrip("/")


def _proxy(text: str) -> str:
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not _is_visible_ascii(text):
        raise ValueError
    return text


def _include(text: str) -> str:
    path = PurePath(text)
    if not text.strip() or not text.isprintable() or path.is_absolute() or ".." in path.parts:
        raise ValueError
    return text


def _is_visible_ascii(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text


def _network(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError as error:
        hint = "the bits behind the prefix must be 0" if "host bits" in str(error) else ""
        raise ValueError(hint) from None


@cache
def _zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (KeyError, ValueError, OSError):
        raise ValueError(did_you_mean(text, available_timezones()).strip(" ()")) from None
    return text


def _expiry(text: str) -> date:
    """A ``date`` (in the tenant's zone, decided later) or an aware ``datetime``."""
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        return date.fromisoformat(text)
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time needs its offset, such as Z or +02:00")
    return moment


# --- the types of the schema ---------------------------------------------------------------------

Count = Annotated[int, whole(1, 1_000_000)]
Tokens = Annotated[int, whole(1, 100_000_000)]
Priority = Annotated[int, whole(0, 1_000)]
Attempts = Annotated[int, whole(1, 10)]
CountLimit = Annotated[int | Literal[Unlimited.UNLIMITED], or_unlimited(whole(1, 1_000_000))]
MoneyLimit = Annotated[Nano | Literal[Unlimited.UNLIMITED], or_unlimited(MONEY)]
UsdPerMTok = Annotated[Rate, PRICE]
FailureRate = Annotated[float, fraction(above=True)]
RetryShare = Annotated[float, fraction()]
Span = Annotated[int, duration()]
Timeout = Annotated[int, duration("1ms", "24h")]
Pause = Annotated[int, duration("0s", "60s")]
Window = Annotated[int, duration("100ms", "10m")]
OpenTime = Annotated[int, duration("100ms", "24h")]
Lease = Annotated[int, duration("5s", "10m")]
"""Workers renew leases every second: one that misses a few renewals must not lose its calls to another."""
Retention = Annotated[int, duration("1d", "3650d")]
StoreTimeout = Annotated[int, duration("1ms", "10s")]
Size = Annotated[int, size()]
RequestSize = Annotated[int, size(1024, 1024**3)]
Truth = Annotated[bool, Kind(_truth, "true or false", {"type": "boolean"})]
Id = Annotated[str, printable(128)]
TenantId = Annotated[str, printable(128, without="/")]
"""A key's limits are kept under ``tenant/key``: a slash in a tenant's id could name another tenant's key."""
ProviderId = Annotated[str, printable(128, ascii_only=True, without="{}")]
"""Sent in a header, and part of a Redis key whose braces mean something."""
ModelName = Annotated[str, printable(128, ascii_only=True)]
UpstreamModel = Annotated[str, printable(256)]
Pattern = Annotated[str, printable(128)]
Url = Annotated[str, Kind(_url, "an http:// or https:// address such as https://api.openai.com/v1", {"type": "string"})]
Proxy = Annotated[str, Kind(_proxy, "an http:// or https:// address such as http://proxy:3128", {"type": "string"})]
Credential = Annotated[str, Kind(_credential, "visible ASCII characters without spaces", {"type": "string"})]
Digest = Annotated[
    bytes,
    Kind(_digest, "sha256: and 64 hexadecimal digits", {"type": "string", "pattern": f"^{_SHA256.pattern}$"}),
]
KEY = Kind(
    _key,
    "a key of up to 512 visible ASCII characters, sha256: and 64 hexadecimal digits, or a mapping with hash",
    {"type": "string", "minLength": 1},
)
INCLUDE = Kind(
    _include,
    "a path beside or below this file, such as tenants.d/*.yaml, without ..",
    {"type": "string", "minLength": 1},
)
Include = Annotated[str, INCLUDE]
Network = Annotated[str, Kind(_network, "a network such as 10.0.0.0/8 or an address", {"type": "string"})]
Zone = Annotated[str, Kind(_zone, "a time zone such as UTC or Europe/Berlin", {"type": "string"})]
Expiry = Annotated[
    date, Kind(_expiry, "a date such as 2027-01-31, or a time such as 2027-01-31T12:00:00Z", {"type": "string"})
]
