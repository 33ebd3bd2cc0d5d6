"""
events, refusals, events_rejected

Revision ID: 0001
Revises:

On Postgres ``events`` is partitioned by range of its UUIDv7, whose first bits are the time: one
partition a day, made ahead by the running gateway; the DEFAULT partition is a net.
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

EVENT_ID = sa.Uuid(as_uuid=False).with_variant(sa.String(36), "sqlite")
DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    _create_events()
    op.create_table(
        "refusals",
        sa.Column("minute", TIME, nullable=False),
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("key_name", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("client_ip", sa.Text, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("first_at", TIME, nullable=False),
        sa.Column("last_at", TIME, nullable=False),
        sa.Column("sample", DOCUMENT, nullable=False),
        sa.PrimaryKeyConstraint("minute", "tenant_id", "key_name", "reason", "client_ip", name="pk_refusals"),
    )
    op.create_table(
        "events_rejected",
        sa.Column("digest", sa.String(64), nullable=False, comment="SHA-256 of revision and row"),
        sa.Column("rejected_at", TIME, nullable=False),
        sa.Column("id", sa.Text),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("charged", sa.BigInteger),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("row", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_events_rejected"),
    )


def _create_events() -> None:
    op.create_table(
        "events",
        sa.Column("id", EVENT_ID, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("occurred_at", TIME, nullable=False),
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
        sa.PrimaryKeyConstraint("id", name="pk_events"),
        postgresql_partition_by="RANGE (id)",
    )
    op.create_index("ix_events_tenant_id", "events", ["tenant_id", "id"])
    op.create_index("ix_events_request_id", "events", ["request_id"])
    op.create_index(
        "ix_events_budget_day",
        "events",
        ["budget_day", "tenant_id"],
        postgresql_include=["key_name", "cost_nano_usd"],
    )
    if op.get_context().dialect.name == "postgresql":
        op.execute("CREATE TABLE events_default PARTITION OF events DEFAULT")


def downgrade() -> None:
    op.drop_table("events_rejected")
    op.drop_table("refusals")
    op.drop_table("events")
