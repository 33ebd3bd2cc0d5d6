"""Is every change of the file seen, however it is made?"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from perpetuo.adapters.configfile.watch import INTERVAL, SETTLED, look, watch

Step = Callable[[], object]


class Over(Exception):  # noqa: N818 - ends a test
    pass


async def changes(path: Path, steps: list[Step], before: Step = lambda: None, patterns: tuple[str, ...] = ()) -> int:
    """How often a change is told while ``steps`` are done, one at each look, ``before`` ahead of the first."""
    told = 0
    remaining = iter(steps)
    read_as = look(path, patterns)
    before()

    async def on_change() -> None:
        nonlocal told, read_as
        told += 1
        read_as = look(path, patterns)

    async def sleep(_: float) -> None:
        step = next(remaining, None)
        if step is None:
            raise Over
        step()

    with pytest.raises(Over):
        await watch(lambda: read_as, on_change, sleep)
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
        await watch(lambda: look(path), on_change, sleep)
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


INCLUDED = ("team.d/*.yaml",)


@pytest.fixture
def team(path: Path) -> Path:
    """A file that ``path`` includes."""
    (path.parent / "team.d").mkdir()
    (path.parent / "team.d" / "a.yaml").write_text("one")
    return path.parent / "team.d" / "a.yaml"


@pytest.mark.anyio
async def test_s6_an_included_file_is_watched_like_the_main_one(path: Path, team: Path) -> None:
    """Written, added, removed: each is one change; what no pattern names, or is hidden, is none."""
    beside = team.parent
    assert await changes(path, [nothing] * 5, patterns=INCLUDED) == 0
    assert await changes(path, [lambda: team.write_text("other"), *[nothing] * 4], patterns=INCLUDED) == 1
    assert await changes(path, [lambda: (beside / "b.yaml").write_text("b"), *[nothing] * 4], patterns=INCLUDED) == 1
    assert await changes(path, [team.unlink, *[nothing] * 4], patterns=INCLUDED) == 1
    unseen: list[Step] = [lambda: (beside / "note.txt").write_text("b"), lambda: (beside / ".c.yaml").write_text("c")]
    assert await changes(path, [*unseen, *[nothing] * 4], patterns=INCLUDED) == 0


@pytest.mark.anyio
async def test_s6_the_swap_of_an_included_config_map_is_told(path: Path) -> None:
    """Teams' files may come from another ConfigMap, whose hidden directories are not read as files of their own."""
    for version in ("v1", "v2"):
        (path.parent / "team.d" / f"..{version}").mkdir(parents=True)
        (path.parent / "team.d" / f"..{version}" / "a.yaml").write_text("same")
    team = path.parent / "team.d"
    (team / "..data").symlink_to("..v1")
    (team / "a.yaml").symlink_to("..data/a.yaml")
    assert [name for name, _ in look(path, INCLUDED).included] == ["team.d/a.yaml"]

    def swap() -> None:
        (team / "..tmp").symlink_to("..v2")
        (team / "..tmp").rename(team / "..data")

    assert await changes(path, [nothing, swap, nothing, nothing], patterns=INCLUDED) == 1


def test_s6_a_change_is_told_well_within_a_second() -> None:
    """Revocation is promised within a second, loading and swapping included."""
    assert INTERVAL + 2 * SETTLED <= 0.5
