"""
What do the tables look like?

Rule 1: one definition for Postgres and SQLite; the migrations in ``alembic/`` make exactly this,
and a test compares them on both.
Rule 2: columns of ``events`` are the fields of `Event`, plus ``revision``; `occurred_at` is its ``occurred_at_us``.
Rule 3: few indexes, since every one is paid on each insert. The primary key is a UUIDv7 and so sorts by time.
"""

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB


class Utc(sa.TypeDecorator[datetime]):
    """``timestamptz``; on SQLite, which has no zones, text in UTC."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return value.astimezone(UTC).replace(tzinfo=None) if value and dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value and dialect.name == "sqlite" else value


EVENT_ID = sa.Uuid(as_uuid=False).with_variant(sa.String(36), "sqlite")
DOCUMENT = sa.JSON().with_variant(JSONB(), "postgresql")
HEAD = "0002"
"""The newest migration. Their ids ascend, so that an older release knows a newer database."""
metadata = sa.MetaData(naming_convention={"pk": "pk_%(table_name)s"})

events = sa.Table(
    "events",
    metadata,
    sa.Column("id", EVENT_ID, primary_key=True),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("occurred_at", Utc, nullable=False),
    sa.Column("tenant_id", sa.Text, nullable=False),
    sa.Column("key_name", sa.Text, nullable=False),
    sa.Column("tag", sa.Text),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("provider", sa.Text),
    sa.Column("upstream_model", sa.Text),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("error_code", sa.Text),
    sa.Column("stream", sa.Boolean, nullable=False),
    sa.Column("attempts", DOCUMENT, nullable=False),
    sa.Column("decision", DOCUMENT, nullable=False),
    sa.Column("input_tokens", sa.BigInteger, nullable=False),
    sa.Column("output_tokens", sa.BigInteger, nullable=False),
    sa.Column("cached_tokens", sa.BigInteger, nullable=False),
    sa.Column("usage_basis", sa.Text, nullable=False),
    sa.Column("cost_nano_usd", sa.BigInteger, nullable=False),
    sa.Column("price_version", sa.Text),
    sa.Column("hold_nano_usd", sa.BigInteger, nullable=False),
    sa.Column("budget_day", sa.String(10)),
    sa.Column("latency_ms", sa.Double, nullable=False),
    sa.Column("first_token_ms", sa.Double),
    sa.Column("overhead_ms", sa.Double, nullable=False),
    sa.Column("idempotency", sa.Text, nullable=False),
    sa.Column("request_id", sa.Text, nullable=False),
    sa.Column("upstream_request_id", sa.Text),
    sa.Column("trace_id", sa.Text),
    sa.Column("client_ip", sa.Text),
    postgresql_partition_by="RANGE (id)",
)
sa.Index("ix_events_tenant_id", events.c.tenant_id, events.c.id)
sa.Index("ix_events_request_id", events.c.request_id)
# Answers sums from the index alone: a tenant's month is read in milliseconds per 100,000 rows.
sa.Index(
    "ix_events_budget_day",
    events.c.budget_day,
    events.c.tenant_id,
    postgresql_include=["key_name", "cost_nano_usd"],
)
# An operator may filter by any of these together, and most combinations match nothing. With the id first the index is
# read in order and the rest is compared inside it: a million rows take 60 to 180 ms; to fetch each took up to 970.
# As ids ascend, an insert only ever touches its last page.
sa.Index(
    "ix_events_filters",
    *(events.c[name] for name in ("id", "tenant_id", "key_name", "model", "provider", "status", "outcome")),
)

refusals = sa.Table(
    "refusals",
    metadata,
    sa.Column("minute", Utc, primary_key=True),
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("key_name", sa.Text, primary_key=True),
    sa.Column("reason", sa.Text, primary_key=True),
    sa.Column("client_ip", sa.Text, primary_key=True),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("first_at", Utc, nullable=False),
    sa.Column("last_at", Utc, nullable=False),
    sa.Column("sample", DOCUMENT, nullable=False),
)

events_rejected = sa.Table(
    "events_rejected",
    metadata,
    sa.Column("digest", sa.String(64), primary_key=True, comment="SHA-256 of revision and row"),
    sa.Column("rejected_at", Utc, nullable=False),
    sa.Column("id", sa.Text),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("charged", sa.BigInteger),
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("row", sa.Text, nullable=False),
)
