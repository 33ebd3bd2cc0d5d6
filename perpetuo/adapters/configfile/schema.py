"""
What may stand in ``perpetuo.config.yaml``?

One class per mapping; the reference in the documentation and the JSON Schema are generated from them. Written in
snake_case here, in camelCase there. A field that is left out is ``None`` here: its default is the domain's, told in
``default`` (a test compares the two).
"""

from typing import Annotated, Any

import attrs

from perpetuo.adapters.configfile import kinds
from perpetuo.adapters.configfile.kinds import (
    Attempts,
    Count,
    CountLimit,
    Credential,
    Digest,
    Expiry,
    FailureRate,
    Id,
    Include,
    Lease,
    ModelName,
    MoneyLimit,
    Network,
    OpenTime,
    Pattern,
    Pause,
    Priority,
    ProviderId,
    Proxy,
    RequestSize,
    Retention,
    RetryShare,
    Size,
    Span,
    StoreTimeout,
    TenantId,
    Timeout,
    Tokens,
    Truth,
    UpstreamModel,
    Url,
    UsdPerMTok,
    Window,
    Zone,
)


def required(doc: str) -> Any:
    return attrs.field(metadata={"doc": doc})


def optional(doc: str, default: str | None = None, otherwise: str | None = None) -> Any:
    """``default`` as one would write it; ``otherwise`` says what happens when there is no such value."""
    return attrs.field(default=None, metadata={"doc": doc, "default": default, "otherwise": otherwise})


def many(doc: str) -> Any:
    return attrs.field(default=(), metadata={"doc": doc, "default": "[]"})


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


@attrs.frozen(kw_only=True)
class Timeouts:
    """How long to wait for a provider."""

    connect: Timeout | None = optional("For the connection, TLS included.", "5s")
    first_token: Timeout | None = optional("For the first event of a stream; headers alone do not count.", "60s")
    idle: Timeout | None = optional("Between two bytes of a stream.", "120s")
    total: Timeout | None = optional("For the whole call, all attempts together.", "600s")


@attrs.frozen(kw_only=True)
class Breaker:
    """When a provider counts as broken."""

    failure_rate: FailureRate | None = optional("Share of failures in the window that opens the breaker.", "0.5")
    minimum_calls: Count | None = optional("Fewer calls than this in the window never open it.", "20")
    window: Window | None = optional("How far back calls are counted.", "10s")
    consecutive_connect_failures: Count | None = optional("So many failed connections in a row open it at once.", "5")
    open_for: OpenTime | None = optional("How long it stays open before one call may probe.", "30s")


@attrs.frozen(kw_only=True)
class Provider:
    """Where models run."""

    id: ProviderId = required("Its name, for targets, headers, metrics and `perpetuo:cb:<provider>`.")
    kind: Annotated[str, kinds.choice("openai", "demo")] = required(
        "`openai`: any server that speaks OpenAI's API. `demo`: built in, answers without a network."
    )
    base_url: Url | None = optional("Where its API starts, up to and with `/v1`.", otherwise="required for openai")
    api_key: Credential | None = optional("Our key there.", otherwise="calls carry no key")
    timeouts: Timeouts | None = optional("How long to wait for it.")
    breaker: Breaker | None = optional("When it counts as broken.")
    http2: Truth | None = optional("Speak HTTP/2 to it.", "false")
    proxy: Proxy | None = optional("Proxy through which it is reached.", otherwise="a direct connection")


@attrs.frozen(kw_only=True)
class Price:
    """What a model costs, in USD per million tokens."""

    input_per_m_tok: UsdPerMTok | None = optional("Input.", otherwise="required unless free")
    output_per_m_tok: UsdPerMTok | None = optional("Output.", otherwise="required unless free")
    cached_input_per_m_tok: UsdPerMTok | None = optional(
        "Input that the provider had cached.", otherwise="as inputPerMTok"
    )
    free: Truth | None = optional("Costs nothing.", "false")


MaxTokensField = Annotated[str, kinds.choice("max_tokens", "max_completion_tokens")]


@attrs.frozen(kw_only=True)
class Target:
    """One place where a model runs."""

    provider: ProviderId = required("Id of the provider.")
    model: UpstreamModel = required("The model's name there; `*` passes on the name that was asked for.")
    weight: Count | None = optional("Share among targets of the same priority.", "1")
    priority: Priority | None = optional("Lower ones are tried first.", "0")
    price: Price | None = optional("Price at this target.", otherwise="the model's")
    free: Truth | None = optional(
        "Costs nothing at this target; `false` where its model is free: costs the catalogue's price.",
        otherwise="as the model",
    )
    max_output_tokens: Tokens | None = optional("Most output tokens at this target.", otherwise="the model's")
    max_tokens_field: MaxTokensField | None = optional(
        "Name under which this target takes the output limit.", otherwise="as the client wrote it"
    )


@attrs.frozen(kw_only=True)
class Bound:
    """Most input tokens that one part which is not text can cost; without it such input is refused under a budget."""

    image_tokens: Tokens | None = optional("One image.", otherwise="unknown")
    audio_tokens: Tokens | None = optional("One piece of audio.", otherwise="unknown")
    file_tokens: Tokens | None = optional("One file.", otherwise="unknown")


@attrs.frozen(kw_only=True)
class Model:
    """A model as clients ask for it."""

    name: ModelName = required("What clients ask for; `*` takes every name that is not configured.")
    targets: tuple[Target, ...] = required("Where it runs, tried in this order.")
    larger_context: ModelName | None = optional(
        "Model that takes over when the input is too long for this one.", otherwise="the refusal is passed on"
    )
    price: Price | None = optional("Its price.", otherwise="the catalogue's, by the target's model name")
    free: Truth | None = optional("Costs nothing.", "false")
    max_output_tokens: Tokens | None = optional("Most output tokens of one answer.", otherwise="the catalogue's")
    max_tokens_field: MaxTokensField | None = optional(
        "Name under which its targets take the output limit.", otherwise="as the client wrote it"
    )
    bound: Bound | None = optional("Bounds on input that is not text.")
    timeouts: Timeouts | None = optional("Each overrides the provider's.")


@attrs.frozen(kw_only=True)
class Retry:
    """How often and how patiently a call is tried."""

    attempts: Attempts | None = optional("Most attempts of one call, over all targets.", "3")
    backoff: Pause | None = optional("First pause; it doubles, with jitter.", "250ms")
    max_backoff: Pause | None = optional("Longest pause.", "8s")
    budget: RetryShare | None = optional("Retries per request in the long run.", "0.1")


@attrs.frozen(kw_only=True)
class Limits:
    """Limits of a plan, a tenant (each overrides the plan's) or a key (on top of the tenant's)."""

    rate_limit_min: CountLimit | None = optional("Requests in any 60 seconds.", otherwise="no such limit")
    budget_day: MoneyLimit | None = optional(
        "USD a calendar day, or `unlimited`.", otherwise="an error, unless the plan (for a key: the tenant) names it"
    )
    budget_month: MoneyLimit | None = optional("USD a calendar month, or `unlimited`.", otherwise="no such limit")
    concurrency: CountLimit | None = optional("Calls in flight at once.", otherwise="no such limit")


@attrs.frozen(kw_only=True)
class Plan:
    """Limits that tenants share the wording of; each tenant has its own counters."""

    id: Id = required("Its name.")
    limits: Limits | None = optional("Limits of every tenant on it.")
    models: tuple[Pattern, ...] | None = optional(
        "Models its tenants may call; `*` and `?` as in a shell.", '["*"]', otherwise="all"
    )


@attrs.frozen(kw_only=True)
class ApiKey:
    """A key of a tenant. Also written as plain text, or as ``sha256:<hex>``."""

    hash: Digest = required("`sha256:` and the SHA-256 of the key, in hex (`perpetuo keys new` prints it).")
    name: Id | None = optional("Its name in logs and events.", otherwise="key-1, key-2 … by position")
    expires: Expiry | None = optional(
        "From when it is refused: the start of this day in the tenant's time zone, or an exact time.", otherwise="never"
    )
    models: tuple[Pattern, ...] | None = optional("Models it may call.", otherwise="whatever the tenant may")
    limits: Limits | None = optional("Limits of this key alone, on top of the tenant's.")


@attrs.frozen(kw_only=True)
class TenantIdempotency:
    """What a tenant has of its own for idempotency keys."""

    ttl: Span | None = optional("How long its answers are kept; 0s keeps none.", otherwise="idempotency.ttl")


@attrs.frozen(kw_only=True)
class Tenant:
    """A customer of the gateway."""

    id: TenantId = required("Its name.")
    plan: Id | None = optional("Id of its plan.", otherwise="only its own limits count")
    limits: Limits | None = optional("Its limits; each overrides the plan's.")
    time_zone: Zone | None = optional("Whose midnight starts the day and month of its budgets.", "UTC")
    api_keys: tuple[ApiKey, ...] = many("Its keys.")
    idempotency: TenantIdempotency | None = optional("Overrides for idempotency keys.")


@attrs.frozen(kw_only=True)
class Idempotency:
    """Answers kept for retries with the same key, given out 10 × `rateLimitMin` times in any 60 seconds at most."""

    ttl: Span | None = optional("How long answers are kept; 0s keeps none.", "24h")
    max_bytes: Size | None = optional("Larger answers are not kept.", "1MiB")
    max_bytes_per_tenant: Size | None = optional("A tenant's share of the memory for answers.", "64MiB")
    lease: Lease | None = optional(
        "How long a run is believed to be alive when its worker, which renews it every second, says nothing.", "30s"
    )
    wait: Pause | None = optional("How long a retry waits for the first run to end.", "0s")
    on_unknown_outcome: Annotated[str, kinds.choice("reexecute", "fail")] | None = optional(
        "What a retry gets when the first run's worker died.", "reexecute"
    )


@attrs.frozen(kw_only=True)
class Budget:
    """What happens at a budget's edge."""

    when_short: Annotated[str, kinds.choice("refuse", "lower")] | None = optional(
        "`refuse` the call, or `lower` its output limit to what is affordable.", "refuse"
    )


@attrs.frozen(kw_only=True)
class Errors:
    """Answers that can be changed for clients that need it."""

    budget_status: Annotated[int, kinds.status(403, 402, 429)] | None = optional(
        "HTTP status of `budget_exceeded`.", "403"
    )


@attrs.frozen(kw_only=True)
class Audit:
    """The table of events."""

    retention: Retention | None = optional(
        "How long events are kept; 33d or more where there is a budget by the month.", "90d"
    )
    client_ip: Annotated[str, kinds.choice("truncated", "full", "none")] | None = optional(
        "Client addresses in events: /24 and /48 networks, whole, or not at all.", "truncated"
    )


@attrs.frozen(kw_only=True)
class AdminKey:
    """A key for `/admin`."""

    name: Id = required("Whose it is.")
    hash: Digest = required("`sha256:` and the SHA-256 of the key, in hex (`perpetuo keys new` prints it).")
    role: Annotated[str, kinds.choice("read", "write")] | None = optional("`read` looks, `write` also acts.", "write")


@attrs.frozen(kw_only=True)
class Admin:
    """Who may use `/admin`, beside the holder of PERPETUO_ADMIN_KEY."""

    keys: tuple[AdminKey, ...] = many("Their keys.")


@attrs.frozen(kw_only=True)
class Server:
    """The gateway's own HTTP side."""

    request_max_bytes: RequestSize | None = optional("Larger bodies are refused.", "10MiB")
    trusted_proxies: tuple[Network, ...] = many("Networks whose X-Forwarded-For is believed.")
    drain_delay: Pause | None = optional("How long to accept further calls after SIGTERM, while ready says no.", "5s")
    body_timeout: Timeout | None = optional("How long a client may take to send its body.", "30s")


@attrs.frozen(kw_only=True)
class Redis:
    """The ledger's Redis; its address comes from REDIS_URL."""

    timeout: StoreTimeout | None = optional("For one step.", "100ms")


@attrs.frozen(kw_only=True)
class ConfigFile:
    """The whole file."""

    providers: tuple[Provider, ...] = required("Where models run.")
    models: tuple[Model, ...] = required("What clients can ask for.")
    plans: tuple[Plan, ...] = many("Limits with a name.")
    tenants: tuple[Tenant, ...] = many("Who may call.")
    include: tuple[Include, ...] = many(
        "Further files with providers, models, plans and tenants, relative to this one; `*` and `?` as in a shell."
    )
    retry: Retry | None = optional("How often and how patiently a call is tried.")
    idempotency: Idempotency | None = optional("Answers kept for retries with the same key.")
    budget: Budget | None = optional("What happens at a budget's edge.")
    errors: Errors | None = optional("Answers that can be changed.")
    audit: Audit | None = optional("The table of events.")
    admin: Admin | None = optional("Who may use `/admin`.")
    server: Server | None = optional("The gateway's own HTTP side.")
    redis: Redis | None = optional("The ledger's Redis.")
