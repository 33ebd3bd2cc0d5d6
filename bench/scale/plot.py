"""What grew, and what it cost, as one picture of bars; a band shows what counts as flat."""

from collections.abc import Sequence
from pathlib import Path

import attrs

from bench.canvas import FAINT, INK, Png

WIDTH, HEIGHT = 1200, 720
LEFT, TOP, GAP = 40, 60, 40
COLUMNS = 3
BAR, BAND, BOUND = "#1f6feb", "#dbe9ff", "#d1570b"


@attrs.frozen
class Panel:
    """Bars by name. ``flat``: the share by which they may differ from the first; ``bound``: what none may reach."""

    title: str
    bars: Sequence[tuple[str, float]]
    flat: float | None = None
    bound: float | None = None


def write(panels: Sequence[Panel], path: Path, title: str) -> None:
    picture = Png(WIDTH, HEIGHT)
    picture.text((LEFT, 16), title, 17)
    rows = -(-len(panels) // COLUMNS)
    width = (WIDTH - 2 * LEFT - (COLUMNS - 1) * GAP) / COLUMNS
    height = (HEIGHT - TOP - 20) / rows
    for number, panel in enumerate(panels):
        row, column = divmod(number, COLUMNS)
        _panel(picture, panel, LEFT + column * (width + GAP), TOP + row * height, width, height - 30)
    picture.write(path)


def _panel(picture: Png, panel: Panel, left: float, top: float, width: float, height: float) -> None:
    values = [value for _, value in panel.bars]
    first = values[0]
    ceiling = max([*values, panel.bound or 0, first * (1 + (panel.flat or 0))]) * 1.15
    floor, scale = top + height - 24, (height - 60) / ceiling
    picture.text((left, top), panel.title, 14)
    if panel.flat is not None:
        high, low = (floor - first * (1 + sign * panel.flat) * scale for sign in (1, -1))
        picture.box((left, high), (width, low - high), BAND)
    step = width / len(values)
    for number, (name, value) in enumerate(panel.bars):
        at = left + number * step + step * 0.25
        picture.box((at, floor - value * scale), (step * 0.5, value * scale), BAR)
        picture.text((at, floor - value * scale - 20), f"{value:,.0f}" if value >= 10 else f"{value:.1f}", 13)
        picture.text((at, floor + 4), name, 13)
    picture.line([(left, floor), (left + width, floor)], FAINT)
    if panel.bound is not None:
        at = floor - panel.bound * scale
        picture.line([(left, at), (left + width, at)], BOUND)
        picture.text((left + width, at - 18), f"at most {panel.bound:g}", 12, INK, right=True)
