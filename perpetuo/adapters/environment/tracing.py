"""
Are calls traced, whereto do their spans go, and which calls have some? (OpenTelemetry's own variables)

Rule 1: off, unless OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is set.
Rule 2: OTEL_SDK_DISABLED=true and OTEL_TRACES_EXPORTER=none win over both, and then the rest is not looked at.
Rule 3: what we can't do (another protocol, a package that is missing) is a problem, never quietly something else.
"""

import ssl
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import attrs

from perpetuo.adapters.environment.reader import Reader

SERVICE = "perpetuo"
PROTOCOL = "http/protobuf"
PATH = "/v1/traces"
DELAY_MS = 5_000
QUEUE = 2_048


@attrs.frozen
class Sampler:
    """Which calls have spans: as the caller's trace says where there is one, else this share of them."""

    share: float = 1.0
    asks_parent: bool = True


SAMPLERS = {
    "always_on": Sampler(1.0, asks_parent=False),
    "always_off": Sampler(0.0, asks_parent=False),
    "traceidratio": Sampler(asks_parent=False),
    "parentbased_always_on": Sampler(1.0),
    "parentbased_always_off": Sampler(0.0),
    "parentbased_traceidratio": Sampler(),
}
"""By the names of OTEL_TRACES_SAMPLER."""


@attrs.frozen
class Tracing:
    """Where spans go, and what is told of the service."""

    endpoint: str = attrs.field(repr=False)
    headers: Mapping[str, str] = attrs.field(repr=False, factory=dict)
    certificate: Path | None = None
    resource: Mapping[str, str] = attrs.field(factory=dict)
    sampler: Sampler = Sampler()
    delay: float = DELAY_MS / 1_000
    """Seconds that spans gather before they are sent."""
    queue: int = QUEUE
    """Finished calls that may wait."""


def read_tracing(reader: Reader) -> Tracing | None:
    """``None`` when traces are off."""
    if not (reader.text("OTEL_EXPORTER_OTLP_ENDPOINT") or reader.text("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")):
        return None
    disabled = reader.choice("OTEL_SDK_DISABLED", "false", ("true", "false")) == "true"
    if disabled or reader.choice("OTEL_TRACES_EXPORTER", "otlp", ("otlp", "none")) == "none":
        return None
    base = reader.http("OTEL_EXPORTER_OTLP_ENDPOINT")
    own = reader.http("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if not is_installed():
        reader.problems.append(
            f"OTEL_EXPORTER_OTLP_{'TRACES_' if own else ''}ENDPOINT asks for traces, which need an extra package: "
            "pip install 'perpetuo[otel]' (or set OTEL_SDK_DISABLED=true to do without traces)"
        )
    reader.choice("OTEL_EXPORTER_OTLP_PROTOCOL", PROTOCOL, (PROTOCOL,))
    reader.choice("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", PROTOCOL, (PROTOCOL,))
    return Tracing(
        endpoint=own or f"{(base or '').rstrip('/')}{PATH}",
        headers=reader.headers("OTEL_EXPORTER_OTLP_TRACES_HEADERS") or reader.headers("OTEL_EXPORTER_OTLP_HEADERS"),
        certificate=_certificate(reader),
        resource=_resource(reader),
        sampler=_sampler(reader),
        delay=reader.count("OTEL_BSP_SCHEDULE_DELAY", DELAY_MS, 3_600_000, "milliseconds, 1 to 3600000") / 1_000,
        queue=reader.count("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE, 1_000_000, "a number of calls, 1 to 1000000"),
    )


def is_installed() -> bool:
    """Is the extra there? Only looked for: to import it is a matter of those who use it."""
    try:
        return find_spec("opentelemetry.proto") is not None
    except ModuleNotFoundError:
        return False


def _certificate(reader: Reader) -> Path | None:
    """A file that certificates can be read from."""
    path = reader.file("OTEL_EXPORTER_OTLP_CERTIFICATE")
    if path is not None:
        try:
            ssl.create_default_context(cafile=path)
        except (OSError, ssl.SSLError) as error:
            reader.problems.append(f"OTEL_EXPORTER_OTLP_CERTIFICATE names '{path}', which is no certificate: {error}")
    return path


def _sampler(reader: Reader) -> Sampler:
    name = reader.choice("OTEL_TRACES_SAMPLER", "parentbased_always_on", tuple(SAMPLERS))
    share = reader.share("OTEL_TRACES_SAMPLER_ARG")
    return attrs.evolve(SAMPLERS[name], share=share) if name.endswith("traceidratio") else SAMPLERS[name]


def _resource(reader: Reader) -> dict[str, str]:
    """OTEL_SERVICE_NAME wins over a ``service.name`` among the attributes."""
    resource = {"service.name": SERVICE} | reader.pairs("OTEL_RESOURCE_ATTRIBUTES")
    name = reader.text("OTEL_SERVICE_NAME")
    return resource | {"service.name": name} if name else resource
