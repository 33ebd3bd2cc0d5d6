"""Is every mistake told at its place, in words that help, and without a secret?"""

import json

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import strategies as st

from tests.examples import examples
from tests.unit.configfile.samples import VALID, problems, with_line

KEY = "sk-a-very-secret-key-that-must-not-be-shown"

# What is written instead of what, and the one line that is told.
MISTAKES = [
    (
        "rateLimitMin: 100",
        "rateLimitMin: -5",
        "8:38: plans[0].limits.rateLimitMin: -5 is not allowed: a whole number ≥ 1 and ≤ 1,000,000, or unlimited",
    ),
    (
        "rateLimitMin: 100",
        "rateLimitMn: 100",
        "8:24: plans[0].limits.rateLimitMn: unknown key (did you mean rateLimitMin?); "
        "known here: rateLimitMin, budgetDay, budgetMonth, concurrency",
    ),
    (
        "rateLimitMin: 100",
        "rateLimitMin: 10/s",
        "8:38: plans[0].limits.rateLimitMin: 10/s is not allowed: a whole number ≥ 1 and ≤ 1,000,000, or unlimited",
    ),
    (
        "budgetDay: 50",
        "budgetDay: $50",
        "8:54: plans[0].limits.budgetDay: $50 is not allowed: "
        "an amount of USD without a unit, such as 50 or 0.25, ≥ 0 and ≤ 1,000,000, or unlimited",
    ),
    (
        "budgetDay: 50",
        "budgetDay: 1000000.000000001",
        "8:54: plans[0].limits.budgetDay: 1000000.000000001 is not allowed: "
        "an amount of USD without a unit, such as 50 or 0.25, ≥ 0 and ≤ 1,000,000, or unlimited",
    ),
    (
        ", budgetDay: 50",
        "",
        "10:5: tenants[0].limits.budgetDay: is missing here and in plan pro: "
        "an amount of USD a day such as 50, or unlimited",
    ),
    ("plan: pro", "plan: prow", "10:22: tenants[0].plan: prow is no plan (did you mean pro?); there are: pro"),
    (
        "plan: pro,",
        "plan: pro, timeZone: Europe/Berln,",
        "10:37: tenants[0].timeZone: Europe/Berln is not allowed: a time zone such as UTC or Europe/Berlin "
        "(did you mean Europe/Berlin?)",
    ),
    ("id: acme", 'id: "ac/me"', "10:10: tenants[0].id: ac/me is not allowed: 1 to 128 printable characters without /"),
    ("id: acme, ", "", "10:5: tenants[0].id: is missing: 1 to 128 printable characters without /"),
    (
        "id: acme",
        'id: "\\x07"',
        '10:10: tenants[0].id: "\\u0007" is not allowed: 1 to 128 printable characters without /',
    ),
    (
        "provider: openai",
        "provider: opnai",
        "5:41: models[0].targets[0].provider: opnai is no provider (did you mean openai?); there are: demo, openai",
    ),
    (
        "model: gpt-4o}",
        "model: gpt-4o, weight: 0}",
        "5:72: models[0].targets[0].weight: 0 is not allowed: a whole number ≥ 1 and ≤ 1,000,000",
    ),
    ("name: play", "name: gpt-4o", "6:12: models[1].name: gpt-4o is already the name of models[0]"),
    (
        "  - {id: openai,",
        "  - {id: demo, kind: demo}\n  - {id: openai,",
        "3:10: providers[1].id: demo is already the id of providers[0]",
    ),
    (
        "[{provider: openai, model: gpt-4o}]",
        "[]",
        "5:29: models[0].targets: is empty: a model needs at least one place to run",
    ),
    (
        "{name: play,",
        "{name: play, largerContext: huge,",
        "6:33: models[1].largerContext: huge is no model; there are: gpt-4o, play",
    ),
    (
        "{name: play,",
        "{name: play, largerContext: play,",
        "6:33: models[1].largerContext: leads back to this model: a larger context must be another's",
    ),
    (
        "{name: play,",
        "{name: play, price: {inputPerMTok: 1},",
        "6:25: models[1].price.outputPerMTok: is missing: a price in USD per million tokens, or free: true",
    ),
    (
        "{name: play,",
        "{name: play, free: true, price: {inputPerMTok: 1, outputPerMTok: 2},",
        "6:18: models[1].free: contradicts price: leave one of them out",
    ),
    (
        "kind: demo",
        "kind: dmo",
        "2:22: providers[0].kind: dmo is not allowed: one of openai, demo (did you mean demo?)",
    ),
    (
        "kind: demo",
        "kind: demo, baseUrl: http://x",
        "2:28: providers[0].baseUrl: a demo provider has none: it answers without a network",
    ),
    (
        " baseUrl: https://api.openai.com/v1,",
        "",
        "3:5: providers[1].baseUrl: is missing: a provider of kind openai needs the address of its API",
    ),
    (
        "https://api.openai.com/v1",
        "https://api.openai.com/v1?x=1",
        "3:41: providers[1].baseUrl: (29 characters) is not allowed: an http:// or https:// address "
        "such as https://api.openai.com/v1 (without user, query or fragment: credentials belong into apiKey)",
    ),
    (
        "kind: openai,",
        "kind: openai, timeouts: {total: 10 minutes},",
        '3:50: providers[1].timeouts.total: "10 minutes" is not allowed: a duration such as 500ms, 30s, 5m, 24h '
        "or 90d, or a number of seconds, from 1ms to 24h",
    ),
    (
        "[sk-acme-one]",
        "[sk-acme-one, {hash: sha256:abc}]",
        "10:57: tenants[0].apiKeys[1].hash: (10 characters) is not allowed: sha256: and 64 hexadecimal digits",
    ),
    (
        "[sk-acme-one]",
        "[sk-acme-one, sk-acme-one]",
        "10:50: tenants[0].apiKeys[1]: the same key as tenants[0].apiKeys[0]: a key has one holder",
    ),
    (
        "[sk-acme-one]",
        "[sk-acme-one, {hash: 'sha256:" + "0" * 64 + "', name: key-1}]",
        "10:50: tenants[0].apiKeys[1]: the name key-1 is already that of apiKeys[0]",
    ),
    (  # `perpetuo.domain.policy.windows.replay_scope` counts on it
        "[sk-acme-one]",
        "[{hash: 'sha256:" + "0" * 64 + "', name: ' replays'}]",
        "10:125: tenants[0].apiKeys[0].name: (8 characters) is not allowed: 1 to 128 printable characters",
    ),
    (
        "[sk-acme-one]",
        "[{hash: 'sha256:" + "0" * 64 + "', expires: 2027-02-30}]",
        "10:128: tenants[0].apiKeys[0].expires: (10 characters) is not allowed: a date such as 2027-01-31, or a time "
        "such as 2027-01-31T12:00:00Z (day is out of range for month)",
    ),
    ("[sk-acme-one]", "sk-acme-one", "10:36: tenants[0].apiKeys: (11 characters) is not allowed: a list"),
    (
        "sk-provider-secret",
        '"${OPENAI_API_KEY}"',
        "3:76: providers[1].apiKey: OPENAI_API_KEY is not set: set it, "
        "or name a file that holds it in OPENAI_API_KEY_FILE",
    ),
    (
        "plan: pro",
        "plan: &p pro, x: *p",
        "10:33: tenants[0].x: aliases (*…) are not supported: share limits through a plan",
    ),
    ("plan: pro", "plan: !!python/name:os.system x", "10:22: tenants[0].plan: tags (!…) are not supported"),
    ("plan: pro", "plan: pro, plan: pro", "10:27: tenants[0].plan: written twice (first at line 10, column 16)"),
    ("plan: pro", "plan: pro, [a]: b", "10:27: tenants[0]: a key must be a plain name"),
    ("plan: pro", 'plan: "${pro"', "10:22: tenants[0].plan: ${ starts a variable: write ${NAME} or ${NAME:-default}"),
]


@pytest.mark.parametrize(("old", "new", "told"), MISTAKES, ids=[told.split(":")[2].strip() for *_, told in MISTAKES])
def test_check_tells_a_mistake_at_its_place(old: str, new: str, told: str) -> None:
    """One mistake is one line: where it stands, its path, the value seen and what is allowed."""
    assert problems(with_line(old, new)) == [f"c.yaml:{told}"]


SECTIONS = [
    ("retry: {attempts: 0}", "11:19: retry.attempts: 0 is not allowed: a whole number ≥ 1 and ≤ 10"),
    ("retry: {backoff: 9s, maxBackoff: 8s}", "11:18: retry.backoff: longer than maxBackoff"),
    ("errors: {budgetStatus: 404}", "11:24: errors.budgetStatus: 404 is not allowed: one of 403, 402, 429"),
    (
        "admin: {keys: [{name: a, hash: sk-plain}]}",
        "11:32: admin.keys[0].hash: (8 characters) is not allowed: sha256: and 64 hexadecimal digits",
    ),
    (
        f"admin: {{keys: [{{name: a, hash: 'sha256:{'0' * 64}', role: root}}]}}",
        "11:113: admin.keys[0].role: root is not allowed: one of read, write",
    ),
    (
        "server: {trustedProxies: [10.0.0.1/8]}",
        "11:27: server.trustedProxies[0]: 10.0.0.1/8 is not allowed: a network such as 10.0.0.0/8 or an address "
        "(the bits behind the prefix must be 0)",
    ),
    (
        "server: {requestMaxBytes: 10 mb}",
        '11:27: server.requestMaxBytes: "10 mb" is not allowed: a size such as 10MiB, 512KiB or 1MB, '
        "or a number of bytes, from 1,024 to 1,073,741,824 bytes",
    ),
    (
        "idempotency: {maxBytes: 65MiB, maxBytesPerTenant: 64MiB}",
        "11:25: idempotency.maxBytes: more than maxBytesPerTenant: no such answer could ever be kept",
    ),
    (
        "tenant: []",
        "11:1: tenant: unknown key (did you mean tenants?); known here: providers, models, plans, tenants, include, "
        "retry, idempotency, budget, errors, audit, admin, server, redis",
    ),
    ("budget: refuse", "11:9: budget: refuse is not allowed: a mapping with whenShort"),
]


@pytest.mark.parametrize(("line", "told"), SECTIONS, ids=[line.split(":")[0] for line, _ in SECTIONS])
def test_check_tells_a_mistake_in_a_section(line: str, told: str) -> None:
    """The sections beside the lists are checked as closely."""
    assert problems(f"{VALID}{line}\n") == [f"c.yaml:{told}"]


HASH = "sha256:" + "0" * 64
BY_THE_MONTH = [
    ("budgetDay: 50", "budgetDay: 50, budgetMonth: 900", "plans[0]"),
    ("plan: pro,", "plan: pro, limits: {budgetMonth: 900},", "tenants[0]"),
    ("[sk-acme-one]", f"[sk-acme-one, {{hash: '{HASH}', limits: {{budgetMonth: 0}}}}]", "tenants[0].apiKeys[1]"),
]


@pytest.mark.parametrize(("old", "new", "where"), BY_THE_MONTH)
def test_b7_a_month_budget_needs_the_events_of_its_month(old: str, new: str, where: str) -> None:
    """Wherever the budget stands: counters that Redis lost are summed from events, so 33 days of them are kept."""
    told = (
        "is not allowed: from 33d on while there is a budget by the month "
        f"({where}.limits.budgetMonth): it is counted from the month's events"
    )
    text = with_line(old, new)
    assert problems(f"{text}audit: {{retention: 32d}}\n") == [f"c.yaml:11:20: audit.retention: 32d {told}"]
    assert problems(f"{text}audit:\n  retention: 790h\n") == [f"c.yaml:12:14: audit.retention: 790h {told}"]
    assert problems(f"{text}audit: {{retention: 33d}}\n") == []
    assert problems(text) == []


def test_b7_without_a_month_budget_events_may_be_dropped_sooner() -> None:
    """A day's budget is counted from the day's events, and ``unlimited`` from none."""
    text = with_line("budgetDay: 50", "budgetDay: 50, budgetMonth: unlimited")
    assert problems(f"{text}audit: {{retention: 1d}}\n") == []


def test_check_tells_all_problems_at_once() -> None:
    """Mistakes of every kind, in one item and across items, come in one run and in file order."""
    text = with_line("plan: pro,", "plan: nope, colour: red, limits: {concurrency: none},").replace(
        "kind: demo", "kind: x"
    )
    found = problems(f"{text}retry: 3\n")
    assert [line.split(": ")[1] for line in found] == [
        "providers[0].kind",
        "tenants[0].plan",
        "tenants[0].colour",
        "tenants[0].limits.concurrency",
        "retry",
    ]


def test_check_does_not_blame_a_mistake_twice() -> None:
    """A plan's wrong budget is one problem, not one more for each tenant on the plan."""
    assert len(problems(with_line("budgetDay: 50", "budgetDay: 50 USD"))) == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "1:1: a configuration is a mapping with providers, models, plans"),
        ("a: {b: ${X}}", "1:9: no YAML: did not find expected ',' or '}'; inside { } and [ ] a variable needs quotes"),
        ("- a", "1:1: a configuration is a mapping with"),
        ("a: b: c", "1:5: no YAML: mapping values are not allowed in this context"),
        ("a: 1\n---\nb: 2\n", "2:1: a second document: a configuration is one"),
        ("a: \x00", "1:4: a character that YAML does not allow"),
        ("a: \ud800", "1:4: a character that YAML does not allow"),
        (f"a: {'[' * 60_000}", "1:27: nested too deeply"),
        (f"a: '{KEY}", "1:48: no YAML: found unexpected end of stream"),
        (f"a: *{KEY}", "1:4: a: aliases"),
    ],
)
def test_check_tells_what_is_no_configuration(text: str, told: str) -> None:
    """Text that is no YAML, or YAML that is no configuration, is a problem with a place too."""
    assert any(line.startswith(f"c.yaml:{told}") for line in problems(text))


MISPLACED = [
    "tenants: [{id: a, apiKeys: [[KEY]]}]",
    "tenants: [{id: a, apiKeys: [{KEY: x}]}]",
    "tenants: [{id: a, apiKeys: {KEY: x, KEY: y}}]",
    "tenants: [{id: a, apiKeys: KEY}]",
    "tenants: [{id: a, apiKeys: [{hash: KEY}]}]",
    "tenants: [{id: a, apiKeys: ['KEY ', KEY, KEY]}]",
    "tenants: [{KEY: a}]",
    "tenants: [{id: a, plan: KEY}]",
    "tenants: [{id: KEY}, {id: KEY}]",
    "providers: [{id: a, kind: openai, apiKey: 'KEY KEY'}]",
    "providers: [{id: a, kind: KEY}]",
    "providers: [{id: a, kind: openai, baseUrl: 'http://u:KEY@x'}]",
    "providers: [{id: a, kind: openai, proxy: 'ftp://u:KEY@x'}]",
    "admin: {keys: [KEY]}",
    "admin: {keys: [{name: a, hash: KEY, role: KEY}]}",
    "KEY: 1",
    "a: '${KEY'",
    "a: !<KEY> x",
    "a: &KEY [*KEY]",
    "%KEY",
    "a: 'KEY",
    '"KEY": "KEY\\q"',
]


@pytest.mark.parametrize("text", MISPLACED)
def test_a5_a_misplaced_key_is_not_shown(text: str) -> None:
    """Wherever a key is put by mistake, no problem repeats it."""
    found = problems(text.replace("KEY", KEY))
    assert found
    assert not any(KEY in line for line in found)


@examples(50, 500)
@given(
    st.sampled_from(["apiKey: {}", "baseUrl: {}", "kind: {}", "http2: {}", "timeouts: {{total: {}}}", "id: {}"]),
    st.data(),
)
def test_a5_what_came_from_a_variable_is_not_shown(member: str, data: st.DataObject) -> None:
    """A value from the environment is a secret wherever it goes; its name and length are told."""
    secret = data.draw(st.text("QXZ0123456789 \t\x07é", min_size=9, max_size=30))
    text = "providers: [{" + member.format('"${TOKEN}"') + "}]"
    found = problems(text, {"TOKEN": secret})
    assert found
    assert not any(secret in line for line in found)


def test_a5_a_masked_value_names_its_variable() -> None:
    """The reader learns which variable holds what is wrong, and how long it is."""
    text = with_line("sk-provider-secret", '"${OPENAI_API_KEY}"')
    assert "(51 characters, from OPENAI_API_KEY) is not allowed" in problems(text, {"OPENAI_API_KEY": "é" * 51})[0]


@pytest.mark.parametrize("lease", ["1s", "4999ms"])
def test_i5_a_lease_that_one_late_renewal_would_end_is_refused(lease: str) -> None:
    """Renewals come every second: with a lease as short, a retry would run beside a first run that is alive."""
    (problem,) = problems(f"{VALID}idempotency: {{lease: {lease}}}\n")
    assert f"idempotency.lease: {lease} is not allowed" in problem
    assert problem.endswith("from 5s to 10m")
    assert not problems(f"{VALID}idempotency: {{lease: 5s}}\n")


PIECES = st.sampled_from([*"ab:-[]{},&*!|>'\"%@#?$~\n \t0.é\u2028\x85", "${A}", "tenants", "apiKeys: ", "- "])
YAML_LIKE = st.lists(PIECES, max_size=40).map("".join)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["id", "name", "kind", "targets", "provider", "model", "limits", "apiKeys", "hash", "keys", "free", "price"]
    ), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
SECTION = st.sampled_from(["providers", "models", "plans", "tenants", "retry", "admin", "server", "idempotency", "x"])


@examples(100, 1_000)
@given(YAML_LIKE | st.text(max_size=30))
@example("{[a]: b}")
@example("? ? ? a")
def test_check_never_fails_on_any_text(text: str) -> None:
    """Whatever the text is, the only exception is `ConfigError`, and it has a problem on one line."""
    told = problems(text, {"A": "x"})
    assert told
    assert all(len(line.splitlines()) == 1 for line in told)


@examples(60, 1_000, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(SECTION, VALUES, max_size=4))
def test_check_never_fails_on_any_shape(shape: dict[str, object]) -> None:
    """Any value in any place is either right or a problem."""
    told = problems(json.dumps(shape))
    assert all(len(line.splitlines()) == 1 for line in told)
