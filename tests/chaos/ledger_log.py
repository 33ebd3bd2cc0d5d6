"""
What did Redis itself write down?

Its append-only file is the ledger's own journal: every effect of every script, in order, over restarts. Read back, it
tells the time of each admission by Redis's clock, and what was spent and held at every instant, not only when somebody
looked.

Rule 1: only effects are read, none of our code: a script that forgets something is found out.
Rule 2: a transaction (``MULTI`` … ``EXEC``) is one instant.
Rule 3: between a shard's seal and its opening its counters are being read back from SQL, and no sum is due.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs
import msgspec

Command = list[bytes]
PREFIX = b"perpetuo:{s"


class _Row(msgspec.Struct, frozen=True):
    id: str
    tenant_id: str
    key_name: str
    request_id: str
    cost_nano_usd: int = 0
    budget_day: str | None = None


_decode_row = msgspec.json.Decoder(_Row).decode


@attrs.define
class Admission:
    """A call that Redis let in, at ``at_us`` of its clock."""

    call: str
    tenant: str
    key: str
    request: str
    at_us: int
    hold: int
    cancelled: bool = False
    reaped: bool = False
    revision: int = 0
    """The highest that was appended to the stream of events; 0: none."""


@attrs.frozen
class Claimed:
    """A run took an idempotency key that another run had, or whose answer was kept."""

    key: str
    call: str
    at_us: int
    before: str
    """What the key was: ``R`` running, ``D`` done and kept, ``N`` done and not kept."""
    before_call: str
    until_us: int
    """The end of the lease of the run before, or of the time its answer is kept."""


@attrs.frozen
class Overwritten:
    """A run ended a key that was not its own any more: ``fence`` is lower than the one the key had got."""

    key: str
    fence: int
    before: int


@attrs.frozen
class Height:
    """A window's spent and held together passed all that it had been."""

    scope: str
    window: str
    amount: int
    at: float


@attrs.frozen
class Drift:
    """After some transaction a window's counter was not the sum of the events appended for it."""

    scope: str
    window: str
    spent: int
    events: int
    at: float


@attrs.frozen
class LedgerLog:
    """All that the checker wants to know of it. Times of instants are seconds, good to about one."""

    admissions: dict[str, Admission] = attrs.field(factory=dict)
    claims: list[Claimed] = attrs.field(factory=list)
    overwritten: list[Overwritten] = attrs.field(factory=list)
    heights: list[Height] = attrs.field(factory=list)
    drifts: list[Drift] = attrs.field(factory=list)
    counters: dict[tuple[str, str], tuple[int, int]] = attrs.field(factory=dict)
    """Spent and held as they were left."""
    losses: list[float] = attrs.field(factory=list)
    """When all data was thrown away."""


def read(paths: Iterable[Path]) -> LedgerLog:
    """The pieces of an append-only file, oldest first."""
    replay = Replay()
    for path in paths:
        for transaction in transactions(commands(path.read_bytes())):
            replay.apply(transaction)
    return replay.log


def pieces(directory: Path) -> list[Path]:
    """Where a Redis with this ``--dir`` keeps its append-only file (one file before 7.0)."""
    several = sorted((directory / "appendonlydir").glob("*.incr.aof"), key=lambda path: int(path.name.split(".")[-3]))
    return several or [path for path in [directory / "appendonly.aof"] if path.exists()]


def commands(data: bytes) -> Iterator[Command]:
    """The commands of an append-only file; an unfinished one at its end is left out."""
    at = 0
    while (end := data.find(b"\r\n", at)) >= 0:
        kind, count = data[at : at + 1], data[at + 1 : end]
        at = end + 2
        if kind != b"*":  # an annotation
            continue
        parts = []
        for _ in range(int(count)):
            end = data.find(b"\r\n", at)
            if end < 0:
                return
            begin, length = end + 2, int(data[at + 1 : end])
            at = begin + length + 2
            if at > len(data):
                return
            parts.append(data[begin : begin + length])
        yield parts


def transactions(found: Iterable[Command]) -> Iterator[list[Command]]:
    """What happened at one instant: a transaction, or a command by itself."""
    gathered: list[Command] | None = None
    for command in found:
        name = command[0].upper()
        if name == b"MULTI":
            gathered = []
        elif name == b"EXEC":
            yield gathered or []
            gathered = None
        elif gathered is not None:
            gathered.append(command)
        else:
            yield [command]


@attrs.frozen
class _Claim:
    state: str
    call: str
    until_us: int
    fence: int


class Replay:
    """Redis's state as far as the checker needs it, from one transaction to the next."""

    def __init__(self) -> None:
        self.log = LedgerLog()
        self._now = 0.0
        self._money: dict[bytes, dict[bytes, int]] = {}
        self._highest: dict[bytes, int] = {}
        self._appended: dict[str, tuple[int, int]] = {}
        """Revision and cost of each event, as of the latest append that counts."""
        self._sums: dict[bytes, int] = defaultdict(int)
        """Cost of all events of a window, by the key of its counter."""
        self._closed: set[bytes] = set()
        """Shards whose counters are being read back, by their prefix."""
        self._lost: set[bytes] = set()
        """Those of them that lost their data: events may be missing for ever."""
        self._drifted: set[bytes] = set()
        self._claims: dict[bytes, _Claim] = {}

    def apply(self, transaction: list[Command]) -> None:
        """One instant."""
        touched: set[bytes] = set()
        ended: list[str] = []
        claims: dict[bytes, _Claim | None] = {}
        for command in transaction:
            name, key = command[0].upper(), command[1] if len(command) > 1 else b""
            if name == b"FLUSHALL":
                self._forget()
            elif key.startswith(PREFIX):
                match kind_of(key):
                    case b"budget":
                        self._move(name, command)
                        touched.add(key)
                    case b"call" if name == b"SET":
                        ended += self._record(key, command[2])
                    case b"events" if name == b"XADD":
                        touched |= self._append(command)
                    case b"idem":
                        claims.setdefault(key, self._claims.get(key))
                        self._claim(name, command)
                    case b"life" | b"seeded" | b"seeding" if name == b"SET":
                        touched |= self._shard(key, command[2])
        self._cancel(ended)
        self._compare(claims)
        for key in touched:
            self._measure(key)

    # --- money -----------------------------------------------------------------------------------

    def _move(self, name: bytes, command: Command) -> None:
        key = command[1]
        if name == b"HINCRBY":
            fields = self._money.setdefault(key, {b"spent": 0, b"held": 0})
            fields[command[2]] += int(command[3])
        elif name in (b"HSET", b"HMSET"):
            fields = self._money.setdefault(key, {b"spent": 0, b"held": 0})
            fields.update({field: int(value) for field, value in zip(command[2::2], command[3::2], strict=True)})
        elif name in (b"DEL", b"UNLINK"):
            self._money.pop(key, None)

    def _measure(self, key: bytes) -> None:
        """Is the counter the sum of its events, and has it never been so high?"""
        fields = self._money.get(key, {b"spent": 0, b"held": 0})
        spent, height = fields[b"spent"], fields[b"spent"] + fields[b"held"]
        scope, window = scope_of(key)
        if height > self._highest.get(key, 0):
            self._highest[key] = height
            self.log.heights.append(Height(scope, window, height, self._now))
        prefix = prefix_of(key)
        if spent != self._sums[key] and prefix not in self._closed and key not in self._drifted:
            self._drifted.add(key)
            self.log.drifts.append(Drift(scope, window, spent, self._sums[key], self._now))
        self.log.counters[scope, window] = spent, fields[b"held"]

    def _append(self, command: Command) -> set[bytes]:
        """An event goes to the stream; the counters it belongs to."""
        fields = dict(zip(command[3::2], command[4::2], strict=True))
        row, revision = _decode_row(fields[b"e"]), int(fields[b"r"])
        cost = int(fields.get(b"h", row.cost_nano_usd))
        known, charged = self._appended.get(row.id, (0, 0))
        if revision <= known:
            return set()
        self._appended[row.id] = revision, cost
        if (admission := self.log.admissions.get(row.id)) is not None:
            admission.revision = revision
        if row.budget_day is None:
            return set()
        prefix = prefix_of(command[1])
        scopes, windows = (row.tenant_id, f"{row.tenant_id}/{row.key_name}"), (row.budget_day, row.budget_day[:7])
        keys = {b"%b:budget:%b:%b" % (prefix, s.encode(), w.encode()) for s in scopes for w in windows}
        for key in keys:
            self._sums[key] += cost - charged
        return keys

    # --- calls -----------------------------------------------------------------------------------

    def _record(self, key: bytes, value: bytes) -> list[str]:
        """A call's record; the call, if this says that it is over."""
        call = key.rpartition(b":")[2].decode()
        known = self.log.admissions.get(call)
        state = value[:1]
        if state == b"H":
            head, _, _, row = value.split(b"\n", 3)
            words = head.split()
            if known is None:
                self._admit(call, int(words[4]), int(words[2]), _decode_row(row))
            else:
                known.hold = int(words[2])
        elif state == b"R" and known is not None:
            known.reaped = True
        return [call] if state == b"T" else []

    def _admit(self, call: str, at_us: int, hold: int, row: _Row) -> None:
        self._now = max(self._now, at_us / 1e6)
        self.log.admissions[call] = Admission(call, row.tenant_id, row.key_name, row.request_id, at_us, hold)

    def _cancel(self, ended: Iterable[str]) -> None:
        """Over without an event: it was never made."""
        for call in ended:
            known = self.log.admissions.get(call)
            if known is not None and not known.revision:
                known.cancelled = True

    # --- idempotency keys ------------------------------------------------------------------------

    def _claim(self, name: bytes, command: Command) -> None:
        key = command[1]
        if name in (b"DEL", b"UNLINK"):
            self._claims.pop(key, None)
        elif name in (b"HSET", b"HMSET"):
            fields = dict(zip(command[2::2], command[3::2], strict=True))
            state = fields[b"st"].decode()
            until = int(fields[b"lease" if state == "R" else b"exp"])
            self._claims[key] = _Claim(state, fields.get(b"call", b"").decode(), until, int(fields[b"fence"]))

    def _compare(self, claims: dict[bytes, _Claim | None]) -> None:
        """Who has taken a key from whom?"""
        for key, before in claims.items():
            now = self._claims.get(key)
            if before is None or now is None:
                continue
            if now.state != "R" and (now.fence < before.fence or before.state in {"D", "N"}):
                self.log.overwritten.append(Overwritten(key.decode(), now.fence, before.fence))
            if now.state != "R" or before.state == "F" or before.call == now.call:
                continue
            admission = self.log.admissions.get(now.call)
            at_us = admission.at_us if admission is not None else int(self._now * 1e6)
            name = key.decode()
            self.log.claims.append(Claimed(name, now.call, at_us, before.state, before.call, before.until_us))

    # --- shards ----------------------------------------------------------------------------------

    def _shard(self, key: bytes, value: bytes) -> set[bytes]:
        """A sign of life, a seal or an opening; the counters that are due again."""
        prefix, kind = prefix_of(key), kind_of(key)
        if kind == b"life":
            stamp = value.split()[1]
            self._now = max(self._now, 0.0 if stamp == b"-" else int(stamp) / 1e6)
        elif kind == b"seeding":
            self._closed.add(prefix)
        else:
            return self._opened(prefix)
        return set()

    def _opened(self, prefix: bytes) -> set[bytes]:
        self._closed.discard(prefix)
        mine = {key for key in (*self._sums, *self._money) if prefix_of(key) == prefix}
        if prefix in self._lost:
            self._lost.discard(prefix)
            for key in mine:
                self._sums[key] = self._money.get(key, {b"spent": 0})[b"spent"]
        return mine

    def _forget(self) -> None:
        self.log.losses.append(self._now)
        shards = {prefix_of(key) for key in (*self._sums, *self._money)}
        self._closed |= shards
        self._lost |= shards
        self._money.clear()
        self._claims.clear()


def kind_of(key: bytes) -> bytes:
    """``budget`` of ``perpetuo:{s05}:budget:acme:2026-11-23``."""
    return key.split(b":", 3)[2]


def prefix_of(key: bytes) -> bytes:
    """``perpetuo:{s05}`` of it."""
    return key[: key.index(b"}") + 1]


def scope_of(key: bytes) -> tuple[str, str]:
    """``acme`` and ``2026-11-23`` of it."""
    _, _, _, rest = key.decode().split(":", 3)
    scope, _, window = rest.rpartition(":")
    return scope, window
