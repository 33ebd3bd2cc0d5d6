"""
What can an operator type after ``perpetuo``?

Each command is one line in `GROUPS`, under the heading that `--help` shows it with, and lives in a module of its own,
imported only when it is run: `serve` should not pay for what `check` needs, nor `healthcheck`, which runs every
few seconds, for either. Nor should a list of commands, or a shell that completes one: so what a command is for stands
here, as the first sentence of its own help does (a test compares them).
"""

from importlib import import_module

import rich_click as click

from perpetuo import __version__

GROUPS = {
    "Run it": {
        "dev": "Run the gateway here and now: no Redis, no database server, no provider's key.",
        "serve": "Run the gateway on PORT, with Redis (REDIS_URL) and a database (DATABASE_URL).",
        "migrate": "Bring the database of DATABASE_URL to this release's tables (`alembic upgrade head`).",
        "healthcheck": "Ask the gateway on PORT whether it is live: exit status 0 or 1.",
    },
    "When something is wrong": {
        "doctor": "Examine variables, configuration, Redis, database, providers and the gateway, and say what to do.",
    },
    "Ask a running gateway": {
        "events": "Look at calls and operators' actions in a running gateway.",
        "tenants": "What tenants use of their limits.",
        "budget": "Raise a budget for a while, or adjust what was spent.",
        "breaker": "Look at providers' circuit breakers, open and reset them.",
    },
    "Configure it": {
        "check": "Validate a configuration: FILE, or what PERPETUO_CONFIG_PATH names.",
        "plan": "Say what NEW.yaml would change, and which recorded calls it would have refused.",
        "keys": "Make keys, hash them, and put new ones in the place of old ones.",
    },
    "The command line itself": {
        "completion": "Print the script that completes `perpetuo` in SHELL.",
    },
}
COMMANDS = {name: what for group in GROUPS.values() for name, what in group.items()}


def loaded(name: str) -> click.Command:
    """The command itself: `name` in the module ``commands.name``."""
    command: click.Command = getattr(import_module(f"perpetuo.entrypoints.commands.{name}"), name)
    return command


class _Lazy(click.RichGroup):
    """Its commands are names, for help, completion and typing mistakes, until one of them is run."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, listed, rest = super().resolve_command(ctx, args)
        return name, listed if name is None else loaded(name), rest


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="perpetuo")
def main() -> None:
    """An AI gateway that people can trust with money."""


for _name, _what in COMMANDS.items():
    main.add_command(click.RichCommand(name=_name, help=_what))
for _title, _commands in GROUPS.items():
    main = click.command_panel(_title, commands=[*_commands])(main)
