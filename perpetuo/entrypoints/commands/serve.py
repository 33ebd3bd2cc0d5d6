"""How is the gateway run in production?"""

import sys
from functools import partial

import rich_click as click

from perpetuo.entrypoints import serve as server


@click.command()
def serve() -> None:
    """
    Run the gateway on PORT, with Redis (REDIS_URL) and a database (DATABASE_URL).

    SIGTERM and SIGINT drain and end it, SIGHUP reads the configuration again. All variables: docs/configuration.md.
    """
    try:
        prepared = server.prepare()
    except server.StartRefusedError as error:
        sys.exit(server.refused(error, partial(click.echo, err=True)))
    tell = server.teller(prepared.environment)
    for event, text in server.warnings(prepared).items():
        tell("warning", event, message=text)
    sys.exit(server.run(prepared, tell))
