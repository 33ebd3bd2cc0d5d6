"""
What can an operator type after ``perpetuo``?

Each command is one line in `GROUPS`, under the heading that `--help` shows it with, and lives in a module of its own,
imported only when it is asked for: `serve` should not pay for what `check` needs, nor `healthcheck`, which runs every
few seconds, for either.
"""

from importlib import import_module

import rich_click as click

from perpetuo import __version__

GROUPS = {
    "Run it": {
        "dev": "perpetuo.entrypoints.commands.dev:dev",
        "serve": "perpetuo.entrypoints.commands.serve:serve",
        "migrate": "perpetuo.entrypoints.commands.migrate:migrate",
        "healthcheck": "perpetuo.entrypoints.commands.healthcheck:healthcheck",
    },
    "Look at a running gateway": {
        "events": "perpetuo.entrypoints.commands.events:events",
    },
    "When something is wrong": {
        "doctor": "perpetuo.entrypoints.commands.doctor:doctor",
    },
    "Ask a running gateway": {
        "breaker": "perpetuo.entrypoints.commands.breaker:breaker",
        "budget": "perpetuo.entrypoints.commands.budget:budget",
        "tenants": "perpetuo.entrypoints.commands.tenants:tenants",
    },
    "Configure it": {
        "check": "perpetuo.entrypoints.commands.check:check",
        "plan": "perpetuo.entrypoints.commands.plan:plan",
        "keys": "perpetuo.entrypoints.commands.keys:keys",
    },
    "The command line itself": {
        "completion": "perpetuo.entrypoints.commands.completion:completion",
    },
}
COMMANDS = {name: place for group in GROUPS.values() for name, place in group.items()}


class _Lazy(click.RichGroup):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="perpetuo")
def main() -> None:
    """An AI gateway that people can trust with money."""


for _title, _commands in GROUPS.items():
    main = click.command_panel(_title, commands=[*_commands])(main)
