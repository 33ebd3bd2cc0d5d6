"""What does a worker say when its configuration is read again?"""

import asyncio
import io
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from perpetuo import bootstrap
from perpetuo.adapters.configfile.files import ConfigFiles
from perpetuo.adapters.environment import read
from perpetuo.adapters.telemetry.cells import Cells
from perpetuo.adapters.telemetry.journal import TelemetryJournal
from perpetuo.adapters.telemetry.logs import Log, Writer
from perpetuo.adapters.telemetry.metrics import Labels, Metrics
from perpetuo.adapters.telemetry.once import Once, ask_again
from perpetuo.domain.model.money import nano_from_usd
from tests.live import eventually

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
        self.path = path
        self._stream = io.BytesIO()
        self._log = Log(Writer(self._stream), "info", "json", container.system.now_us)
        metrics = Metrics(Cells.in_process(), Labels.of([], [], []))
        container.journal = TelemetryJournal(self._log, metrics, container.system.monotonic, lambda _: None)

    async def reload(self, *texts: str) -> None:
        for text in texts:
            self.path.write_text(text)
            await self.container.reload()

    def said(self, event: str) -> bool:
        return f'"{event}"'.encode() in self._stream.getvalue()

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
    (tmp_path / "run" / "metrics").mkdir(parents=True)
    container = await bootstrap.build(attrs.evolve(read(environ), run_dir=tmp_path / "run"))
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


def writable(pipe: Path) -> int | None:
    """The pipe's other end, once somebody reads from it."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None


async def test_s6_of_two_reloads_at_once_what_was_read_last_is_in_force(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A signal and the watch ask at the same time, and the first reading is slow: it was swapped in after the second,
    and a key that had just been revoked was good again.
    """
    slow = tmp_path / "slow"
    os.mkfifo(slow)
    monkeypatch.setenv("SLOW_FILE", str(slow))
    worker.path.write_text(CONFIG.replace("[sk-acme-of-the-tests]", '[sk-acme-of-the-tests, "${SLOW}"]'))
    first = asyncio.create_task(worker.container.reload())
    pipe = await asyncio.to_thread(eventually, lambda: writable(slow))  # the first has come to reading this variable
    worker.path.write_text(OTHER)
    second = asyncio.create_task(worker.container.reload())
    await asyncio.wait({second}, timeout=0.3)
    os.write(pipe, b"sk-revoked-of-the-tests")
    os.close(pipe)
    await asyncio.gather(first, second)
    assert worker.container.settings.tenants["acme"].limits.budget_day == nano_from_usd(2)


async def test_s6_a_change_during_the_start_is_taken_over(worker: Worker) -> None:
    """Between its first reading and its first look at the file a worker connects to its stores."""
    worker.path.write_text(OTHER)
    watching = asyncio.ensure_future(dict(worker.container.loops())["config"]())
    await asyncio.to_thread(eventually, lambda: worker.said("config_reloaded"))
    watching.cancel()


def test_a_rejected_file_is_said_by_one_worker_only(tmp_path: Path) -> None:
    """Each time it is written, and each time somebody asks by SIGHUP; the others say it at level debug."""
    workers = [Once(tmp_path), Once(tmp_path), Once(tmp_path)]

    def say(news: object) -> list[bool]:
        return [worker.first("config_rejected", news) for worker in workers]

    assert say("as of noon") == [True, False, False]
    assert say("as of one") == [True, False, False]
    assert say("as of one") == [False, False, False]
    ask_again(tmp_path)
    assert say("as of one") == [True, False, False]
    assert Once(None).first("config_rejected", "as of one")
    assert len([*tmp_path.iterdir()]) == 2


async def test_without_a_change_nothing_is_said(worker: Worker) -> None:
    """SIGHUP for a file that is in force."""
    await worker.reload(CONFIG)
    assert worker.lines() == []


def takes_over(worker: Worker, text: str) -> None:
    """Another worker of this server does."""
    path = worker.path.with_name("another.yaml")
    path.write_text(text)
    there = ConfigFiles(path, run_dir=worker.container.environment.run_dir)
    there.taken_over(there.read())


def budget_of_a_day(worker: Worker) -> int | None:
    return worker.container.settings.tenants["acme"].limits.budget_day


async def test_s6_a_right_version_that_only_others_saw_goes_while_the_file_is_broken(worker: Worker) -> None:
    """Two edits at once, the second broken: a key that the first revoked would have stayed good at this worker."""
    takes_over(worker, OTHER)
    await worker.reload(WRONG)
    assert budget_of_a_day(worker) == nano_from_usd(2)
    assert worker.container.problems()["config"]
    assert [line["event"] for line in worker.lines()] == ["config_rejected", "config_reloaded"]


async def test_a_version_of_others_that_is_wrong_here_is_left(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of a secret was taken away meanwhile: nothing breaks, what is in force stays."""
    monkeypatch.setenv("ANOTHER_KEY", "sk-another-of-the-tests")
    takes_over(worker, OTHER.replace("sk-acme-of-the-tests", '"${ANOTHER_KEY}"'))
    monkeypatch.delenv("ANOTHER_KEY")
    await worker.reload(WRONG)
    assert budget_of_a_day(worker) == nano_from_usd(1)
    assert [line["event"] for line in worker.lines()] == ["config_rejected"]


async def test_s6_others_may_still_be_at_it_when_this_one_finds_the_file_broken(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it looks again, and once the file is right that alone counts."""
    monkeypatch.setattr(bootstrap, "FOLLOW_EVERY", 0.01)
    await worker.reload(WRONG)
    assert budget_of_a_day(worker) == nano_from_usd(1)
    following = asyncio.ensure_future(dict(worker.container.loops())["follow"]())
    takes_over(worker, OTHER)
    await asyncio.to_thread(eventually, lambda: worker.said("config_reloaded"))
    assert budget_of_a_day(worker) == nano_from_usd(2)
    assert worker.container.problems()["config"]
    await worker.reload(CONFIG)
    takes_over(worker, OTHER)
    await asyncio.sleep(0.05)
    following.cancel()
    assert budget_of_a_day(worker) == nano_from_usd(1)
    assert "config" not in worker.container.problems()
