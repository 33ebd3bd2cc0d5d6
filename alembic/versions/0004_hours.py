"""
rollup_hours, rollup_hour_spans; rollups by key; tag, kind and what operators did are found in an index

Revision ID: 0004
Revises: 0003

Sums of a tenant are also kept by key, and stand in the order of time. What there is of minutes becomes sums of hours at
once; minutes whose events are still there are marked, so that the running gateway sums them up by key as well, newest
first. On Postgres a table of a million rows is locked against writes for some seconds, and at the end, for a moment,
against all: what calls leave behind waits in Redis meanwhile. Sums can't be read from the beginning on.
"""

import sqlalchemy as sa

from alembic import context, op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

FIGURES = (
    "calls", "completed", "failed", "cancelled", "truncated", "abandoned", "refused", "cost_nano_usd", "input_tokens",
    "output_tokens", "cached_tokens",
)  # fmt: skip
MINUTE_MS = 60_000
FILTERS = ["id", "tenant_id", "key_name", "model", "provider", "status", "outcome"]
MINUTE = "since 1970, of the id: when the call came in"
ORDERS = {"0003": ["cut", "name", "model", "minute"], "0004": ["cut", "name", "minute", "model"]}
"""Of the primary key: a span of time of one tenant is then a piece of it. The columns stay, as an older release may
still be running; it knows no keys, and sums up minutes without them."""
COMMENTS = {
    "0003": {"cut": "all, provider or tenant", "model": "empty, but for tenants"},
    "0004": {"cut": "all, provider, tenant or key", "model": "of a tenant; of a key its name; else empty"},
}


def upgrade() -> None:
    _remake_rollups("0004")
    _sums("rollup_hours", "0004", "the first of the hour")
    _spans("rollup_hour_spans")
    for table in ("rollup_hours", "rollup_hour_spans"):
        op.create_index(f"ix_{table}_minute", table, ["minute"])
    admin = sa.text("substr(kind, 1, 5) = 'admin'")
    op.create_index("ix_events_admin", "events", ["id"], postgresql_where=admin, sqlite_where=admin)
    if not context.is_offline_mode():
        _sum_hours("rollups", "rollup_hours", ("cut", "name", "model"), FIGURES)
        _sum_hours("rollup_spans", "rollup_hour_spans", ("cut", "name", "measure", "bucket"), ("count",))
        _mark_what_is_there()
    _remake_filters([*FILTERS, "kind", "tag"])


def downgrade() -> None:
    op.drop_index("ix_events_admin", "events")
    _remake_filters(FILTERS)
    op.drop_table("rollup_hour_spans")
    op.drop_table("rollup_hours")
    op.execute("DELETE FROM rollups WHERE cut = 'key'")
    _remake_rollups("0003")


def _remake_filters(columns: list[str]) -> None:
    """The one there is serves until the other is built; SQLite can't rename it, and locks all of the file anyway."""
    if op.get_context().dialect.name == "postgresql":
        op.create_index("ix_events_filters_next", "events", columns)
        op.drop_index("ix_events_filters", "events")
        op.execute("ALTER INDEX ix_events_filters_next RENAME TO ix_events_filters")
    else:
        op.drop_index("ix_events_filters", "events")
        op.create_index("ix_events_filters", "events", columns)


# --- rollups -------------------------------------------------------------------------------------


def _sums(table: str, release: str, minute: str) -> None:
    kinds = {"cut": sa.Text, "name": sa.Text, "minute": sa.BigInteger, "model": sa.Text}
    comments = {**COMMENTS[release], "name": "of the provider or the tenant", "minute": minute}
    keyed = [sa.Column(name, kinds[name], nullable=False, comment=comments[name]) for name in ORDERS[release]]
    figures = [sa.Column(name, sa.BigInteger, nullable=False) for name in FIGURES]
    op.create_table(table, *keyed, *figures, sa.PrimaryKeyConstraint(*ORDERS[release], name=f"pk_{table}"))


def _spans(table: str) -> None:
    op.create_table(
        table,
        sa.Column("cut", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("measure", sa.Text, nullable=False, comment="latency or first_token"),
        sa.Column("minute", sa.BigInteger, nullable=False),
        sa.Column("bucket", sa.Integer, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("cut", "name", "measure", "minute", "bucket", name=f"pk_{table}"),
    )


def _remake_rollups(release: str) -> None:
    """The same rows under another primary key; on Postgres in the same table, so that its grants stay."""
    if op.get_context().dialect.name == "postgresql":
        op.drop_constraint("pk_rollups", "rollups")
        op.create_primary_key("pk_rollups", "rollups", ORDERS[release])
        for column, comment in COMMENTS[release].items():
            op.alter_column("rollups", column, comment=comment)
        return
    op.rename_table("rollups", "rollups_before")
    op.drop_index("ix_rollups_minute", "rollups_before")
    _sums("rollups", release, MINUTE)
    op.create_index("ix_rollups_minute", "rollups", ["minute"])
    names = ", ".join([*ORDERS[release], *FIGURES])
    op.execute(f"INSERT INTO rollups ({names}) SELECT {names} FROM rollups_before")  # noqa: S608 - our own names
    op.drop_table("rollups_before")


def _sum_hours(minutes: str, hours: str, same: tuple[str, ...], figures: tuple[str, ...]) -> None:
    """The newest hour may not be over: the gateway sums it up when it is."""
    keyed, sums = ", ".join(same), ", ".join(f"CAST(sum({name}) AS bigint)" for name in figures)
    op.execute(
        f"INSERT INTO {hours} ({keyed}, minute, {', '.join(figures)})"  # noqa: S608 - our own names
        f" SELECT {keyed}, minute / 60 * 60, {sums} FROM {minutes}"
        f" WHERE minute < (SELECT max(minute) / 60 * 60 FROM {minutes}) GROUP BY {keyed}, minute / 60 * 60"
    )


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
