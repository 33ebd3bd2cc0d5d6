"""
How does a key come into being, and how does one take the place of another?

Rule 1: a key is made here, shown once and kept nowhere: the configuration holds its SHA-256. That is enough, because
        it has so many random bits that nobody can search for it; slow hashes are for passwords.
Rule 2: a key is never an argument, which everybody on the machine could read: it comes on standard input.
Rule 3: a file is replaced whole and only when the new one is valid; whoever watches it sees one change.
"""

import codecs
import os
import secrets
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import rich_click as click
from rich.console import Console

RANDOM_BYTES = 24
"""192 bits; 160 are promised."""
SHORT = 20


def new_key() -> str:
    return f"sk-{secrets.token_urlsafe(RANDOM_BYTES)}"


def hash_line(key: str) -> str:
    """What stands for ``key`` in a list of ``apiKeys``."""
    return f"sha256:{sha256(key.encode()).hexdigest()}"


@click.group()
def keys() -> None:
    """Make keys, hash them, and put new ones in the place of old ones."""


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


@keys.command("hash")
def hash_() -> None:
    """Print what stands for a key in the configuration. The key is asked for, or read from standard input."""
    key = _asked()
    problem = _problem(key)
    if problem is not None:
        click.echo(problem, err=True)
        sys.exit(2)
    if len(key) < SHORT:
        click.echo(f"warning: {len(key)} characters can be guessed; `perpetuo keys new` makes a good key", err=True)
    click.echo(hash_line(key))


def _asked() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("Key", hide_input=True, err=True))
    return sys.stdin.read(64 * 1024).rstrip("\r\n")


def _problem(key: str) -> str | None:
    """Why this can't be a key, without repeating it."""
    from perpetuo.adapters.configfile.kinds import KEY  # noqa: PLC0415 - `keys new` needs no configuration

    if key.startswith("sha256:"):
        return "This is a hash already: put it into the configuration as it is."
    try:
        KEY.read(key)
    except ValueError:
        return f"A key is 1 to 512 visible ASCII characters without spaces; this has {len(key)} characters."
    return None


class Grace(click.ParamType[int]):
    """A span as the configuration writes them, in microseconds."""

    name = "SPAN"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from perpetuo.adapters.configfile.kinds import duration  # noqa: PLC0415 - as above

        kind = duration("1m", "365d")
        try:
            return int(kind.read(str(value)))
        except ValueError:
            self.fail(f"{value!r} is not {kind.allowed}", param, ctx)


@keys.command()
@click.argument("tenant")
@click.argument("name")
@click.option("--grace", type=Grace(), default="7d", show_default=True, help="How long the old key stays valid.")
@click.option("--file", type=click.Path(path_type=Path), help="Default: PERPETUO_CONFIG_PATH.")
@click.option("--write", is_flag=True, help="Change the file, instead of printing what to change.")
def rotate(tenant: str, name: str, *, grace: int, file: Path | None, write: bool) -> None:
    """
    Make a new key beside the key NAME of TENANT; both are valid until the grace is over.

    A running gateway takes the changed file over by itself. Afterwards the old key gets 401 `api_key_expired`.
    """
    from perpetuo.adapters.configfile.load import DEFAULT_FILE  # noqa: PLC0415 - as above
    from perpetuo.adapters.configfile.problems import ConfigError  # noqa: PLC0415
    from perpetuo.adapters.configfile.rotate import NotRotatedError, rotate  # noqa: PLC0415
    from perpetuo.adapters.environment import InvalidEnvironmentError, Variables  # noqa: PLC0415

    key, now_us = new_key(), time.time_ns() // 1_000
    try:
        variables = Variables()
        path = file or Path(variables.get("PERPETUO_CONFIG_PATH") or DEFAULT_FILE)
        found = rotate(path, variables, tenant, name, key, now_us=now_us, grace_us=grace)
        if write:
            _replace(Path(os.path.realpath(found.file)), found.before, found.text)
    except (ConfigError, InvalidEnvironmentError) as error:
        click.echo("\n".join(map(str, error.problems)), err=True)
        sys.exit(2)
    except (NotRotatedError, OSError) as error:
        click.echo(f"Nothing was changed: {error}", err=True)
        sys.exit(1)
    if not sys.stdout.isatty():
        click.echo(f"{key}\n- {found.old}\n- {found.new}")
        return
    _tell(key, found, name, written=write)


def _replace(path: Path, before: str, after: str) -> None:
    """The file is one or the other at any time, with the rights it had; `OSError` when it can't be."""
    raw = path.read_bytes()
    if raw.decode("utf-8-sig") != before:
        raise OSError(f"{path} was changed meanwhile; try again")
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    made = Path(name)
    try:
        had = path.stat()
        with os.fdopen(number, "wb") as file:
            file.write((codecs.BOM_UTF8 if raw.startswith(codecs.BOM_UTF8) else b"") + after.encode())
            file.flush()
            os.fsync(number)
        made.chmod(had.st_mode & 0o7777)
        if os.geteuid() == 0:
            os.chown(made, had.st_uid, had.st_gid)
        made.replace(path)
    finally:
        made.unlink(missing_ok=True)


def _tell(key: str, found: Any, name: str, *, written: bool) -> None:
    from rich.markup import escape  # noqa: PLC0415 - as above

    console = Console(highlight=False, soft_wrap=True)
    console.print("[bold]The new key[/], shown only now. Give it to its user:\n")
    console.print(f"  [green]{key}[/]\n")
    if written:
        console.print(f"{escape(str(found.file))} was changed: {escape(name)} is valid until {found.expires},")
        console.print(f"the new key is called {escape(found.name)}. A running gateway takes it over by itself.")
        return
    console.print(
        f"In {escape(str(found.file))}, line {found.line}, [bold]put this in the place of {escape(name)}[/]:\n"
    )
    console.print(f"  - {escape(found.old)}\n")
    console.print("and [bold]add this[/] at the end of the same list (or run it again with --write):\n")
    console.print(f"  - {escape(found.new)}")
