"""
rollups, rollup_spans, rollups_due: sums of every minute, for charts

Revision ID: 0003
Revises: 0002

Minutes of the events that are there are marked, so that the running gateway sums them up, newest first.
"""

import sqlalchemy as sa

from alembic import context, op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

FIGURES = (
    "calls", "completed", "failed", "cancelled", "truncated", "abandoned", "refused", "cost_nano_usd", "input_tokens",
    "output_tokens", "cached_tokens",
)  # fmt: skip
MINUTE_MS = 60_000


def upgrade() -> None:
    op.create_table(
        "rollups",
        sa.Column("cut", sa.Text, nullable=False, comment="all, provider or tenant"),
        sa.Column("name", sa.Text, nullable=False, comment="of the provider or the tenant"),
        sa.Column("model", sa.Text, nullable=False, comment="empty, but for tenants"),
        sa.Column("minute", sa.BigInteger, nullable=False, comment="since 1970, of the id: when the call came in"),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in FIGURES),
        sa.PrimaryKeyConstraint("cut", "name", "model", "minute", name="pk_rollups"),
    )
    op.create_index("ix_rollups_minute", "rollups", ["minute"])
    op.create_table(
        "rollup_spans",
        sa.Column("cut", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("measure", sa.Text, nullable=False, comment="latency or first_token"),
        sa.Column("minute", sa.BigInteger, nullable=False),
        sa.Column("bucket", sa.Integer, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("cut", "name", "measure", "minute", "bucket", name="pk_rollup_spans"),
    )
    op.create_index("ix_rollup_spans_minute", "rollup_spans", ["minute"])
    op.create_table(
        "rollups_due",
        # an identity needs no right on its sequence: who may write the tables may write this one too
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), sa.Identity(), nullable=False),
        sa.Column("minute", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_rollups_due"),
    )
    op.create_index("ix_rollups_due_minute", "rollups_due", ["minute"])
    if not context.is_offline_mode():
        _mark_what_is_there()


def _mark_what_is_there() -> None:
    """Every minute between the oldest and the newest call; those without calls cost little."""
    connection = op.get_bind()
    ends = [
        connection.scalar(sa.text(f"SELECT CAST(id AS text) FROM events ORDER BY id {order} LIMIT 1"))  # noqa: S608
        for order in ("ASC", "DESC")
    ]
    if None in ends:
        return
    first, last = (int(str(end).replace("-", "")[:12], 16) // MINUTE_MS for end in ends)
    first = max(first, last - 90 * 1_440)
    due = sa.table("rollups_due", sa.column("minute"))
    op.bulk_insert(due, [{"minute": minute} for minute in range(first, last + 1)])


def downgrade() -> None:
    for table in ("rollups_due", "rollup_spans", "rollups"):
        op.drop_table(table)
