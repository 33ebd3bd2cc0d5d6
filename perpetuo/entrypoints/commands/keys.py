"""
How does a key come into being?

It is made here, shown once and kept nowhere: the configuration holds its SHA-256. That is enough, because a key has so
many random bits that nobody can search for it; slow hashes are for passwords.
"""

import secrets
import sys
from hashlib import sha256

import rich_click as click
from rich.console import Console

RANDOM_BYTES = 24
"""192 bits; 160 are promised."""


def new_key() -> str:
    return f"sk-{secrets.token_urlsafe(RANDOM_BYTES)}"


def hash_line(key: str) -> str:
    """What stands for ``key`` in a list of ``apiKeys``."""
    return f"sha256:{sha256(key.encode()).hexdigest()}"


@click.group()
def keys() -> None:
    """Make keys."""


@keys.command()
def new() -> None:
    """Make a key: it is shown once, with the line for the configuration."""
    key = new_key()
    if not sys.stdout.isatty():
        click.echo(f"{key}\n{hash_line(key)}")
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print("[bold]The key[/], shown only now. Give it to its user:\n")
    console.print(f"  [green]{key}[/]\n")
    console.print("[bold]Its hash[/], for a tenant's apiKeys or for admin.keys:\n")
    console.print(f'  - "{hash_line(key)}"')
