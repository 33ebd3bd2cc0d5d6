"""
What do the tables look like?

Rule 1: one definition for Postgres and SQLite; the migrations in ``alembic/`` make exactly this,
and a test compares them on both.
Rule 2: columns of ``events`` are the fields of `Event`, plus ``revision``; `occurred_at` is its ``occurred_at_us``.
Rule 3: what a column holds is said in its ``doc``, which no migration sees and the reference is made of.
Rule 4: few indexes, since every one is paid on each insert. The primary key is a UUIDv7 and so sorts by time.
"""

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from perpetuo.domain.model.activity import FIGURES


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
HEAD = "0004"
"""The newest migration. Their ids ascend, so that an older release knows a newer database."""
metadata = sa.MetaData(naming_convention={"pk": "pk_%(table_name)s"})

events = sa.Table(
    "events",
    metadata,
    sa.Column("id", EVENT_ID, primary_key=True, doc="UUIDv7, so ids sort by time; also the id of the call."),
    sa.Column("revision", sa.Integer, nullable=False, doc="1; 2 when a late settlement corrected an abandoned row."),
    sa.Column("occurred_at", Utc, nullable=False, doc="When the request came, UTC."),
    sa.Column("tenant_id", sa.Text, nullable=False, doc="Whose call it was."),
    sa.Column("key_name", sa.Text, nullable=False, doc="Name of the key (`key-1` … by its place, when it has none)."),
    sa.Column("tag", sa.Text, doc="What the caller sent as `x-perpetuo-tag`."),
    sa.Column("kind", sa.Text, nullable=False, doc="`chat`, `embeddings`; `admin…` for what an operator did."),
    sa.Column("model", sa.Text, nullable=False, doc="The configured name (`*` for the catch-all)."),
    sa.Column("provider", sa.Text, doc="Who answered, or was asked last; empty: nobody was."),
    sa.Column("upstream_model", sa.Text, doc="The target's name of the model."),
    sa.Column("status", sa.Integer, nullable=False, doc="HTTP status that the caller got."),
    sa.Column(
        "outcome",
        sa.Text,
        nullable=False,
        doc="`completed`; `failed`; `cancelled`: the client left; `truncated`: the provider's stream broke off; "
        "`abandoned`: the worker died.",
    ),
    sa.Column("error_code", sa.Text, doc="The [code](errors.md), or the provider's own."),
    sa.Column("stream", sa.Boolean, nullable=False, doc="Was a stream asked for?"),
    sa.Column(
        "attempts",
        DOCUMENT,
        nullable=False,
        doc="A list: for each attempt its target, how it went, when it began after the call came, how long it took.",
    ),
    sa.Column(
        "decision",
        DOCUMENT,
        nullable=False,
        doc="Candidates, why each was skipped, limits that were read, the hold, where the time went.",
    ),
    sa.Column("input_tokens", sa.BigInteger, nullable=False, doc="Input, cached included."),
    sa.Column("output_tokens", sa.BigInteger, nullable=False, doc="Output."),
    sa.Column("cached_tokens", sa.BigInteger, nullable=False, doc="Input that the provider had cached."),
    sa.Column(
        "usage_basis",
        sa.Text,
        nullable=False,
        doc="`reported` by the provider, `estimated` from counted bytes, or `bound`: the hold.",
    ),
    sa.Column("cost_nano_usd", sa.BigInteger, nullable=False, doc="What was charged: 1,000,000,000 are 1 USD."),
    sa.Column("price_version", sa.Text, doc="Which prices it was charged by."),
    sa.Column("hold_nano_usd", sa.BigInteger, nullable=False, doc="What was held before it was sent."),
    sa.Column("budget_day", sa.String(10), doc="The day that it counts to, in the tenant's time zone."),
    sa.Column("latency_ms", sa.Double, nullable=False, doc="From the request to the end of its answer."),
    sa.Column("first_token_ms", sa.Double, doc="Until the first event of a stream."),
    sa.Column("overhead_ms", sa.Double, nullable=False, doc="Spent in the gateway itself."),
    sa.Column("idempotency", sa.Text, nullable=False, doc="`none`, `stored`, `not_stored` or `reexecuted`."),
    sa.Column("request_id", sa.Text, nullable=False, doc="The `x-request-id` of the answer."),
    sa.Column("upstream_request_id", sa.Text, doc="The provider's id of the last attempt."),
    sa.Column("trace_id", sa.Text, doc="Of the `traceparent`."),
    sa.Column("client_ip", sa.Text, doc="As `audit.clientIp` says: its network, whole, or empty."),
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
FILTERS = ("id", "tenant_id", "key_name", "model", "provider", "status", "outcome", "kind", "tag")
sa.Index("ix_events_filters", *(events.c[name] for name in FILTERS))
# What operators did is rare: these few rows have an index of their own, which no call is written to.
OF_OPERATORS = "substr(kind, 1, 5) = 'admin'"
"""Written the same in the index and in each question: only so do the planners see that it is about these rows."""
sa.Index("ix_events_admin", events.c.id, postgresql_where=sa.text(OF_OPERATORS), sqlite_where=sa.text(OF_OPERATORS))

refusals = sa.Table(
    "refusals",
    metadata,
    sa.Column("minute", Utc, primary_key=True, doc="The minute, UTC."),
    sa.Column("tenant_id", sa.Text, primary_key=True, doc="Whose call; empty for a failed authentication."),
    sa.Column("key_name", sa.Text, primary_key=True, doc="Name of the key."),
    sa.Column("reason", sa.Text, primary_key=True, doc="The [code](errors.md), or `replayed`."),
    sa.Column("client_ip", sa.Text, primary_key=True, doc="Only of those who could not be authenticated."),
    sa.Column("count", sa.BigInteger, nullable=False, doc="How many."),
    sa.Column("first_at", Utc, nullable=False, doc="When the first of them was."),
    sa.Column("last_at", Utc, nullable=False, doc="When the last was."),
    sa.Column("sample", DOCUMENT, nullable=False, doc="The first: `request_id`, `status`, `model`, `decision`."),
)

events_rejected = sa.Table(
    "events_rejected",
    metadata,
    sa.Column(
        "digest",
        sa.String(64),
        primary_key=True,
        comment="SHA-256 of revision and row",
        doc="SHA-256 of revision and row: the same row is set aside once.",
    ),
    sa.Column("rejected_at", Utc, nullable=False, doc="When SQL refused it."),
    sa.Column("id", sa.Text, doc="The event's id, if it could be read."),
    sa.Column("revision", sa.Integer, nullable=False, doc="The event's revision."),
    sa.Column("charged", sa.BigInteger, doc="What the call was charged, in nano-USD: the budget has it."),
    sa.Column("error", sa.Text, nullable=False, doc="What the database said."),
    sa.Column("row", sa.Text, nullable=False, doc="The row, as text."),
)


def _sums(name: str, of: str) -> sa.Table:
    """Sums of everything, of a provider, of a tenant and a model, of a tenant and a key; see `rollups`."""
    return sa.Table(
        name,
        metadata,
        sa.Column("cut", sa.Text, primary_key=True, comment="all, provider, tenant or key"),
        sa.Column("name", sa.Text, primary_key=True, comment="of the provider or the tenant"),
        sa.Column("minute", sa.BigInteger, primary_key=True, comment=of),
        sa.Column("model", sa.Text, primary_key=True, comment="of a tenant; of a key its name; else empty"),
        *(sa.Column(figure, sa.BigInteger, nullable=False) for figure in FIGURES),
    )


def _spans(name: str) -> sa.Table:
    """How many calls took how long."""
    return sa.Table(
        name,
        metadata,
        sa.Column("cut", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("measure", sa.Text, primary_key=True, comment="latency or first_token"),
        sa.Column("minute", sa.BigInteger, primary_key=True),
        sa.Column("bucket", sa.Integer, primary_key=True),
        sa.Column("count", sa.BigInteger, nullable=False),
    )


rollups = _sums("rollups", "since 1970, of the id: when the call came in")
rollup_spans = _spans("rollup_spans")
rollup_hours = _sums("rollup_hours", "the first of the hour")
rollup_hour_spans = _spans("rollup_hour_spans")
for _table in (rollups, rollup_spans, rollup_hours, rollup_hour_spans):
    sa.Index(f"ix_{_table.name}_minute", _table.c.minute)

rollups_due = sa.Table(
    "rollups_due",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), sa.Identity(), primary_key=True),
    sa.Column("minute", sa.BigInteger, nullable=False),
)
sa.Index("ix_rollups_due_minute", rollups_due.c.minute)
