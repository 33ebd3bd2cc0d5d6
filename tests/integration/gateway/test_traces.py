"""Traces reach a collector over OTLP/HTTP, and no call notices whether there is one."""

import logging
import os
import re
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest

from perpetuo import bootstrap
from perpetuo.adapters.environment import Tracing, read
from perpetuo.adapters.telemetry import traces as traces_module
from perpetuo.adapters.telemetry.cells import Cells
from perpetuo.adapters.telemetry.metrics import SPANS_DROPPED, SPANS_EXPORTED, Labels, Metrics, name_of
from perpetuo.adapters.telemetry.traces import BATCH, Traces
from perpetuo.domain.model.events import Event
from tests.collector import Collector, Seen
from tests.evil import Evil, saying
from tests.live import KEY, LiveGateway, config_text, eventually
from tests.patience import PATIENCE
from tests.servers import free_port

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
EVENT = Event(
    id="0199c0de-f00d-7abc-8def-0123456789ab", occurred_at_us=0, tenant_id="acme", key_name="k", kind="chat",
    model="gpt", request_id="r", status=200, outcome="completed",
    attempts=(
        {"provider": "p", "model": "m", "outcome": "success", "status": 200, "sent": True, "start_ms": 0.0, "ms": 1.0},
    ),
)  # fmt: skip
CANARY = "canary-5d1e of a prompt"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture(autouse=True)
def _patient_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent at the end has two seconds; on a busy machine that says nothing about whether it is sent."""
    monkeypatch.setattr(traces_module, "LAST_SECONDS", PATIENCE)


@attrs.define
class Export:
    """`Traces` towards a collector, with what it counted and said."""

    traces: Traces
    metrics: Metrics
    lines: list[tuple[str, str, dict[str, Any]]]

    def counted(self, reason: str | None = None) -> float:
        name = name_of(SPANS_DROPPED, (reason,)) if reason else name_of(SPANS_EXPORTED)
        return self.metrics.cells.snapshot()[name]

    def said(self) -> list[tuple[str, str]]:
        return [(level, event) for level, event, _ in self.lines]


Opens = Callable[..., Export]


@pytest.fixture
def export() -> Iterator[Opens]:
    """Makes `Export`; closes it afterwards."""
    opened: list[Export] = []

    def make(endpoint: str, **more: Any) -> Export:
        metrics = Metrics(Cells.in_process(), Labels.of([], [], []))
        lines: list[tuple[str, str, dict[str, Any]]] = []
        tracing = Tracing(f"{endpoint}/v1/traces", **{"delay": 0.02, **more})
        traces = Traces(tracing, metrics, lambda level, event, **fields: lines.append((level, event, fields)))
        opened.append(Export(traces, metrics, lines))
        return opened[-1]

    yield make
    for one in opened:
        one.traces.close()


# --- from the queue to the collector -------------------------------------------------------------


def test_calls_go_in_batches_with_the_headers_that_were_asked_for(export: Opens, collector: Collector) -> None:
    """Calls that finish together are one request, of protobuf, to the path of OTLP."""
    it = export(collector.endpoint, headers={"x-team": "blue"}, delay=5.0)
    for _ in range(20):
        it.traces.finished(EVENT)
    eventually(lambda: len(collector.spans()) == 40)
    (path, headers, _), *more = collector.requests
    assert (path, headers["x-team"], headers["content-type"]) == ("/v1/traces", "blue", "application/x-protobuf")
    assert more == []
    eventually(lambda: it.counted() == 40)  # when the answer has been read


@pytest.mark.parametrize(("queue", "enough"), [(2_048, BATCH), (9, 5), (1, 1)])
def test_a_full_batch_does_not_wait(export: Opens, collector: Collector, queue: int, enough: int) -> None:
    """Nor does half a queue that is smaller: else a busy gateway would fill it within the delay."""
    it = export(collector.endpoint, delay=3_600.0, queue=queue)
    for _ in range(enough):
        it.traces.finished(EVENT)
    eventually(lambda: len(collector.calls()) == enough)


def test_a_full_queue_drops_and_counts_and_does_not_wait(export: Opens, collector: Collector) -> None:
    """A collector that takes and says nothing: the queue fills, what comes then is dropped by spans."""
    collector.held.clear()
    it = export(collector.endpoint, queue=10)
    it.traces.finished(EVENT)
    eventually(lambda: collector.requests)
    for _ in range(25):
        it.traces.finished(EVENT)
    assert it.counted("queue_full") == 2 * 15
    collector.held.set()
    eventually(lambda: len(collector.calls()) == 11)


def test_a_collector_in_trouble_is_asked_again(export: Opens, collector: Collector) -> None:
    """503, then a connection that breaks, then it takes them: nothing is lost."""
    collector.answers = [503, 0, 200]
    it = export(collector.endpoint)
    it.traces.finished(EVENT)
    eventually(lambda: it.counted() == 2)
    assert len(collector.requests) == 3
    assert it.said() == []


def test_what_it_refuses_is_dropped_counted_and_said_once(export: Opens, collector: Collector) -> None:
    """A wrong token is not tried again; the log tells at first and when it is over."""
    collector.answers = [401]
    it = export(collector.endpoint, headers={"authorization": "Bearer hush-hush-hush"})
    for batch in range(1, 4):
        it.traces.finished(EVENT)
        eventually(lambda batch=batch: it.counted("export_failed") == 2 * batch)
    assert len(collector.requests) == 3
    assert it.said() == [("warning", "traces_away")]
    assert it.lines[0][2]["problem"] == "it answered 401"
    collector.answers = [200]
    it.traces.finished(EVENT)
    eventually(lambda: it.said() == [("warning", "traces_away"), ("info", "traces_back")])
    assert it.lines[1][2]["failures"] == 3
    assert "hush" not in repr(it.lines)


def test_spans_that_it_rejects_are_counted(export: Opens, collector: Collector) -> None:
    """OTLP's partial success: taken, but for some."""
    collector.rejects = 1
    it = export(collector.endpoint)
    it.traces.finished(EVENT)
    eventually(lambda: (it.counted(), it.counted("rejected")) == (1, 1))
    assert it.lines[0][2]["problem"] == "too old"


def test_a_web_page_is_no_collector(export: Opens, collector: Collector) -> None:
    """A wrong address that answers 200 to everything is not taken for one."""
    collector.content_type = "text/html; charset=utf-8"
    it = export(collector.endpoint)
    it.traces.finished(EVENT)
    eventually(lambda: it.counted("export_failed") == 2)
    assert "is it a collector" in it.lines[0][2]["problem"]


def test_a_defect_loses_a_batch_and_not_the_thread(export: Opens, collector: Collector) -> None:
    """What can't be encoded is dropped; the next call has its spans."""
    it = export(collector.endpoint)
    it.traces.finished(attrs.evolve(EVENT, id="not hexadecimal"))
    eventually(lambda: it.counted("export_failed") == 2)
    it.traces.finished(EVENT)
    eventually(lambda: it.counted() == 2)


def test_the_end_sends_what_waits(export: Opens, collector: Collector) -> None:
    """Although its time has not come."""
    it = export(collector.endpoint, delay=3_600.0)
    it.traces.finished(EVENT)
    it.traces.close()
    assert len(collector.calls()) == 1


def test_the_end_does_not_wait_for_a_collector_that_is_silent(
    export: Opens, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After two seconds (here less) what is left is counted, that under way included."""
    monkeypatch.setattr(traces_module, "LAST_SECONDS", 0.2)
    collector.held.clear()
    it = export(collector.endpoint)
    it.traces.finished(EVENT)
    eventually(lambda: collector.requests)
    it.traces.finished(EVENT)
    it.traces.close()
    assert it.counted("shutdown") == 4
    assert threading.current_thread().is_alive()


def test_the_end_does_not_try_again(export: Opens) -> None:
    """With nobody there, one attempt is enough."""
    it = export(f"http://127.0.0.1:{free_port()}", delay=3_600.0)
    it.traces.finished(EVENT)
    it.traces.close()
    assert it.counted("export_failed") == 2
    assert "ConnectError" in it.lines[0][2]["problem"]


def test_a_certificate_can_be_trusted(export: Opens, tmp_path: Path) -> None:
    """Without being told so, the collector's own authority is not, and nothing is sent."""
    pem = tmp_path / "pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-keyout", str(pem), "-out", str(tmp_path / "crt"), "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    pem.write_text(pem.read_text() + (tmp_path / "crt").read_text())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with Collector(tls=context) as collector:
        endpoint = collector.endpoint.replace("http", "https")
        strange, known = export(endpoint, delay=3_600.0), export(endpoint, certificate=tmp_path / "crt", delay=3_600.0)
        for it in (strange, known):
            it.traces.finished(EVENT)
            it.traces.close()
    assert (strange.counted("export_failed"), known.counted()) == (2, 2)
    assert "CERTIFICATE_VERIFY_FAILED" in strange.lines[0][2]["problem"]
    assert len(collector.requests) == 1


def test_a_request_is_no_line_of_the_log(export: Opens, collector: Collector, caplog: pytest.LogCaptureFixture) -> None:
    """The HTTP client has one for each, at level info."""
    with caplog.at_level(logging.INFO):
        it = export(collector.endpoint)
        it.traces.finished(EVENT)
        eventually(lambda: it.counted() == 2)
    assert caplog.records == []


# --- a whole gateway -----------------------------------------------------------------------------


def failing() -> Evil:
    """A provider that says 500 to everything."""
    return Evil(saying(b"HTTP/1.1 500 Oops\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"))


def config(provider: str) -> str:
    price = "price: {inputPerMTok: 1, outputPerMTok: 2}, maxOutputTokens: 100"
    return config_text(
        providers=f"""
  - {{id: demo, kind: demo}}
  - {{id: broken, kind: openai, baseUrl: "{provider}/v1", apiKey: sk-provider-canary-0123456789,
      breaker: {{minimumCalls: 1000000}}}}""",
        models=f"""
  - {{name: m, targets: [{{provider: demo, model: demo-m}}], {price}}}
  - {{name: both, {price},
      targets: [{{provider: broken, model: broken-m}}, {{provider: demo, model: demo-m, priority: 1}}]}}""",
        more="retry: {budget: 1, backoff: 10ms}\nserver: {drainDelay: 0s}",
    )


@pytest.fixture(scope="module")
def shared() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture(scope="module")
def broken() -> Iterator[Evil]:
    with failing() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(shared: Collector, broken: Evil, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    """One gateway for all of this part."""
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": shared.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_SERVICE_NAME": "edge",
    }
    database = f"sqlite:///{tmp_path_factory.mktemp('traces')}/events.sqlite3"
    with LiveGateway(config(broken.origin), database_url=database, environ=environ) as running:
        yield running


def trace_of(shared: Collector, request_id: str) -> tuple[Seen, list[Seen]]:
    """The call's span and those below it, once they have arrived."""
    call: Seen = eventually(
        lambda: next((s for s in shared.calls() if s.attributes["perpetuo.request_id"] == request_id), None)
    )
    return call, [span for span in shared.spans() if span.parent == call.id]


def test_a_chat_has_a_span_and_its_provider_another(gateway: LiveGateway, shared: Collector) -> None:
    """In a trace of its own, with what it used and cost."""
    answer = gateway.chat(messages=[{"role": "user", "content": CANARY}], max_tokens=5)
    assert answer.status_code == 200
    call, (attempt,) = trace_of(shared, answer.headers["x-request-id"])
    usage = answer.json()["usage"]
    assert (call.name, call.kind, call.parent, call.is_error) == ("chat m", "SERVER", "", False)
    assert call.resource["service.name"] == "edge"
    assert call.attributes["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
    assert call.attributes["gen_ai.usage.output_tokens"] == usage["completion_tokens"]
    cost = 1_000 * usage["prompt_tokens"] + 2_000 * usage["completion_tokens"]
    assert call.attributes["perpetuo.cost_nano_usd"] == cost
    assert (attempt.name, attempt.kind, attempt.trace) == ("chat demo-m", "CLIENT", call.trace)
    assert call.start <= attempt.start <= attempt.end <= call.end
    assert abs(call.start / 1e9 - time.time()) < 60


def test_a_stream_lasts_as_long_as_its_provider(gateway: LiveGateway, shared: Collector) -> None:
    """Its first event is told, and the attempt ends with the call."""
    answer = gateway.chat(stream=True, max_tokens=20)
    assert answer.text.endswith("data: [DONE]\n\n")
    call, (attempt,) = trace_of(shared, answer.headers["x-request-id"])
    assert call.attributes["gen_ai.request.stream"] is True
    assert 0 < call.attributes["gen_ai.response.time_to_first_chunk"] * 1e9 <= call.end - call.start
    assert attempt.end == call.end


def test_a_failover_is_two_attempts_in_the_callers_trace(gateway: LiveGateway, shared: Collector, broken: Evil) -> None:
    """Below the caller's span; the provider was told the span of the very attempt that asked it."""
    answer = gateway.chat(model="both", headers=PARENT, max_tokens=5)
    assert (answer.status_code, answer.headers["x-perpetuo-attempts"]) == (200, "2")
    call, (first, second) = trace_of(shared, answer.headers["x-request-id"])
    assert (call.trace, call.parent) == (TRACE, SPAN)
    assert [(a.is_error, a.attributes.get("error.type")) for a in (first, second)] == [
        (True, "server_error"),
        (False, None),
    ]
    assert first.end <= second.start
    told = re.search(rb"\r\ntraceparent: 00-([0-9a-f]{32})-([0-9a-f]{16})-01\r\n", broken.requests[-1].lower())
    assert told is not None
    assert (told[1].decode(), told[2].decode()) == (TRACE, first.id)


def test_a_trace_that_is_not_sampled_stays_at_home(gateway: LiveGateway, shared: Collector) -> None:
    """The caller decided; the call after it is exported."""
    quiet = gateway.chat(headers={"traceparent": f"00-{TRACE}-{SPAN}-00"}, max_tokens=5)
    trace_of(shared, gateway.chat(max_tokens=5).headers["x-request-id"])
    ids = {call.attributes["perpetuo.request_id"] for call in shared.calls()}
    assert quiet.headers["x-request-id"] not in ids


def test_a5_a_refusal_is_counted_and_has_no_span(gateway: LiveGateway, shared: Collector) -> None:
    """A flood of them must not be a flood of spans; no prompt and no key is in any."""
    refused = httpx.post(gateway.url + "/v1/chat/completions", json={"model": "m"}, headers=PARENT, timeout=PATIENCE)
    assert refused.status_code == 401
    unknown = gateway.chat(model="nobody-has-it")
    assert unknown.status_code == 404
    trace_of(shared, gateway.chat(max_tokens=5).headers["x-request-id"])
    ids = {call.attributes["perpetuo.request_id"] for call in shared.calls()}
    assert not ids & {refused.headers["x-request-id"], unknown.headers["x-request-id"]}
    bodies = b"".join(body for _, _, body in shared.requests)
    assert not [text for text in (CANARY, KEY, "sk-provider-canary") if text.encode() in bodies]


@pytest.mark.anyio
async def test_the_end_of_a_worker_sends_its_last_spans(shared: Collector, tmp_path: Path) -> None:
    """A delay of an hour is cut short when it stops; the address for traces alone is taken as it is."""
    (tmp_path / "perpetuo.config.yaml").write_text(config("http://127.0.0.1:9"))
    environ = {
        "REDIS_URL": "memory://",
        "DATABASE_URL": f"sqlite:///{tmp_path}/events.sqlite3",
        "PERPETUO_CONFIG_PATH": str(tmp_path / "perpetuo.config.yaml"),
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{shared.endpoint}/elsewhere",
        "OTEL_BSP_SCHEDULE_DELAY": "3600000",
    }
    container = await bootstrap.build(read(environ))
    container.journal.finished(attrs.evolve(EVENT, request_id="the last one"))
    await container.stop()
    assert shared.calls()[-1].attributes["perpetuo.request_id"] == "the last one"
    assert shared.requests[-1][0] == "/elsewhere"


def test_calls_do_not_notice_that_the_collector_is_away(broken: Evil, tmp_path: Path) -> None:
    """They are answered, what is lost is on the metrics page, and the log says it once."""
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}",
        "OTEL_BSP_SCHEDULE_DELAY": "20",
        "OTEL_BSP_MAX_QUEUE_SIZE": "5",
    }
    database = f"sqlite:///{tmp_path}/events.sqlite3"
    with LiveGateway(config(broken.origin), database_url=database, environ=environ) as running:
        lost = 'perpetuo_trace_spans_dropped_total{reason="queue_full"} '

        def some_lost() -> bool:
            assert {running.chat(max_tokens=5).status_code for _ in range(10)} == {200}
            return float(running.get("/metrics").text.split(lost)[1].split("\n")[0]) > 0

        eventually(some_lost)
        assert running.stop() == 0
        assert running.log().count('"traces_away"') == 1


# --- the extra -----------------------------------------------------------------------------------

WITHOUT = """
import sys
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
"""
"""A ``sitecustomize`` for which the extra is not installed."""


def without_the_extra(directory: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    (directory / "sitecustomize.py").write_text(WITHOUT)
    (directory / "perpetuo.config.yaml").write_text(config("http://127.0.0.1:9"))
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(directory), "REDIS_URL": "memory://", **environ}
    return subprocess.run(
        [str(Path(sys.executable).with_name("perpetuo")), "serve"],
        env=variables, cwd=directory, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_an_endpoint_without_the_extra_is_refused_with_what_to_install(tmp_path: Path) -> None:
    """One sentence, exit 2: nobody should look for traces that are never sent."""
    port = str(free_port())
    done = without_the_extra(
        tmp_path, PORT=port, DATABASE_URL="sqlite:///x.sqlite3", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:4318"
    )
    assert done.returncode == 2
    assert done.stderr == (
        "OTEL_EXPORTER_OTLP_ENDPOINT asks for traces, which need an extra package: pip install 'perpetuo[otel]'"
        " (or set OTEL_SDK_DISABLED=true to do without traces)\n"
    )
