"""
What should be done about a refusal, by who called and by who runs the gateway?

Read by the reference in the documentation, and by nothing on the path of a call.
"""

import attrs

from perpetuo.domain.model.errors import Reason


@attrs.frozen
class Advice:
    """
    Markdown, a sentence or two each; an empty one says that there is nothing to do.

    ``see`` is a title and a page in ``docs``.
    """

    caller: str
    operator: str = ""
    see: tuple[str, str] | None = None


ADVICE: dict[Reason, Advice] = {
    Reason.INVALID_API_KEY: Advice(
        "Check the key and the header `Authorization: Bearer sk-…`.",
        "Is the key, or its hash, under a tenant's `apiKeys`?",
    ),
    Reason.API_KEY_EXPIRED: Advice(
        "Ask for a new key.", "`perpetuo keys new`.", see=("Rotating keys", "operations.md#2-rotaiting-keys")
    ),
    Reason.MODEL_NOT_FOUND: Advice(
        "`GET /v1/models` lists what the key may call.", 'Add the model, or a catch-all `"*"`.'
    ),
    Reason.MODEL_NOT_ALLOWED: Advice(
        "Use a model that `GET /v1/models` lists.", "Widen `models` of the key or its plan."
    ),
    Reason.RATE_LIMIT_EXCEEDED: Advice(
        "Wait as told. Answers kept under idempotency keys have a limit of their own, ten times that "
        "of calls; the message says which.",
        "Raise `rateLimitMin`; it works within a second.",
    ),
    Reason.CONCURRENCY_LIMIT_EXCEEDED: Advice("Wait until a call has ended.", "Raise `concurrency`."),
    Reason.BUDGET_EXCEEDED: Advice(
        "Wait until the budget starts anew, or ask for more. `GET /v1/key` shows it.",
        "Raise `budgetDay` or `budgetMonth`. `errors.budgetStatus` changes the status for clients that need it.",
    ),
    Reason.BUDGET_RESERVED: Advice(
        "Try again in a second. A smaller `max_tokens` holds less.",
        "Nothing is wrong: money is held by calls in flight. Raise the budget, or set `maxOutputTokens` lower.",
    ),
    Reason.MODEL_NOT_PRICED: Advice("Ask the operator.", "Set `price` or `free: true` for the model or target."),
    Reason.COST_NOT_BOUNDED: Advice(
        "Leave out the parameter that is named.", "Set `bound` for the model, or give a key without a budget."
    ),
    Reason.REQUEST_TIMEOUT: Advice("Send the body faster.", "`server.bodyTimeout`."),
    Reason.INVALID_REQUEST: Advice("The message and `param` say what is wrong."),
    Reason.REQUEST_TOO_LARGE: Advice("Send less.", "`server.requestMaxBytes`."),
    Reason.UNSUPPORTED_ENCODING: Advice("Send the body uncompressed."),
    Reason.IDEMPOTENCY_KEY_INVALID: Advice("One key of 1 to 255 visible ASCII characters."),
    Reason.IDEMPOTENCY_KEY_REUSED: Advice("A new key for a new request."),
    Reason.IDEMPOTENCY_NOT_STORED: Advice(
        "The request was done, its answer was not kept. A new key runs it again.",
        "Raise `idempotency.maxBytes` or `maxBytesPerTenant`, or give Redis more memory.",
    ),
    Reason.IDEMPOTENCY_OUTCOME_UNKNOWN: Advice(
        "Find out whether the first request had its effect; a new key runs it again.",
        "It is what `onUnknownOutcome: fail` asks for.",
    ),
    Reason.IDEMPOTENCY_IN_PROGRESS: Advice(
        "Try again in a second, or send `Prefer: wait=30`.", "`idempotency.wait` makes retries wait by themselves."
    ),
    Reason.UPSTREAM_CREDENTIALS: Advice(
        "Tell the operator.", "Check the provider's `apiKey` and its account. It is tried again after 60 s."
    ),
    Reason.UPSTREAM_ERROR: Advice(
        "The gateway has retried already. Try later.", "The call's `attempts` in `events` say what each target did."
    ),
    Reason.UPSTREAM_RATE_LIMITED: Advice(
        "Wait as told.", "The provider limits your account. Add a target, or ask the provider for more."
    ),
    Reason.NO_HEALTHY_UPSTREAM: Advice(
        "Wait as told.",
        "Every breaker of the model's providers is open.",
        see=("Circuit breaker open", "operations.md#4-troubleshooting"),
    ),
    Reason.UPSTREAM_TIMEOUT: Advice("Ask for less output, or stream.", "`timeouts` of the provider or model."),
    Reason.STORE_UNAVAILABLE: Advice(
        "Wait as told. Nothing was sent.",
        "Redis is away, too slow, or its counters are being read back: `/health/ready` says which.",
    ),
    Reason.AUDIT_UNAVAILABLE: Advice(
        "Wait as told. Nothing was sent.",
        "Redis is more than 85 % full, mostly because SQL does not take events.",
        see=("Redis", "operations.md#redis"),
    ),
    Reason.SHUTTING_DOWN: Advice("Try again; another instance answers.", "This instance is draining."),
    Reason.NOT_FOUND: Advice("The message lists what is served."),
    Reason.METHOD_NOT_ALLOWED: Advice("The message lists the methods."),
}
