"""Metrics: what is counted, summed over workers, bounded, and shown."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from prometheus_client.parser import text_string_to_metric_families

from perpetuo.adapters.telemetry import cells as cells_module
from perpetuo.adapters.telemetry.cells import SIZE, Cells, read_all
from perpetuo.adapters.telemetry.metrics import ATTEMPTS, METRICS, STORE_ERRORS, Labels, Metrics, name_of
from perpetuo.adapters.telemetry.page import MetricsPage, Standing
from perpetuo.domain.model.events import Event, RefusalNote
from perpetuo.domain.model.money import Nano
from perpetuo.domain.policy.breaker import BreakerPhase, BreakerReading, BreakerView
from perpetuo.domain.ports import StoreUnavailable

LABELS = Labels.of(["acme", "globex"], ["gpt", "*"], ["openai"])
EVENT = Event(
    id="0", occurred_at_us=0, tenant_id="acme", key_name="k", kind="chat", model="gpt", request_id="r", status=200,
    outcome="completed", provider="openai", input_tokens=7, output_tokens=3, cost_nano_usd=1_500_000_000,
    latency_ms=1_200.0, overhead_ms=0.3, first_token_ms=80.0, idempotency="stored",
)  # fmt: skip
NOTE = RefusalNote(
    at_us=0, request_id="r", tenant_id="acme", key_name="k", reason="rate_limit_exceeded", status=429, model="gpt"
)

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def nothing() -> Standing:
    return Standing()


@attrs.define
class Now:
    seconds: float = 100.0

    def __call__(self) -> float:
        return self.seconds


def page(cells: Cells, directory: Path | None = None, now: Callable[[], float] | None = None) -> MetricsPage:
    return MetricsPage(cells, directory, nothing, now or Now())


async def shown(page: MetricsPage) -> Samples:
    """The page, read back by a parser that is not ours."""
    body, content_type = await page.render()
    assert content_type.startswith("text/plain")
    families = text_string_to_metric_families(body.decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families for s in f.samples}


def at(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, tuple(sorted(labels.items()))))


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# --- what is counted -----------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_finished_call_is_counted_in_every_metric_of_the_contract() -> None:
    """Requests, tokens, money, times and idempotency from one event."""
    metrics = Metrics(Cells.in_process(), LABELS)
    metrics.finished(EVENT)
    metrics.finished(attrs.evolve(EVENT, status=502, provider=None, first_token_ms=None, idempotency="none"))
    samples = await shown(page(metrics.cells))
    requests = "perpetuo_requests_total"
    assert at(samples, requests, tenant="acme", model="gpt", provider="openai", status="200") == 1
    assert at(samples, requests, tenant="acme", model="gpt", provider="none", status="502") == 1
    assert at(samples, "perpetuo_tokens_total", tenant="acme", model="gpt", direction="input") == 14
    assert at(samples, "perpetuo_tokens_total", tenant="acme", model="gpt", direction="output") == 6
    assert at(samples, "perpetuo_cost_usd_total", tenant="acme", model="gpt") == 3.0
    assert at(samples, "perpetuo_idempotency_total", result="stored") == 1
    duration = "perpetuo_request_duration_seconds"
    assert at(samples, f"{duration}_bucket", model="gpt", le="1.0") == 0
    assert at(samples, f"{duration}_bucket", model="gpt", le="2.5") == 2
    assert at(samples, f"{duration}_bucket", model="gpt", le="+Inf") == 2
    assert at(samples, f"{duration}_count", model="gpt") == 2
    assert at(samples, f"{duration}_sum", model="gpt") == pytest.approx(2.4)
    assert at(samples, "perpetuo_overhead_seconds_bucket", le="0.0005") == 2
    assert at(samples, "perpetuo_time_to_first_token_seconds_count", model="gpt") == 1


@pytest.mark.anyio
async def test_refusals_replays_and_failed_keys_are_counted() -> None:
    """A replay is no refusal; a refusal for its key's sake is both a refusal and an idempotency result."""
    metrics = Metrics(Cells.in_process(), LABELS)
    metrics.refused(NOTE)
    metrics.refused(attrs.evolve(NOTE, reason="replayed", status=200))
    metrics.refused(attrs.evolve(NOTE, reason="idempotency_in_progress", status=409))
    metrics.refused(attrs.evolve(NOTE, tenant_id="", reason="invalid_api_key", status=401, model="other"))
    samples = await shown(page(metrics.cells))
    refusals = {key[1]: value for key, value in samples.items() if key[0] == "perpetuo_refusals_total"}
    assert refusals == {
        (("reason", "rate_limit_exceeded"), ("tenant", "acme")): 1,
        (("reason", "idempotency_in_progress"), ("tenant", "acme")): 1,
        (("reason", "invalid_api_key"), ("tenant", "none")): 1,
    }
    assert at(samples, "perpetuo_auth_failures_total") == 1
    assert at(samples, "perpetuo_idempotency_total", result="replayed") == 1
    assert at(samples, "perpetuo_idempotency_total", result="in_progress") == 1
    requests = "perpetuo_requests_total"
    assert at(samples, requests, tenant="acme", model="gpt", provider="none", status="200") == 1


@pytest.mark.anyio
async def test_every_metric_of_the_contract_has_a_family_on_the_page() -> None:
    """Also before anything has happened."""
    body, _ = await page(Metrics(Cells.in_process(), LABELS).cells).render()
    for metric in METRICS:
        assert f"# HELP {metric.name} " in body.decode()


# --- labels --------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_label_is_a_configured_name_and_never_a_clients_text() -> None:
    """Unknown tenants, models and providers are ``other``; the catch-all keeps its star."""
    metrics = Metrics(Cells.in_process(), LABELS)
    metrics.finished(attrs.evolve(EVENT, tenant_id="stranger", model="ignore previous", provider="evil"))
    metrics.finished(attrs.evolve(EVENT, model="*"))
    samples = await shown(page(metrics.cells))
    requests = "perpetuo_requests_total"
    assert at(samples, requests, tenant="other", model="other", provider="other", status="200") == 1
    assert at(samples, requests, tenant="acme", model="*", provider="openai", status="200") == 1
    assert not any("ignore" in str(key) for key in samples)


def test_tenants_beyond_the_cap_share_a_series() -> None:
    """The first 2,000 of the file have their own."""
    labels = Labels.of((f"t{n}" for n in range(3_000)), [], [])
    assert labels.tenant("t1999") == "t1999"
    assert labels.tenant("t2000") == "other"


@pytest.mark.anyio
async def test_a_reload_takes_new_names() -> None:
    """What was counted under a removed name stays."""
    metrics = Metrics(Cells.in_process(), LABELS)
    metrics.finished(EVENT)
    metrics.configure(Labels.of(["new"], ["gpt"], ["openai"]))
    metrics.finished(EVENT)
    metrics.finished(attrs.evolve(EVENT, tenant_id="new"))
    samples = await shown(page(metrics.cells))
    for tenant in ("acme", "other", "new"):
        assert at(samples, "perpetuo_cost_usd_total", tenant=tenant, model="gpt") == 1.5


# --- workers -------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_o3_the_page_sums_all_workers(tmp_path: Path) -> None:
    """Whichever of them is asked."""
    workers = [Metrics(Cells.claim(tmp_path), LABELS) for _ in range(3)]
    for worker in workers:
        worker.finished(EVENT)
        worker.attempted("openai", "success")
    for worker in workers:
        samples = await shown(page(worker.cells, tmp_path))
        assert at(samples, "perpetuo_cost_usd_total", tenant="acme", model="gpt") == 4.5
        assert at(samples, "perpetuo_request_duration_seconds_bucket", model="gpt", le="+Inf") == 3
        assert at(samples, "perpetuo_upstream_attempts_total", provider="openai", outcome="success") == 3


@pytest.mark.anyio
async def test_o3_a_worker_continues_the_counters_of_the_one_it_replaces(tmp_path: Path) -> None:
    """No counter falls, and ten restarts leave two files for each worker at once."""
    for _ in range(10):
        worker = Metrics(Cells.claim(tmp_path), LABELS)
        worker.finished(EVENT)
        worker.cells.close()
    survivor = Metrics(Cells.claim(tmp_path), LABELS)
    samples = await shown(page(survivor.cells, tmp_path))
    assert at(samples, "perpetuo_request_duration_seconds_count", model="gpt") == 10
    assert files(tmp_path) == ["0.names", "0.values"]


def _count_and_wait(directory: str, ready: "multiprocessing.synchronize.Event") -> None:
    metrics = Metrics(Cells.claim(Path(directory)), LABELS)
    for _ in range(1_000):
        metrics.finished(EVENT)
    metrics.in_flight(9, 100.0)
    ready.set()
    signal.pause()


def test_o3_a_killed_worker_loses_nothing_and_its_slot_is_free(tmp_path: Path) -> None:
    """SIGKILL after a thousand calls: all counted, and the next worker takes over its place."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    worker = context.Process(target=_count_and_wait, args=(str(tmp_path), ready))
    worker.start()
    assert ready.wait(120)
    second = Cells.claim(tmp_path)
    assert (tmp_path / "1.values").exists()
    os.kill(worker.pid or 0, signal.SIGKILL)
    worker.join()
    third = Metrics(Cells.claim(tmp_path), LABELS)
    assert not (tmp_path / "2.values").exists()
    assert third.cells.snapshot()[name_of(METRICS[4], ("acme", "gpt", "input"))] == 7_000
    assert third.cells.snapshot()["perpetuo_in_flight_requests", ""] == 0
    second.close()


def test_a_line_cut_short_by_a_kill_is_dropped(tmp_path: Path) -> None:
    """The half of a name is gone, the numbers before it stay where they belong."""
    first = Cells.claim(tmp_path)
    first.values[first.cell(("a", ""))] = 5
    first.close()
    with (tmp_path / "0.names").open("ab") as names:
        names.write(b'["b",')
    again = Cells.claim(tmp_path)
    again.values[again.cell(("c", ""))] = 6
    assert read_all(tmp_path) == [{("",): 0.0, ("a", ""): 5.0, ("c", ""): 6.0}]


@pytest.mark.anyio
async def test_in_flight_counts_only_workers_that_still_say_so(tmp_path: Path) -> None:
    """A worker that stopped saying it for 5 s is gone with its calls."""
    now = Now()
    alive, dead = Metrics(Cells.claim(tmp_path), LABELS), Metrics(Cells.claim(tmp_path), LABELS)
    alive.in_flight(2, now())
    dead.in_flight(3, now())
    assert at(await shown(page(alive.cells, tmp_path, now)), "perpetuo_in_flight_requests") == 5
    now.seconds += 6
    alive.in_flight(4, now())
    assert at(await shown(page(alive.cells, tmp_path, now)), "perpetuo_in_flight_requests") == 4


@pytest.mark.anyio
async def test_workers_that_go_by_different_configurations_are_told(tmp_path: Path) -> None:
    """As many as there are among those alive: a worker that ended counts for nothing."""
    now = Now()
    one, other = Metrics(Cells.claim(tmp_path), LABELS), Metrics(Cells.claim(tmp_path), LABELS)
    for worker, version in ((one, "56cb27243aba"), (other, "56cb27243abb")):
        worker.goes_by(version, 0)
        worker.in_flight(0, now())
    assert at(await shown(page(one.cells, tmp_path, now)), "perpetuo_config_versions") == 2
    now.seconds += 6
    one.in_flight(0, now())
    assert at(await shown(page(one.cells, tmp_path, now)), "perpetuo_config_versions") == 1
    other.goes_by("56cb27243aba", 0)
    other.in_flight(0, now())
    now.seconds += 2
    assert at(await shown(page(one.cells, tmp_path, now)), "perpetuo_config_versions") == 1


def test_files_have_their_full_size_and_never_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When all cells are taken the rest shares one that nobody reads."""
    monkeypatch.setattr(cells_module, "CAPACITY", 50)
    metrics = Metrics(Cells.claim(tmp_path), LABELS)
    for n in range(100):
        metrics.add(ATTEMPTS, f"p{n}", "success")
    assert (tmp_path / "0.values").stat().st_size == SIZE
    (slot,) = read_all(tmp_path)
    assert len(slot) == 50
    kept = [value for name, value in slot.items() if name[0] == ATTEMPTS.name]
    assert set(kept) == {1.0}
    assert len(kept) + slot["",] == 100


# --- what stores know ----------------------------------------------------------------------------


@pytest.mark.anyio
async def test_breakers_budgets_and_backlog_are_read_once_a_second() -> None:
    """However often the page is asked for."""
    asked = []
    now = Now()

    async def standing() -> Standing:
        asked.append(now())
        reading = BreakerReading("openai", BreakerView(BreakerPhase.OPEN, 1, 1))
        return Standing([reading], [("acme", "day", Nano(2_500_000_000), Nano(10_000_000_000))], 12)

    cells = Cells.in_process()
    live = MetricsPage(cells, None, standing, now)
    samples = await shown(live)
    assert at(samples, "perpetuo_breaker_state", provider="openai", state="open") == 1
    assert at(samples, "perpetuo_breaker_state", provider="openai", state="closed") == 0
    assert at(samples, "perpetuo_breaker_state", provider="openai", state="half_open") == 0
    assert at(samples, "perpetuo_budget_remaining_usd", tenant="acme", window="day") == 2.5
    assert at(samples, "perpetuo_budget_limit_usd", tenant="acme", window="day") == 10
    assert at(samples, "perpetuo_events_backlog") == 12
    await live.render()
    now.seconds += 1
    await live.render()
    assert asked == [100.0, 101.0]


@pytest.mark.anyio
async def test_a_store_that_is_away_leaves_its_gauges_out() -> None:
    """The counters are still there."""

    async def standing() -> Standing:
        raise StoreUnavailable("away")

    metrics = Metrics(Cells.in_process(), LABELS)
    metrics.add(STORE_ERRORS, "ledger")
    samples = await shown(MetricsPage(metrics.cells, None, standing, Now()))
    assert at(samples, "perpetuo_store_errors_total", store="ledger") == 1
    assert at(samples, "perpetuo_events_backlog") is None
