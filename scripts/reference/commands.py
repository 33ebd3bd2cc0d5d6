"""What can be typed?"""

import inspect
from collections.abc import Iterator

import click

from perpetuo.entrypoints.commands.group import COMMANDS, loaded, main
from scripts.reference.markdown import GENERATED, prose, table


def lines() -> Iterator[str]:
    yield from ["# Commands", "", GENERATED, ""]
    yield "`perpetuo --help` and `perpetuo COMMAND --help` say the same. Exit status: 0 it is done; 1 it could not be"
    yield from ["done; 2 the question or the input is wrong.", ""]
    with click.Context(main, info_name="perpetuo") as above:
        for name in COMMANDS:
            yield from _command(loaded(name), name, above)


def _command(command: click.Command, name: str, above: click.Context) -> Iterator[str]:
    if command.hidden:
        return
    with click.Context(command, info_name=name, parent=above) as context:
        if isinstance(command, click.Group):
            for name_below, inner in command.commands.items():
                yield from _command(inner, name_below, context)
            return
        yield from [f"## `{context.command_path}`", ""]
        yield from _paragraphs(command.help or "")
        yield from ["```", f"{context.command_path} {' '.join(command.collect_usage_pieces(context))}", "```", ""]
        options = [_option(o, context) for o in command.params if isinstance(o, click.Option) and not o.hidden]
        if options:
            yield from [*table(("Option", "Meaning", "Left out"), options), ""]


def _paragraphs(text: str) -> Iterator[str]:
    r"""Help as paragraphs; one that begins with ``\b`` keeps its lines."""
    for paragraph in inspect.cleandoc(text).split("\f")[0].split("\n\n"):
        if paragraph.startswith("\b"):
            yield from ["```", *paragraph.splitlines()[1:], "```", ""]
        else:
            yield from [prose(paragraph), ""]


def _option(option: click.Option, context: click.Context) -> tuple[str, ...]:
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    takes = "" if option.is_flag else f" {option.make_metavar(context)}"
    meaning = option.help or ""
    if option.envvar:
        variables = [option.envvar] if isinstance(option.envvar, str) else option.envvar
        meaning += f" Also from {', '.join(f'`{name}`' for name in variables)}."
    default = option.get_default(context, call=False)
    plain = isinstance(default, str | int | float) and not isinstance(default, bool) and not option.is_flag
    return f"{names}{takes}", meaning, f"`{default}`" if plain else "required" if option.required else "–"
