"""How is the gateway run in production?"""

import sys
from functools import partial

import rich_click as click

from perpetuo.adapters.telemetry.logs import open_log
from perpetuo.entrypoints import serve as server


@click.command()
def serve() -> None:
    """
    Run the gateway on PORT, with Redis (REDIS_URL) and a database (DATABASE_URL).

    SIGTERM and SIGINT drain and end it, SIGHUP reads the configuration again.
    All variables: docs/reference/environment.md.
    """
    try:
        prepared = server.prepare()
    except server.StartRefusedError as error:
        sys.exit(server.refused(error, partial(click.echo, err=True)))
    asked = prepared.environment
    tell = open_log(asked.log_level, asked.log_format).line
    server.warn(prepared, tell)
    sys.exit(server.run(prepared, tell))
