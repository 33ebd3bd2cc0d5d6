"""Does the chart of the benchmark show what is in the table?"""

import xml.etree.ElementTree as ET
from pathlib import Path

from PIL import Image

from bench.chart import bars, scale, write
from bench.load import Measured
from bench.subjects import NGINX, PERPETUO
from bench.table import Line

M = Measured(1, 1.0, 0, 1.0, 1.0)
LINES = [Line(NGINX, "chat", 11.0, M), Line(PERPETUO, "chat", 286.0, M), Line("A & B", "stream", 125_000.0, M)]


def test_each_bar_tells_its_value_and_how_often_it_holds_nginx() -> None:
    """Where nginx ran the same case."""
    assert [bar.told for bar in bars(LINES, "chat")] == ["11", "286     26 times nginx"]
    assert [bar.told for bar in bars(LINES, "stream")] == ["125,000"]
    assert bars(LINES, "replay") == []


def test_the_scale_holds_every_value() -> None:
    """And the shortest bar is still one."""
    assert scale([19.0, 125_000.0]) == (10.0, 1_000_000.0)
    assert scale([11.0, 90.0]) == (1.0, 100.0)


def test_both_pictures_are_whole(tmp_path: Path) -> None:
    """A PNG that opens, an SVG that parses, with every name and nothing that the PNG's font does not have."""
    write(LINES, tmp_path / "cpu", "2026-11-26")
    with Image.open(tmp_path / "cpu.png") as picture:
        picture.load()
        assert picture.width == 1000
    tree = ET.parse(tmp_path / "cpu.svg")  # noqa: S314 - our own
    texts = [element.text or "" for element in tree.iter() if element.tag.endswith("text")]
    assert {NGINX, PERPETUO, "A & B"} <= set(texts)
    assert all(text.isascii() for text in texts)
