"""Requests that nobody wrote by hand: does the gateway keep to its own OpenAPI document, whatever is asked (S3)?"""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.live import ADMIN_KEY, KEY, OTHER_KEY, LiveGateway, config_text
from tests.odd import MEMBERS, VALUES
from tests.servers import RedisServer

HOOKS = Path(__file__).with_name("schemathesis_hooks.py")
CONFIG = config_text(
    providers="  - {id: demo, kind: demo}\n  - {id: spare, kind: demo}",
    models="""
  - {name: m, targets: [{provider: demo, model: m}], maxOutputTokens: 100, price: {inputPerMTok: 1, outputPerMTok: 1}}
  - {name: "*", targets: [{provider: demo, model: "*"}]}""",
    limits="{budgetDay: unlimited}",
    more="server: {trustedProxies: [127.0.0.1/32]}\nredis: {timeout: 10s}",
).replace("id: other\n    plan: pro", "id: other\n    plan: pro\n    limits: {budgetDay: 1000}")
SETTINGS = f"""
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "504"]  # 504: the client's own x-request-timeout-ms is over
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", "401", "403", "404", "409", "422", "429", "504"]  # 422: a key used before
[[operations]]  # 400 also says that there is nothing to raise, that less was spent, or that a text is no time
include-path-regex = "^/admin/api/(budget/|events|refusals)"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "400", "401", "403", "404", "409", "429"]
[auth.openapi.key]
bearer = "{KEY}"
[auth.openapi.admin]
bearer = "{ADMIN_KEY}"
[auth.openapi.metrics]
bearer = "none is set"
"""
SEED = int(os.environ.get("FUZZ_SEED", "0")) or random.randrange(1 << 30)
SECONDS = float(os.environ.get("FUZZ_SECONDS", "60"))


@pytest.fixture(scope="module")
def shared(redis_here: RedisServer, database_here: str) -> Iterator[LiveGateway]:
    with LiveGateway(CONFIG, redis_url=redis_here.url, database_url=database_here) as running:
        yield running


@pytest.fixture
def gateway(shared: LiveGateway) -> Iterator[LiveGateway]:
    """After every test: the same workers are alive, and nothing of ours is broken."""
    before = shared.worker_pids()
    yield shared
    assert shared.chat(max_tokens=3).status_code == 200
    assert shared.worker_pids() == before
    for defect in ("is broken", "loop_broken", "raised an exception"):
        assert defect not in shared.log()


def schemathesis(gateway: LiveGateway, directory: Path, *arguments: str) -> None:
    """``st run`` with all checks on; fails with what it found, and the requests to send again."""
    settings = directory / "schemathesis.toml"
    settings.write_text(SETTINGS)
    command: list[str | Path] = [Path(sys.executable).with_name("st"), "--config-file", settings, "run"]
    command += [f"{gateway.url}/schema/openapi.json", "--checks", "all", "--continue-on-failure", *arguments]
    environ = {**os.environ, "SCHEMATHESIS_HOOKS": str(HOOKS)}
    ended = subprocess.run(command, cwd=directory, env=environ, capture_output=True, text=True, check=False)
    print(ended.stdout[-12_000:], ended.stderr[-2_000:])
    assert ended.returncode == 0


def test_s3_what_is_asked_at_random_is_answered_as_documented(gateway: LiveGateway, tmp_path: Path) -> None:
    """Status, headers, content type and body of each answer; what breaks the document's rules is refused."""
    schemathesis(gateway, tmp_path, "--phases", "coverage,fuzzing", "--max-examples", "3", "--seed", "1")


@pytest.mark.slow
@pytest.mark.timeout(3 * SECONDS + 120)
def test_s3_what_is_asked_at_random_for_long_is_answered_as_documented(gateway: LiveGateway, tmp_path: Path) -> None:
    """The same for FUZZ_SECONDS from FUZZ_SEED, links between operations included."""
    print(f"FUZZ_SEED={SEED}")
    schemathesis(gateway, tmp_path, "--max-time", f"{SECONDS:.0f}", "--seed", str(SEED))


@pytest.mark.parametrize("every", [9, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("key", [KEY, OTHER_KEY], ids=["without a budget", "under a budget"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
def test_s3_every_kind_of_value_at_every_member_is_200_or_4xx(
    gateway: LiveGateway, path: str, key: str, every: int
) -> None:
    """What parses has to get through the rest as well: prices, bounds, the provider's dialect; or every so many."""
    good = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "input": "hi", "max_tokens": 3}
    with httpx.Client(
        base_url=gateway.url, headers={"authorization": f"Bearer {key}"}, timeout=60, verify=False
    ) as client:
        for number, member in enumerate(MEMBERS):
            whole = member in good and key == KEY
            for value in VALUES if whole else VALUES[number % every :: every]:
                answer = client.post(path, content=json.dumps({**good, member: value}))
                assert answer.status_code in (200, 400, 403, 404), (member, value, answer.text)
