"""
What can `perpetuo doctor` find, and what is to be done about it?

This is the one table: a check names a finding by its code and adds what it saw. docs/doctor.md has the same table with
the reasons; a test compares them.
"""

from typing import Literal

import attrs

Level = Literal["ok", "warn", "bad"]


@attrs.frozen
class Advice:
    level: Level
    todo: str


FINDINGS: dict[str, Advice] = {
    "environment.invalid": Advice("bad", "Correct the variable; docs/configuration.md lists them all."),
    "configuration.invalid": Advice("bad", "Run `perpetuo check`: it tells every problem with its line and column."),
    "keys.published": Advice("bad", "Make a key with `perpetuo keys new`; put its hash in the published one's place."),
    "keys.expired": Advice("warn", "Take the key out of the file; `perpetuo keys new` makes another."),
    "keys.expiring": Advice("warn", "`perpetuo keys rotate` makes another; give it to its user before that day."),
    "admin-key.missing": Advice(
        "warn", "Set PERPETUO_ADMIN_KEY (or PERPETUO_ADMIN_KEY_FILE) to a key of `perpetuo keys new`."
    ),
    "management.open": Advice("warn", "Set MANAGEMENT_PORT, or PERPETUO_METRICS_TOKEN."),
    "workers.many": Advice("warn", "Leave WORKERS unset: it is then the number of usable CPUs, at most 8."),
    "files.few": Advice("warn", "Raise it for the gateway: `ulimit -n 65536`, LimitNOFILE=65536 in systemd."),
    "gateway.silent": Advice("warn", "Start it with `perpetuo serve`. If it runs, does it run here, and on this PORT?"),
    "gateway.foreign": Advice("bad", "Something else listens on PORT: end it, or set PORT."),
    "gateway.unready": Advice("bad", "Wait until it is ready, or read its log: it says what it waits for."),
    "gateway.degraded": Advice("warn", "Look at what it names, here and at /admin; calls go on as far as they can."),
    "redis.away": Advice("bad", "Start Redis, or correct REDIS_URL: no call is admitted without it."),
    "redis.version": Advice("bad", "Upgrade to Redis 6.2 or newer."),
    "redis.policy": Advice("bad", "Set `maxmemory-policy noeviction`: in redis.conf, and with `redis-cli CONFIG SET`."),
    "redis.layout": Advice("bad", "Run the release that wrote the data, or use an empty Redis database."),
    "redis.unsaved": Advice("bad", "Set `appendonly yes` in redis.conf."),
    "redis.snapshots": Advice("warn", "Set `appendonly yes` in redis.conf."),
    "redis.save-failed": Advice("bad", "Read Redis's log: most often its disk is full or not writable."),
    "redis.full": Advice("bad", "Raise maxmemory. Look at the backlog as well: events wait there while SQL is away."),
    "redis.filling": Advice("warn", "Raise maxmemory, or lower idempotency.ttl and maxBytesPerTenant."),
    "redis.unlimited": Advice("warn", "Set maxmemory below what the machine has to spare."),
    "redis.clock": Advice("warn", "Run NTP (chrony, systemd-timesyncd) on both machines."),
    "redis.clock-far": Advice("bad", "Run NTP (chrony, systemd-timesyncd) on both machines."),
    "redis.replica-away": Advice("warn", "Read the replica's log: without it a failover loses more."),
    "redis.slow": Advice("warn", "Put Redis nearer to the gateway; look for slow commands and a busy machine."),
    "events.backlog": Advice("warn", "Is the database there, and fast enough? The log names what the relay met."),
    "events.unread": Advice("warn", "Start a gateway: its workers carry events into SQL."),
    "database.unset": Advice("bad", "Set DATABASE_URL to postgresql://user:password@host:5432/name."),
    "database.away": Advice("bad", "Start the database, or correct DATABASE_URL and the rights of its user."),
    "database.missing": Advice("bad", "Run `perpetuo migrate`: it makes the file."),
    "database.version": Advice("bad", "Upgrade to PostgreSQL 14 or newer."),
    "database.replica": Advice("bad", "Let DATABASE_URL name the primary: a standby takes no rows."),
    "database.clock": Advice("warn", "Run NTP (chrony, systemd-timesyncd) on both machines."),
    "database.disk": Advice("warn", "Make room soon, or lower audit.retention."),
    "database.disk-full": Advice("bad", "Make room now: when it is full, events wait in Redis until that is full too."),
    "migrations.missing": Advice("bad", "Run `perpetuo migrate`."),
    "migrations.behind": Advice("bad", "Run `perpetuo migrate`."),
    "partitions.few": Advice("warn", "Start a gateway, which makes them; may its user create tables and own `events`?"),
    "partitions.default": Advice("warn", "Nothing is lost. See docs/doctor.md#rows-in-the-default-partition."),
    "events.rejected": Advice("bad", "Look into the table events_rejected; see docs/doctor.md#rejected-events."),
    "provider.away": Advice("bad", "Check baseUrl, name resolution, firewall and proxy from this machine."),
    "provider.insecure": Advice("bad", "Install the authority's certificate here (SSL_CERT_FILE), or correct baseUrl."),
    "provider.credential": Advice("bad", "Put a valid apiKey into the configuration; the provider's console has them."),
    "provider.unwell": Advice("warn", "Look at the provider's status page; calls fall back to other targets."),
    "doctor.overdue": Advice("bad", "Something accepts connections and never answers, or names are resolved slowly."),
    "doctor.broken": Advice("bad", "A defect of ours: please tell us, with this output."),
}


@attrs.frozen
class Finding:
    """What one check saw. ``code`` ``None``: nothing is wrong."""

    check: str
    seen: str
    code: str | None = None

    @property
    def level(self) -> Level:
        return "ok" if self.code is None else FINDINGS[self.code].level

    @property
    def todo(self) -> str | None:
        return None if self.code is None else FINDINGS[self.code].todo


def worst(found: "list[Finding]") -> Level:
    """The level of the whole."""
    levels = {finding.level for finding in found}
    return "bad" if "bad" in levels else "warn" if "warn" in levels else "ok"
