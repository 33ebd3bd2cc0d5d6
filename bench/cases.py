"""
What is asked, and of a gateway with which configuration?

1,000 tenants in the file, each with a rate, a concurrency and two budgets: everything is on, always.
"""

import attrs

from bench.load import Load
from bench.upstream import EVENTS, TEXT

KEY = "sk-bench-{:04d}-0123456789abcdef"
TENANTS = 1_000
PATH = "/v1/chat/completions"
STREAMED = EVENTS + 1
"""Events of a stream, ``[DONE]`` included."""


def _body(model: str, content: str, more: str = "") -> str:
    return f'{{"model":"{model}","max_tokens":100,{more}"messages":[{{"role":"user","content":"{content}"}}]}}'


def _stream(model: str, tenant: int) -> Load:
    return Load(PATH, KEY.format(tenant), _body(model, "hi", '"stream":true,'), 200, "[DONE]", events=STREAMED)


CASES = {
    "chat": Load(PATH, KEY.format(1), _body("chat", "a" * 220), 200, TEXT),
    "chat-8k": Load(PATH, KEY.format(2), _body("chat", "word " * 1_600), 200, TEXT),
    "stream": _stream("stream", 3),
    "stream-trickle": _stream("trickle", 5),
    "replay": Load(
        PATH, KEY.format(4), _body("chat", "again"), 200, TEXT, more={"X-Idempotency-Key": "the-one"}
    ),
    "refused": Load(PATH, KEY.format(0), _body("chat", "no"), 429, "rate_limit_exceeded"),
}  # fmt: skip
PROVIDERS = {"chat": "chat", "chat-8k": "chat", "stream": "stream", "stream-trickle": "trickle"}
"""Which provider a case asks, for those that reach one."""


def straight(case: str) -> Load:
    """The same, for whoever passes requests on by their path: ``/<provider>/v1/…``."""
    return attrs.evolve(CASES[case], path=f"/{PROVIDERS[case]}{PATH}")


def config(upstream: int, trickle: int) -> str:
    """Of the gateway; tenant 0 may call once a minute."""
    ports = {"chat": upstream, "stream": upstream, "trickle": trickle}
    providers = "\n".join(
        f'  - {{id: {name}, kind: openai, baseUrl: "http://127.0.0.1:{port}/{name}/v1", apiKey: sk-up}}'
        for name, port in ports.items()
    )
    models = "\n".join(
        f"  - {{name: {name}, targets: [{{provider: {name}, model: m}}], maxOutputTokens: 4096,\n"
        f"      price: {{inputPerMTok: 0.5, outputPerMTok: 1.5}}}}"
        for name in ports
    )
    tenants = "\n".join(
        f'  - {{id: t{n:04d}, plan: {"tiny" if n == 0 else "pro"}, apiKeys: ["{KEY.format(n)}"]}}'
        for n in range(TENANTS)
    )
    return f"""
providers:
{providers}
models:
{models}
plans:
  - {{id: pro, limits: {{rateLimitMin: 1000000, concurrency: 10000, budgetDay: 1000000, budgetMonth: 1000000}}}}
  - {{id: tiny, limits: {{rateLimitMin: 1, concurrency: 10, budgetDay: 1000000, budgetMonth: 1000000}}}}
tenants:
{tenants}
redis: {{timeout: 1s}}
"""
