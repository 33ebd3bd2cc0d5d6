"""What workers occupy, as an operator sees it: tasks, memory, descriptors, connections to providers."""

from pathlib import Path

import pytest

from perpetuo.adapters.system import open_files, resident_bytes
from perpetuo.adapters.telemetry.cells import Cells
from perpetuo.adapters.telemetry.metrics import Labels, Metrics, Usage
from tests.unit.telemetry.test_metrics import Now, Samples, at, page, shown

pytestmark = pytest.mark.anyio
LABELS = Labels.of([], [], ["openai", "azure"])


def busy(samples: Samples, provider: str) -> float | None:
    return at(samples, "perpetuo_upstream_connections", provider=provider, state="busy")


async def test_o4_each_workers_tasks_memory_and_descriptors_are_shown(tmp_path: Path) -> None:
    """By worker, so that one that leaks is seen beside one that does not."""
    first, second = (Metrics(Cells.claim(tmp_path), LABELS) for _ in range(2))
    for worker, tasks in ((first, 12), (second, 4_000)):
        worker.in_flight(0, 100.0)
        worker.occupies(Usage(tasks, 60_000_000, 40, {}))
    samples = await shown(page(first.cells, tmp_path))
    assert at(samples, "perpetuo_worker_tasks", worker="0") == 12
    assert at(samples, "perpetuo_worker_tasks", worker="1") == 4_000
    assert at(samples, "perpetuo_worker_resident_bytes", worker="1") == 60_000_000
    assert at(samples, "perpetuo_worker_open_files", worker="0") == 40


async def test_o4_connections_are_summed_over_workers(tmp_path: Path) -> None:
    """Busy ones are calls at the provider."""
    workers = [Metrics(Cells.claim(tmp_path), LABELS) for _ in range(2)]
    for calls, worker in enumerate(workers, 3):
        worker.in_flight(0, 100.0)
        worker.occupies(Usage(1, None, None, {"openai": (calls, 10)}))
    samples = await shown(page(workers[0].cells, tmp_path))
    assert busy(samples, "openai") == 7
    assert at(samples, "perpetuo_upstream_connections", provider="openai", state="idle") == 20
    assert at(samples, "perpetuo_worker_resident_bytes", worker="0") is None


async def test_a_provider_that_is_removed_leaves_no_number_behind() -> None:
    """Its last calls count as ``other``, and then nothing does."""
    worker = Metrics(Cells.in_process(), LABELS)
    worker.in_flight(0, 100.0)
    worker.occupies(Usage(1, None, None, {"openai": (2, 0), "azure": (5, 1)}))
    worker.configure(Labels.of([], [], ["openai"]))
    worker.occupies(Usage(1, None, None, {"openai": (2, 0), "azure": (4, 0)}))
    samples = await shown(page(worker.cells))
    assert (busy(samples, "openai"), busy(samples, "azure"), busy(samples, "other")) == (2, 0, 4)
    worker.occupies(Usage(1, None, None, {"openai": (2, 0)}))
    assert busy(await shown(page(worker.cells)), "other") == 0


async def test_o3_a_worker_that_is_gone_occupies_nothing(tmp_path: Path) -> None:
    """Its files stay, for its counters; what it occupied went with it."""
    now = Now(100.0)
    dead, alive = (Metrics(Cells.claim(tmp_path), LABELS) for _ in range(2))
    dead.in_flight(0, 90.0)
    dead.occupies(Usage(9, 1, 1, {"openai": (9, 9)}))
    alive.in_flight(0, 100.0)
    alive.occupies(Usage(5, 1, 1, {"openai": (1, 0)}))
    samples = await shown(page(alive.cells, tmp_path, now))
    assert busy(samples, "openai") == 1
    assert at(samples, "perpetuo_worker_tasks", worker="0") is None


async def test_a_worker_that_takes_over_takes_over_the_number(tmp_path: Path) -> None:
    """Workers that come and go make no new series."""
    for _ in range(3):
        cells = Cells.claim(tmp_path)
        assert cells.slot == 0
        cells.close()


def test_the_process_itself_is_measured() -> None:
    """On Linux: some megabytes, and one descriptor more for each that is opened."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc on this system")
    before = open_files()
    assert before is not None
    with Path(__file__).open():
        assert open_files() == before + 1
    assert (resident_bytes() or 0) > 10_000_000
