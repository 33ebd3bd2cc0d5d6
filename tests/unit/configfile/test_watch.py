"""Is every change of the file seen, however it is made?"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from perpetuo.adapters.configfile.watch import INTERVAL, SETTLED, identity, watch

Step = Callable[[], object]


class Over(Exception):  # noqa: N818 - ends a test
    pass


async def changes(path: Path, steps: list[Step], before: Step = lambda: None) -> int:
    """How often a change is told while ``steps`` are done, one at each look, ``before`` ahead of the first."""
    told = 0
    remaining = iter(steps)
    read_as = identity(path)
    before()

    async def on_change() -> None:
        nonlocal told, read_as
        told += 1
        read_as = identity(path)

    async def sleep(_: float) -> None:
        step = next(remaining, None)
        if step is None:
            raise Over
        step()

    with pytest.raises(Over):
        await watch(path, lambda: read_as, on_change, sleep)
    return told


def nothing() -> None:
    pass


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "c.yaml").write_text("one")
    return tmp_path / "c.yaml"


@pytest.mark.anyio
async def test_s6_an_untouched_file_is_no_change(path: Path) -> None:
    """Nothing is told while nothing happens."""
    assert await changes(path, [nothing] * 10) == 0


@pytest.mark.anyio
async def test_s6_a_write_in_place_is_told_once(path: Path) -> None:
    """One write is one change."""
    assert await changes(path, [nothing, lambda: path.write_text("other"), nothing, nothing, nothing]) == 1


@pytest.mark.anyio
async def test_s6_a_change_between_reading_and_the_first_look_is_told(path: Path) -> None:
    """A worker reads, connects and only then begins to watch; what is revoked meanwhile was good on it for ever."""
    assert await changes(path, [nothing, nothing], before=lambda: path.write_text("changed")) == 1


@pytest.mark.anyio
async def test_s6_what_somebody_else_had_read_is_not_told_again(path: Path) -> None:
    """SIGHUP came before the watch: it has been read as it is."""
    told, looks = [], iter([lambda: path.write_text("signal"), nothing, nothing])

    async def sleep(_: float) -> None:
        look = next(looks, None)
        if look is None:
            raise Over
        look()

    async def on_change() -> None:
        told.append(1)

    with pytest.raises(Over):
        await watch(path, lambda: identity(path), on_change, sleep)
    assert not told


@pytest.mark.anyio
async def test_s6_a_rename_over_it_is_told(path: Path, tmp_path: Path) -> None:
    """Editors write beside and rename; same size and same times are still another file."""

    def replace() -> None:
        beside = tmp_path / "new"
        beside.write_text("two")
        stat = path.stat()
        os.utime(beside, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        beside.rename(path)

    assert await changes(path, [replace, nothing, nothing]) == 1


@pytest.mark.anyio
async def test_s6_a_config_map_swap_is_told(tmp_path: Path) -> None:
    """Kubernetes swaps a link two levels up; the path itself never changes."""
    for version in ("v1", "v2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "c.yaml").write_text("same")
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "c.yaml").symlink_to("..data/c.yaml")

    def swap() -> None:
        (tmp_path / "..tmp").symlink_to("v2")
        (tmp_path / "..tmp").rename(tmp_path / "..data")

    assert await changes(tmp_path / "c.yaml", [nothing, swap, nothing, nothing]) == 1


@pytest.mark.anyio
async def test_s6_a_file_being_written_is_told_when_it_is_done(path: Path) -> None:
    """While every look sees another size, it is not done; then it is told once."""
    writes: list[Step] = [partial(path.write_text, "x" * n) for n in range(10, 14)]
    assert await changes(path, [*writes, nothing, nothing]) == 1


@pytest.mark.anyio
async def test_s6_a_file_that_is_away_is_told_when_it_is_back(path: Path) -> None:
    """Removal alone is no change: the configuration in force stays."""
    steps: list[Step] = [path.unlink, nothing, nothing, lambda: path.write_text("back"), nothing, nothing]
    assert await changes(path, steps) == 1
    assert await changes(path, [path.unlink, nothing, nothing]) == 0


def test_s6_a_change_is_told_well_within_a_second() -> None:
    """Revocation is promised within a second, loading and swapping included."""
    assert INTERVAL + 2 * SETTLED <= 0.5
