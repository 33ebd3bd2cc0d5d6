"""
How does a command show a list? As a table on a terminal, as aligned plain text on a pipe.

Rule 1: what came from elsewhere (a tenant's id, a model's name, a tag) can't steer the terminal: what is not printable
        is shown as its escape, and nothing is read as markup.
Rule 2: on a pipe nothing is cut, coloured or framed, so that `grep`, `awk` and `cut` find whole words.
"""

import sys
from collections.abc import Sequence

import rich_click as click

GAP = "  "


def printable(value: object) -> str:
    """``value`` as text that only shows; ``None`` is a dash."""
    text = "–" if value is None else str(value)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def show_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str | None = None, right: Sequence[str] = ()
) -> None:
    """One line a row; the columns named in ``right`` are numbers, aligned at their end."""
    texts = [[printable(value) for value in row] for row in rows]
    if sys.stdout.isatty():
        _framed(columns, texts, title, right)
        return
    for line in aligned([list(columns), *texts], [name in right for name in columns]):
        click.echo(line)


def show_pairs(pairs: Sequence[tuple[str, object]]) -> None:
    """Names and values below each other."""
    texts = [[name, printable(value)] for name, value in pairs]
    for line in aligned(texts, [False, False]):
        click.echo(line)


def aligned(lines: Sequence[Sequence[str]], right: Sequence[bool]) -> list[str]:
    """Columns as wide as their widest cell on screen, where a character may take two places."""
    from rich.cells import cell_len  # noqa: PLC0415 - 40 ms that `--json` does not need

    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]

    def cell(text: str, width: int, at_end: bool) -> str:
        room = " " * (width - cell_len(text))
        return room + text if at_end else text + room

    return [GAP.join(map(cell, line, widths, right)).rstrip() for line in lines]


def _framed(columns: Sequence[str], rows: list[list[str]], title: str | None, right: Sequence[str]) -> None:
    from rich import box  # noqa: PLC0415 - as above
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)
