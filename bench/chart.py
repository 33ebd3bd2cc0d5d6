"""
CPU of one call, as bars: who spends how much?

The scale is logarithmic, since the ends lie three powers of ten apart; each bar tells its value and how often it
would hold nginx's. Pillow's own font has no letters beyond ASCII.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import attrs

from bench.canvas import FAINT, INK, Canvas, Png, Svg
from bench.subjects import NGINX, PERPETUO
from bench.table import Line

SHOWN = {"chat": "chat: one answer of 614 bytes", "stream": "stream: 101 events"}
WIDTH, LEFT, RIGHT, TOP = 1000, 330, 170, 72
BAR, GAP, BETWEEN = 26, 10, 56
OURS, OTHERS, BASE = "#1f6feb", "#8b949e", "#2c8c4a"
GREY = "#6e7781"
TITLE = "Microseconds of CPU that a gateway spends on one call (logarithmic scale; shorter is better)"


@attrs.frozen
class Bar:
    """One value, in µs."""

    who: str
    value: float
    told: str
    colour: str


def bars(lines: Sequence[Line], case: str) -> list[Bar]:
    """Those who were measured, in their order."""
    found = [line for line in lines if line.case == case]
    base = next((line.cpu_us for line in found if line.who == NGINX), None)
    out = []
    for line in found:
        times = "" if base is None or line.who == NGINX else f"     {line.cpu_us / base:,.0f} times nginx"
        colour = {NGINX: BASE, PERPETUO: OURS}.get(line.who, OTHERS)
        out.append(Bar(line.who, line.cpu_us, f"{line.cpu_us:,.0f}{times}", colour))
    return out


def scale(values: Sequence[float]) -> tuple[float, float]:
    """Powers of ten around all values; the lowest lies clearly above the first."""
    low = 10.0 ** math.floor(math.log10(min(values) / 1.5))
    return low, max(low * 10, 10.0 ** math.ceil(math.log10(max(values))))


def draw(canvas: Canvas, panels: dict[str, list[Bar]], note: str) -> None:
    low, high = scale([bar.value for panel in panels.values() for bar in panel])
    width = WIDTH - LEFT - RIGHT

    def place(value: float) -> float:
        return LEFT + width * math.log(value / low) / math.log(high / low)

    canvas.text((20, 14), TITLE, 19)
    canvas.text((20, 42), note, 13, GREY)
    top = TOP
    for case, panel in panels.items():
        canvas.text((20, top), SHOWN[case], 15)
        top += 30
        height = len(panel) * (BAR + GAP)
        for power in range(round(math.log10(low)), round(math.log10(high)) + 1):
            canvas.line([(place(10.0**power), top - 4), (place(10.0**power), top + height)], FAINT)
            label = f"{10**power:,}"
            canvas.text((place(10.0**power) + 3.2 * len(label), top + height + 3), label, 12, GREY, right=True)
        for bar in panel:
            canvas.text((LEFT - 10, top + 5), bar.who, 14, right=True)
            canvas.box((LEFT, top), (place(bar.value) - LEFT, BAR), bar.colour)
            canvas.text((place(bar.value) + 8, top + 5), bar.told, 14, INK)
            top += BAR + GAP
        top += BETWEEN - 18


def height(panels: dict[str, list[Bar]]) -> int:
    return TOP + sum(30 + len(panel) * (BAR + GAP) + BETWEEN - 18 for panel in panels.values())


def write(lines: Sequence[Line], path: Path, day: str) -> None:
    """``path`` with .png and .svg."""
    panels = {case: found for case in SHOWN if (found := bars(lines, case))}
    if not panels:
        return
    note = f"User and system time of all its processes, for each call that was answered. Measured in one run, {day}"
    for canvas, suffix in ((Png(WIDTH, height(panels)), ".png"), (Svg(WIDTH, height(panels)), ".svg")):
        draw(canvas, panels, note)
        canvas.write(path.with_suffix(suffix))
