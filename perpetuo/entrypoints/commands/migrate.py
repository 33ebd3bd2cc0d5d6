"""How does DATABASE_URL get this release's tables?"""

import sys

import rich_click as click
from sqlalchemy.exc import SQLAlchemyError

from perpetuo.adapters import environment
from perpetuo.adapters.sql import migrate as migrations


@click.command()
def migrate() -> None:
    """Bring the database of DATABASE_URL to this release's tables (`alembic upgrade head`)."""
    url = environment.read().database_url
    if url is None:
        click.echo("DATABASE_URL is not set: which database should be migrated?", err=True)
        sys.exit(2)
    try:
        before = migrations.current(url)
        migrations.upgrade(url)
    except (OSError, SQLAlchemyError, migrations.MigrationBusyError) as error:
        click.echo(f"Not migrated: {error}", err=True)
        sys.exit(1)
    after = migrations.current(url)
    click.echo(f"The database stands at {after}" + (", as before." if after == before else f" (before: {before})."))
