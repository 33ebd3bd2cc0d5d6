"""OpenTelemetry's variables: what switches traces on and off, and what is said of those that can't be obeyed."""

from pathlib import Path

import pytest

from perpetuo.adapters import environment
from perpetuo.adapters.environment import InvalidEnvironmentError, Sampler, Tracing

HERE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


def tracing(**environ: str) -> Tracing:
    found = environment.read({**HERE, **environ}).tracing
    assert found is not None
    return found


def problems(**environ: str) -> list[str]:
    with pytest.raises(InvalidEnvironmentError) as raised:
        environment.read({**HERE, **environ})
    return raised.value.problems


def test_traces_are_off_unless_there_is_an_endpoint() -> None:
    """Whatever else is set for other programs of the machine, and however wrong."""
    assert environment.read({}).tracing is None
    assert environment.read({"OTEL_SERVICE_NAME": "x", "OTEL_TRACES_EXPORTER": "console"}).tracing is None


@pytest.mark.parametrize("off", [{"OTEL_SDK_DISABLED": "TRUE"}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_traces_can_be_switched_off(off: dict[str, str]) -> None:
    """And then nobody asks whether the rest makes sense."""
    assert environment.read({**HERE, **off, "OTEL_TRACES_SAMPLER": "nonsense"}).tracing is None
    assert tracing(OTEL_SDK_DISABLED="false", OTEL_TRACES_EXPORTER="otlp").endpoint


def test_the_address_for_all_signals_gets_a_path_and_that_for_traces_is_whole() -> None:
    """As OpenTelemetry says; the one for traces alone counts."""
    assert tracing().endpoint == "http://collector:4318/v1/traces"
    assert tracing(OTEL_EXPORTER_OTLP_ENDPOINT="https://x/otlp/").endpoint == "https://x/otlp/v1/traces"
    assert tracing(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="http://y:1/z").endpoint == "http://y:1/z"


def test_headers_are_pairs_and_may_come_from_a_file(tmp_path: Path) -> None:
    """Percent-encoded; those for traces alone count."""
    (tmp_path / "headers").write_text("authorization=Bearer%20abc, x-scope = a=b\n")
    found = tracing(OTEL_EXPORTER_OTLP_HEADERS_FILE=str(tmp_path / "headers"))
    assert found.headers == {"authorization": "Bearer abc", "x-scope": "a=b"}
    both = tracing(OTEL_EXPORTER_OTLP_HEADERS="a=1", OTEL_EXPORTER_OTLP_TRACES_HEADERS="b=2")
    assert both.headers == {"b": "2"}
    assert "abc" not in repr(found)


def test_the_service_has_a_name() -> None:
    """OTEL_SERVICE_NAME, else that among the attributes, else ours."""
    assert tracing().resource == {"service.name": "perpetuo"}
    attributes = "service.name=a,deployment.environment.name=d%C3%BC"
    assert tracing(OTEL_RESOURCE_ATTRIBUTES=attributes).resource == {
        "service.name": "a",
        "deployment.environment.name": "dü",
    }
    assert tracing(OTEL_RESOURCE_ATTRIBUTES=attributes, OTEL_SERVICE_NAME="b").resource["service.name"] == "b"


@pytest.mark.parametrize(
    ("name", "share", "sampler"),
    [
        ("", "", Sampler(1.0)),
        ("always_off", "", Sampler(0.0, asks_parent=False)),
        ("traceidratio", "0.25", Sampler(0.25, asks_parent=False)),
        ("parentbased_traceidratio", "0.5", Sampler(0.5)),
        ("parentbased_always_off", "0.5", Sampler(0.0)),
        ("Always_On", ".5", Sampler(1.0, asks_parent=False)),
    ],
)
def test_samplers_have_opentelemetrys_names(name: str, share: str, sampler: Sampler) -> None:
    """And the share counts for those that take one."""
    assert tracing(OTEL_TRACES_SAMPLER=name, OTEL_TRACES_SAMPLER_ARG=share).sampler == sampler


def test_times_and_sizes() -> None:
    """Milliseconds become seconds."""
    assert (tracing().delay, tracing().queue) == (5.0, 2_048)
    found = tracing(OTEL_BSP_SCHEDULE_DELAY="250", OTEL_BSP_MAX_QUEUE_SIZE="9")
    assert (found.delay, found.queue) == (0.25, 9)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317", "http://host:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://", "http://host:4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://[x", "http://host:4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://x:port", "http://host:4318"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "'grpc'; it can be http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", "it can be http/protobuf"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "hush", "entry 1 has to be name=value"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=b,x=hush%0d%0ay: z", "entry 2 has to be name=value"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "na me=hush", "entry 1 has to be name=value"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem", "'/nowhere/ca.pem', which is no file"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", __file__, "which is no certificate"),
        ("OTEL_RESOURCE_ATTRIBUTES", "=x", "entry 1 has to be name=value"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote", "it can be always_on, always_off, traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5", "a number from 0 to 1"),
        ("OTEL_TRACES_SAMPLER_ARG", "nan", "a number from 0 to 1"),
        ("OTEL_BSP_SCHEDULE_DELAY", "0", "milliseconds"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1", "a number of calls"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "it can be otlp, none"),
        ("OTEL_SDK_DISABLED", "maybe", "it can be true, false"),
    ],
)
def test_what_cannot_be_obeyed_is_said(name: str, value: str, says: str) -> None:
    """By name, with what is allowed, and without a secret."""
    (found,) = problems(**{name: value})
    assert found.startswith(name)
    assert says in found
    assert "hush" not in found
