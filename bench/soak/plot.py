"""Memory and latency over time as one picture."""

from collections.abc import Callable, Sequence
from pathlib import Path

import attrs

from bench.canvas import FAINT, Png, Point
from bench.soak.verdict import LEAST_SECONDS, Run, fit, growth, quantile

WIDTH, HEIGHT = 1200, 760
LEFT, RIGHT, TOP, BOTTOM = 80, 230, 60, 50
COLOURS = ("#1f6feb", "#d1570b", "#2c8c4a", "#8250df")
BUCKETS = 120


@attrs.frozen
class Curve:
    """One line of a panel."""

    name: str
    points: Sequence[Point]
    colour: str
    dashed: bool = False


@attrs.frozen
class Panel:
    """One system of axes."""

    title: str
    curves: Sequence[Curve]
    low: float
    high: float


def write(run: Run, path: Path, title: str) -> None:
    """Two panels over the time of the traffic."""
    picture = Png(WIDTH, HEIGHT)
    picture.text((LEFT, 14), title, 17)
    height = (HEIGHT - TOP - BOTTOM) // 2
    for row, panel in enumerate((_memory(run), _latency(run))):
        _panel(picture, panel, run.seconds, TOP + row * height + 22, height - 48)
    picture.write(path)


def _memory(run: Run) -> Panel:
    curves = []
    for colour, pid in zip(COLOURS, run.after.workers, strict=False):
        points = [(sample.at, sample.workers[pid].rss / 1e6) for sample in run.during]
        curves.append(Curve(f"worker, {points[-1][1]:.1f} MB", points, colour))
        late = [point for point in points if point[0] >= run.seconds / 2]
        line = fit(late)
        ends = [(at, line.level + line.slope * at) for at in (run.seconds / 2, run.seconds)]
        judged = "" if run.seconds >= LEAST_SECONDS else " (not judged)"
        curves.append(Curve(f"{growth(run, pid) / 1e6:+.2f} MB/10 min{judged}", ends, colour, dashed=True))
    values = [value for curve in curves for _, value in curve.points]
    room = max(1.0, max(values) - min(values)) * 0.15
    return Panel("Resident memory of each worker, MB", curves, min(values) - room, max(values) + room)


def _latency(run: Run) -> Panel:
    curves = []
    for colour, share in zip(COLOURS, (0.5, 0.99), strict=False):
        points = _bucketed(run, lambda delays, share=share: quantile(delays, share))  # type: ignore[misc]
        whole = quantile([delay for _, delay in run.heard.delays], share)
        curves.append(Curve(f"p{share * 100:.0f}, {whole:.0f} ms over all", points, colour))
    top = max((value for curve in curves for _, value in curve.points), default=1.0)
    return Panel("Delay of plain calls that were answered, as clients saw it, ms", curves, 0.0, top * 1.1)


def _bucketed(run: Run, what: Callable[[Sequence[float]], float]) -> list[Point]:
    """One point for each 120th of the time."""
    size = max(1.0, run.seconds / BUCKETS)
    buckets: dict[int, list[float]] = {}
    for at, delay in run.heard.delays:
        buckets.setdefault(int(at / size), []).append(delay)
    return [((number + 0.5) * size, what(delays)) for number, delays in sorted(buckets.items())]


def _panel(picture: Png, panel: Panel, seconds: float, top: int, height: int) -> None:
    width = WIDTH - LEFT - RIGHT

    def place(point: Point) -> Point:
        share = (point[1] - panel.low) / (panel.high - panel.low)
        return LEFT + min(1.0, point[0] / seconds) * width, top + height * (1 - share)

    picture.text((LEFT, top - 24), panel.title, 14)
    for step in range(5):
        value = panel.low + (panel.high - panel.low) * step / 4
        picture.line([place((0, value)), place((seconds, value))], FAINT)
        picture.text((10, place((0, value))[1] - 8), f"{value:,.1f}".rjust(9), 13)
        at = seconds * step / 4
        picture.text((place((at, panel.low))[0] - 14, top + height + 4), f"{at:.0f} s", 13)
    for number, curve in enumerate(panel.curves):
        _line(picture, [place(point) for point in curve.points], curve)
        picture.text((WIDTH - RIGHT + 12, top + 4 + number * 22), curve.name, 13, curve.colour)


def _line(picture: Png, points: list[Point], curve: Curve) -> None:
    if not curve.dashed or len(points) < 2:
        picture.line(points, curve.colour, 2)
        return
    (x0, y0), (x1, y1) = points[0], points[-1]
    for dash in range(0, 60, 2):
        ends = [(x0 + (x1 - x0) * d / 60, y0 + (y1 - y0) * d / 60) for d in (dash, dash + 1)]
        picture.line(ends, curve.colour, 2)
