"""How does somebody see Perpetuo work, a minute after they heard of it?"""

import sys

import rich_click as click

from perpetuo.entrypoints.dev import run


@click.command()
def dev() -> None:
    """Run the gateway here and now: no Redis, no database server, no provider's key."""
    sys.exit(run())
