"""
How does somebody see Perpetuo work, a minute after they heard of it?

`perpetuo dev` needs nothing beside Python: the ledger is in the process, events go to an SQLite file, and the sample
configuration has a demo provider, a demo tenant and its key.
"""

import os
import shlex
import threading
import time
from collections.abc import MutableMapping
from functools import partial
from hashlib import sha256
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import click
from rich.console import Console

from perpetuo import __version__
from perpetuo.adapters.configfile.load import load
from perpetuo.adapters.configfile.published import PUBLISHED
from perpetuo.adapters.environment import Variables
from perpetuo.adapters.sql import migrate
from perpetuo.adapters.telemetry.logs import open_log
from perpetuo.domain.model.models import CATCH_ALL
from perpetuo.domain.model.settings import Settings
from perpetuo.entrypoints import serve as server

CONFIG = "perpetuo.config.yaml"
ASK_SECONDS = 30.0


def run() -> int:
    """Serve until Ctrl-C; the exit status."""
    database = choose(os.environ, Path.cwd())
    try:
        prepared = server.prepare(production=False)
    except server.StartRefusedError as error:
        return server.refused(error, partial(click.echo, err=True))
    migrate.upgrade(f"sqlite:///{database}")
    threading.Thread(target=_greet, args=(prepared, database), daemon=True).start()
    asked = prepared.environment
    return server.run(prepared, open_log(asked.log_level, asked.log_format).line, drains=False)


def choose(environ: MutableMapping[str, str], here: Path) -> Path:
    """Set what `dev` decides by itself; where events go."""
    at_home = (here / CONFIG).is_file()
    if not environ.get("PERPETUO_CONFIG_PATH"):
        environ["PERPETUO_CONFIG_PATH"] = str(here / CONFIG if at_home else server.packaged(CONFIG))
    state = here / "var" if at_home else _state_home(environ) / "perpetuo"
    state.mkdir(parents=True, exist_ok=True)
    database = state / "perpetuo.sqlite3"
    for name in ("REDIS_URL_FILE", "DATABASE_URL_FILE"):
        environ.pop(name, None)
    environ.update(REDIS_URL="memory://", DATABASE_URL=f"sqlite:///{database}")
    return database


def _state_home(environ: MutableMapping[str, str]) -> Path:
    return Path(environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")


# ------------------------------------------------------------- greeting


def _greet(prepared: server.Prepared, database: Path) -> None:
    """Wait until the gateway answers, then say what to do with it."""
    asked = prepared.environment
    if not _answers(asked.port):
        return
    console = Console(highlight=False, soft_wrap=True)
    base = f"http://127.0.0.1:{asked.port}"
    operators = f"http://127.0.0.1:{asked.management_port or asked.port}"
    console.print(f"\n[bold]Perpetuo {__version__}[/] answers on [bold cyan]{base}[/]\n")
    console.print("[bold]Try it[/]\n")
    for line in curl(base, *_who(load(asked.config_path, Variables(os.environ)))):
        console.print(f"  {line}", style="green", markup=False)
    console.print()
    facts = {
        "Dashboard": f"{operators}/admin",
        "Admin key": prepared.admin_key or "the one you set",
        "API": f"{operators}/schema",
        "Configuration": f"{asked.config_path} (changes apply when you save)",
        "Events": str(database),
    }
    for name, fact in facts.items():
        console.print(f"[bold]{name:15}[/]", end="")
        console.print(fact, markup=False)
    console.print("\nCtrl-C ends it.\n")


def _answers(port: int) -> bool:
    until = time.monotonic() + ASK_SECONDS
    while time.monotonic() < until:
        connection = HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", "/health/ready")
            if connection.getresponse().status == 200:
                return True
        except (OSError, HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.05)
    return False


def _who(settings: Settings) -> tuple[str, str]:
    """A key and a model that go together: a published key if the configuration has one."""
    for key in PUBLISHED:
        caller = settings.authenticate(sha256(key.encode()).digest())
        if caller is not None:
            names = (n for n in settings.models.by_name if n != CATCH_ALL and caller.may_call(n))
            return key, next(names, "gpt-3.5-turbo")
    return "$YOUR_KEY", next((n for n in settings.models.by_name if n != CATCH_ALL), "gpt-3.5-turbo")


def curl(base: str, key: str, model: str) -> list[str]:
    """A command line that can be pasted into a shell."""
    body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'
    return [
        f"curl {base}/v1/chat/completions \\",
        f'  -H "Authorization: Bearer {key}" -H "Content-Type: application/json" \\',
        f"  -d {shlex.quote(body)}",
    ]
