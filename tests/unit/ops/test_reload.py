"""What does a worker say when its configuration is read again?"""

import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from perpetuo import bootstrap
from perpetuo.adapters.environment import read
from perpetuo.adapters.telemetry.cells import Cells
from perpetuo.adapters.telemetry.journal import TelemetryJournal
from perpetuo.adapters.telemetry.logs import Log, Writer
from perpetuo.adapters.telemetry.metrics import Labels, Metrics

CONFIG = """\
providers: [{id: demo, kind: demo}]
models: [{name: m, targets: [{provider: demo, model: gpt-3.5-turbo}]}]
tenants: [{id: acme, limits: {budgetDay: 1}, apiKeys: [sk-acme-of-the-tests]}]
"""
WRONG = CONFIG.replace("budgetDay: 1", "budgetDay: -1")
OTHER = CONFIG.replace("budgetDay: 1", "budgetDay: 2")

pytestmark = pytest.mark.anyio


class Worker:
    """A container over a configuration file, its log in memory; nothing is started."""

    def __init__(self, container: bootstrap.Container, path: Path) -> None:
        self.container = container
        self._path = path
        self._stream = io.BytesIO()
        self._log = Log(Writer(self._stream), "info", "json", container.system.now_us)
        metrics = Metrics(Cells.in_process(), Labels.of([], [], []))
        container.journal = TelemetryJournal(self._log, metrics, container.system.monotonic, lambda _: None)

    async def reload(self, *texts: str) -> None:
        for text in texts:
            self._path.write_text(text)
            await self.container.reload()

    def lines(self) -> list[dict[str, Any]]:
        """The log so far; it ends here."""
        self._log.close()
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    path = tmp_path / "perpetuo.config.yaml"
    path.write_text(CONFIG)
    environ = {
        "PERPETUO_CONFIG_PATH": str(path),
        "DATABASE_URL": f"sqlite:///{tmp_path / 'events.db'}",
        "REDIS_URL": "memory://",
        "LOG_FORMAT": "json",
    }
    container = await bootstrap.build(read(environ))
    yield Worker(container, path)
    await container.stop()


async def test_a_rejected_file_that_is_put_back_is_said_once(worker: Worker) -> None:
    """What is in force is right again, although nothing changed; a further look at it says nothing."""
    await worker.reload(WRONG)
    assert worker.container.problems()["config"]
    await worker.reload(CONFIG, CONFIG)
    assert "config" not in worker.container.problems()
    lines = worker.lines()
    assert [(line["level"], line["event"]) for line in lines] == [
        ("error", "config_rejected"),
        ("info", "config_accepted"),
    ]
    assert lines[-1]["version"] == worker.container.settings.version


async def test_a_rejected_file_that_is_put_right_is_taken_over(worker: Worker) -> None:
    """Then `config_reloaded` says it all."""
    await worker.reload(WRONG, OTHER, CONFIG, CONFIG)
    assert [line["event"] for line in worker.lines()] == ["config_rejected", "config_reloaded", "config_reloaded"]


async def test_without_a_change_nothing_is_said(worker: Worker) -> None:
    """SIGHUP for a file that is in force."""
    await worker.reload(CONFIG)
    assert worker.lines() == []
