"""
Is this Redis fit to hold limits, money and events?

Values in, findings out: `perpetuo.adapters.redis.examine` has looked.
"""

from collections.abc import Iterator, Mapping

from perpetuo.adapters.redis.examine import RedisSeen
from perpetuo.adapters.redis.keys import FORMAT_VERSION
from perpetuo.adapters.redis.room import ADMISSION_BELOW, ANSWERS_BELOW, KEEPS, Room
from perpetuo.entrypoints.doctor.findings import Finding

OLDEST = (6, 2)
SLOW_MS = 20.0
LONG_BACKLOG = 10_000
STATUSES = ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status")
SKEW_US, FAR_US = 1_000_000, 60_000_000


def judge(seen: RedisSeen) -> Iterator[Finding]:
    facts = seen.facts
    version = facts.get("redis_version", "unknown")
    old = version[:1].isdecimal() and _numbers(version) < OLDEST
    yield Finding("redis version", version, "redis.version" if old else None)
    policy = facts.get("maxmemory_policy", "unknown")
    yield Finding("redis policy", f"maxmemory-policy {policy}", "redis.policy" if policy != KEEPS else None)
    yield _layout(seen.layout)
    yield _persistence(facts)
    yield _memory(Room.of(dict(facts)))
    yield clock("redis clock", seen.ahead_us, "redis.clock", "redis.clock-far")
    yield _replicas(facts)
    slow = seen.ping_ms > SLOW_MS
    yield Finding("redis latency", f"a ping takes {seen.ping_ms:.1f} ms", "redis.slow" if slow else None)
    yield _events(seen)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())


def _layout(found: str | None) -> Finding:
    if found is None:
        return Finding("redis data", "none of ours yet")
    return Finding("redis data", f"layout {found}", None if found == FORMAT_VERSION else "redis.layout")


def _persistence(facts: Mapping[str, str]) -> Finding:
    """What would a restart lose? INFO does not tell about ``save``, so a snapshot counts once one was made."""
    check = "redis persistence"
    failed = [name for name in STATUSES if facts.get(name, "ok") != "ok"]
    if failed:
        return Finding(check, f"the last write failed: {', '.join(failed)}", "redis.save-failed")
    if facts.get("aof_enabled") == "1":
        return Finding(check, "append-only file")
    if facts.get("rdb_last_bgsave_time_sec", "-1") != "-1":
        return Finding(check, "snapshots only: a crash loses what came after the last", "redis.snapshots")
    if int(facts.get("connected_slaves", 0)):
        return Finding(check, "none here; there are replicas", "redis.snapshots")
    return Finding(check, "no append-only file, and no snapshot since it started", "redis.unsaved")


def _memory(room: Room) -> Finding:
    if room.maximum == 0:
        return Finding("redis memory", f"{megabytes(room.used)} used, no maxmemory", "redis.unlimited")
    seen = f"{megabytes(room.used)} of {megabytes(room.maximum)} ({room.used * 100 // room.maximum} %)"
    if not room.below(ADMISSION_BELOW):
        return Finding("redis memory", f"{seen}: no call is admitted from {ADMISSION_BELOW} % on", "redis.full")
    if not room.below(ANSWERS_BELOW):
        return Finding("redis memory", f"{seen}: no answer is kept from {ANSWERS_BELOW} % on", "redis.filling")
    return Finding("redis memory", seen)


def clock(check: str, ahead_us: int, near: str, far: str) -> Finding:
    """A clock beside this machine's."""
    skew = abs(ahead_us)
    seen = f"{skew / 1_000_000:.3f} s {'ahead of' if ahead_us > 0 else 'behind'} this machine"
    return Finding(check, seen, far if skew >= FAR_US else near if skew >= SKEW_US else None)


def _replicas(facts: Mapping[str, str]) -> Finding:
    count = int(facts.get("connected_slaves", 0))
    away = [facts.get(f"slave{n}", "") for n in range(count)]
    broken = sum(1 for line in away if "state=online" not in line)
    seen = f"{count} connected" if count else "none"
    if broken:
        return Finding("redis replicas", f"{seen}, {broken} not in step", "redis.replica-away")
    return Finding("redis replicas", seen)


def _events(seen: RedisSeen) -> Finding:
    text = f"{seen.backlog:,} wait to be written to SQL"
    if seen.unread:
        return Finding("events", f"{text}; nobody reads {seen.unread} of the streams", "events.unread")
    return Finding("events", text, "events.backlog" if seen.backlog >= LONG_BACKLOG else None)


def megabytes(size: int) -> str:
    return f"{size / 1_048_576:,.0f} MiB"
