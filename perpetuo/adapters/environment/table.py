"""Which variables may an operator set, and what do they mean? (The reference is made of this.)"""

import attrs

from perpetuo.adapters.environment.reader import LOG_LEVELS, MIN_ADMIN_KEY
from perpetuo.adapters.environment.tracing import SAMPLERS, SERVICE


@attrs.frozen
class Variable:
    """One variable, for the reference: ``default`` and ``meaning`` are Markdown."""

    name: str
    default: str
    meaning: str
    secret: bool = False


VARIABLES = (
    Variable("PORT", "3000", "Where calls are taken, 1 to 65535."),
    Variable("HOST", "127.0.0.1; 0.0.0.0 in the container", "The address to listen on."),
    Variable(
        "MANAGEMENT_PORT",
        "none: they are on `PORT`",
        "Where `/admin`, `/metrics` and `/schema` are, and then only there.",
    ),
    Variable(
        "WORKERS",
        "usable CPUs (quota and affinity), at most 8",
        "Processes that take calls. Always 1 with `memory://`.",
    ),
    Variable("LOG_LEVEL", "`info`", f"One of {', '.join(f'`{level}`' for level in LOG_LEVELS)}."),
    Variable("LOG_FORMAT", "`json` on a pipe, `text` on a terminal", "How lines on standard error look."),
    Variable(
        "REDIS_URL",
        "`redis://localhost:6379`",
        "The ledger. Also `rediss://`, and `memory://` for one process.",
        secret=True,
    ),
    Variable(
        "DATABASE_URL",
        "none: `perpetuo serve` stops and says so",
        "The table of events: `postgres://`, `postgresql://`, `postgresql+asyncpg://` or `sqlite:///file`.",
        secret=True,
    ),
    Variable("PERPETUO_CONFIG_PATH", "`./perpetuo.config.yaml`", "The configuration file."),
    Variable("PERPETUO_CATALOGUE_PATH", "the shipped catalogue", "Prices to use instead."),
    Variable(
        "PERPETUO_ADMIN_KEY",
        "made up at each start and logged once",
        f"Signs in to `/admin`; at least {MIN_ADMIN_KEY} characters. With several nodes, the same on all.",
        secret=True,
    ),
    Variable(
        "PERPETUO_METRICS_TOKEN",
        "none: `/metrics` is open",
        "What a scraper has to send as `Authorization: Bearer`.",
        secret=True,
    ),
    Variable(
        "PERPETUO_URL",
        "`http://127.0.0.1` with `MANAGEMENT_PORT`, else `PORT`",
        "Where the gateway is, for commands that ask a running one.",
    ),
    Variable(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "none: traces are off",
        "The collector, as `http://collector:4318`; `/v1/traces` is added. "
        "Switches [traces](../how-to/trace-calls.md) on.",
    ),
    Variable(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "the one above and `/v1/traces`",
        "The same for traces alone, with its path. Of each pair the one for traces alone counts.",
    ),
    Variable(
        "OTEL_EXPORTER_OTLP_HEADERS",
        "none",
        "What the collector wants to see: `name=value,name=value`, percent-encoded.",
        secret=True,
    ),
    Variable("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "those above", "The same for traces alone.", secret=True),
    Variable("OTEL_EXPORTER_OTLP_PROTOCOL", "`http/protobuf`", "Nothing else is spoken."),
    Variable("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "the one above", "The same for traces alone."),
    Variable(
        "OTEL_EXPORTER_OTLP_CERTIFICATE", "the system's", "A file with the certificates to trust, for `https://`."
    ),
    Variable("OTEL_SERVICE_NAME", f"`{SERVICE}`", "`service.name` of all spans."),
    Variable("OTEL_RESOURCE_ATTRIBUTES", "none", "More attributes of the service: `name=value,name=value`."),
    Variable(
        "OTEL_TRACES_SAMPLER",
        "`parentbased_always_on`",
        f"Which calls have spans: {', '.join(f'`{name}`' for name in SAMPLERS)}.",
    ),
    Variable("OTEL_TRACES_SAMPLER_ARG", "1", "The share of calls that a `traceidratio` takes, 0 to 1."),
    Variable("OTEL_BSP_SCHEDULE_DELAY", "5000", "Milliseconds that spans gather before they are sent."),
    Variable("OTEL_BSP_MAX_QUEUE_SIZE", "2048", "Calls of a worker whose spans may wait; beyond, they are dropped."),
    Variable("OTEL_TRACES_EXPORTER", "`otlp`", "`none` switches traces off."),
    Variable("OTEL_SDK_DISABLED", "`false`", "`true` switches traces off."),
)
INTERNAL = frozenset({"PERPETUO_CONTAINER", "PERPETUO_RUN_DIR", "PERPETUO_WORKER"})
"""Set by our image and by our own main process, for nobody else."""
