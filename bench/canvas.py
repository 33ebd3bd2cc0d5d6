"""
What pictures are drawn on: a PNG by Pillow, or an SVG as text.

Pillow draws at twice the size and makes it smaller afterwards, which smooths the lines: a plotting library would bring
forty times as much to install for a few bars and curves. An SVG follows the reader's light or dark theme; a PNG
brings its own paper.
"""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Protocol

from PIL import Image, ImageDraw, ImageFont

SCALE = 2
INK, FAINT, PAPER = "#222222", "#dddddd", "#ffffff"
DARK = {INK: "#e6edf3", FAINT: "#30363d", PAPER: "#0d1117"}
"""What an SVG shows instead where the reader's theme is dark."""
Point = tuple[float, float]


class Canvas(Protocol):
    """Where a picture is drawn; sizes and places in points."""

    def text(self, at: Point, text: str, size: int, colour: str = INK, *, right: bool = False) -> None:
        """``at``: where its line begins, or ends if ``right``, at the top."""

    def line(self, points: Sequence[Point], colour: str, width: int = 1) -> None: ...

    def box(self, at: Point, size: Point, colour: str) -> None: ...


class Png:
    """A bitmap."""

    def __init__(self, width: int, height: int) -> None:
        self._size = (width, height)
        self._image = Image.new("RGB", (width * SCALE, height * SCALE), PAPER)
        self._draw = ImageDraw.Draw(self._image)

    def text(self, at: Point, text: str, size: int, colour: str = INK, *, right: bool = False) -> None:
        font = ImageFont.load_default(size * SCALE)
        left = at[0] * SCALE - (self._draw.textlength(text, font=font) if right else 0)
        self._draw.text((left, at[1] * SCALE), text, fill=colour, font=font)

    def line(self, points: Sequence[Point], colour: str, width: int = 1) -> None:
        scaled = [(x * SCALE, y * SCALE) for x, y in points]
        self._draw.line(scaled, fill=colour, width=width * SCALE, joint="curve")

    def box(self, at: Point, size: Point, colour: str) -> None:
        corners = [at[0] * SCALE, at[1] * SCALE, (at[0] + size[0]) * SCALE - 1, (at[1] + size[1]) * SCALE - 1]
        self._draw.rectangle(corners, fill=colour)

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._image.resize(self._size, Image.Resampling.LANCZOS).save(path, optimize=True)


class Svg:
    """The same as text."""

    def __init__(self, width: int, height: int) -> None:
        self._size = (width, height)
        self._parts: list[str] = []
        self.box((0, 0), (width, height), PAPER)

    def _colour(self, what: str, colour: str) -> str:
        return f'class="{what}{colour[1:]}"' if colour in DARK else f'{what}="{colour}"'

    def text(self, at: Point, text: str, size: int, colour: str = INK, *, right: bool = False) -> None:
        anchor = ' text-anchor="end"' if right else ""
        place = f'x="{at[0]:g}" y="{at[1] + size:g}" font-size="{size}"'
        self._parts.append(f"<text {place}{anchor} {self._colour('fill', colour)}>{escape(text)}</text>")

    def line(self, points: Sequence[Point], colour: str, width: int = 1) -> None:
        places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        look = f'fill="none" stroke-width="{width}" {self._colour("stroke", colour)}'
        self._parts.append(f'<polyline points="{places}" {look}/>')

    def box(self, at: Point, size: Point, colour: str) -> None:
        place = f'x="{at[0]:g}" y="{at[1]:g}" width="{size[0]:.1f}" height="{size[1]:.1f}"'
        self._parts.append(f"<rect {place} {self._colour('fill', colour)}/>")

    def rendered(self) -> str:
        width, height = self._size
        light = "".join(f".{what}{c[1:]}{{{what}:{c}}}" for c in DARK for what in ("fill", "stroke"))
        dark = "".join(f".{what}{c[1:]}{{{what}:{d}}}" for c, d in DARK.items() for what in ("fill", "stroke"))
        style = f"<style>text{{font-family:sans-serif}}{light}@media(prefers-color-scheme:dark){{{dark}}}</style>"
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        )
        return "\n".join([head, style, *self._parts, "</svg>", ""])

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.rendered())
