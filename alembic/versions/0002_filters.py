"""
ix_events_filters: any combination of the filters that ``/admin/events`` offers is looked for in an index

Revision ID: 0002
Revises: 0001

On Postgres a table of a million rows is locked against writes for some two seconds; what calls leave behind waits in
Redis meanwhile.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

COLUMNS = ["id", "tenant_id", "key_name", "model", "provider", "status", "outcome"]


def upgrade() -> None:
    op.create_index("ix_events_filters", "events", COLUMNS)


def downgrade() -> None:
    op.drop_index("ix_events_filters", "events")
