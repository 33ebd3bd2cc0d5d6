"""Is the gateway in this container alive? For ``HEALTHCHECK``, where there is no curl."""

import sys
from http.client import HTTPConnection, HTTPException

import rich_click as click

from perpetuo.adapters import environment

SECONDS = 2.0


@click.command()
def healthcheck() -> None:
    """Ask the gateway on PORT whether it is live: exit status 0 or 1."""
    asked = environment.read()
    host = "127.0.0.1" if asked.host in {"0.0.0.0", "::"} else asked.host  # noqa: S104 - what it listens on
    connection = HTTPConnection(host, asked.port, timeout=SECONDS)
    try:
        connection.request("GET", "/health/live")
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        click.echo(f"{host}:{asked.port} does not answer: {error}", err=True)
        sys.exit(1)
    finally:
        connection.close()
    if status != 200:
        click.echo(f"/health/live on {host}:{asked.port} answered {status}", err=True)
        sys.exit(1)
