"""
A collector of traces for tests: what reaches it over OTLP/HTTP, decoded with OpenTelemetry's own messages?

    with Collector() as collector:
        ...collector.endpoint…
        collector.answers = [503, 200]     # the last one is repeated; 0 closes the connection without an answer
        collector.spans()                  # `Seen` spans of what it took, in order of arrival
"""

import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import attrs
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status


@attrs.frozen
class Seen:
    """A span as it arrived; ids are hexadecimal, times are ns."""

    trace: str
    id: str
    parent: str
    name: str
    kind: str
    start: int
    end: int
    flags: int
    is_error: bool
    attributes: dict[str, Any]
    resource: dict[str, Any]


class Collector:
    """An HTTP server on loopback; ``port`` may be given to come back at the same place."""

    def __init__(self, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.answers = [200]
        self.rejects = 0
        """Spans it says it rejected, in its 200."""
        self.content_type = "application/x-protobuf"
        self.held = threading.Event()
        """Answers wait for it."""
        self.held.set()
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        """Path, headers and body of each request, taken or not."""
        self._taken: list[ExportTraceServiceRequest] = []
        handler = type("Handler", (_Handler,), {"collector": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def endpoint(self) -> str:
        """For OTEL_EXPORTER_OTLP_ENDPOINT."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.held.set()
        self._server.shutdown()
        self._server.server_close()

    def received(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer to one export."""
        self.requests.append((path, headers, body))
        status = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.held.wait(30)
        answer = ExportTraceServiceResponse()
        if status == 200:
            self._taken.append(ExportTraceServiceRequest.FromString(body))
            if self.rejects:
                answer.partial_success.rejected_spans = self.rejects
                answer.partial_success.error_message = "too old"
        return status, answer.SerializeToString()

    def spans(self) -> list[Seen]:
        return [span for request in list(self._taken) for span in spans_of(request)]

    def calls(self) -> list[Seen]:
        return [span for span in self.spans() if span.kind == "SERVER"]


def spans_of(request: ExportTraceServiceRequest) -> list[Seen]:
    return [
        Seen(
            span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(), span.name,
            Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"), span.start_time_unix_nano,
            span.end_time_unix_nano, span.flags, span.status.code == Status.STATUS_CODE_ERROR,
            _plain(span.attributes), _plain(service.resource.attributes),
        )
        for service in request.resource_spans
        for scope in service.scope_spans
        for span in scope.spans
    ]  # fmt: skip


def _plain(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    collector: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        status, answer = self.collector.received(self.path, headers, body)
        if status == 0:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("content-type", self.collector.content_type)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Nothing."""
