"""Does `perpetuo breaker` do to a running gateway what it says?"""

import json
from collections.abc import Iterator

import pytest
from click.testing import Result

from tests import commands
from tests.live import ADMIN_KEY, LiveGateway, config_text, eventually
from tests.servers import RedisServer

CONFIG = config_text(
    providers="  - {id: demo, kind: demo}",
    models="  - {name: m, targets: [{provider: demo, model: gpt-3.5-turbo}], free: true}",
)


def perpetuo(gateway: LiveGateway, *arguments: str, key: str = ADMIN_KEY) -> Result:
    """A command as somebody on the same machine would type it."""
    return commands.perpetuo(*arguments, PERPETUO_URL=gateway.url, PERPETUO_ADMIN_KEY=key)


@pytest.fixture(scope="module")
def gateway(redis_here: RedisServer, database_here: str) -> Iterator[LiveGateway]:
    with LiveGateway(CONFIG, redis_url=redis_here.url, database_url=database_here, workers=2) as running:
        yield running


def test_a_provider_is_taken_out_and_let_in_again(gateway: LiveGateway) -> None:
    """Calls get 503 on every worker, then 200 again; the history and an event tell of it."""
    assert gateway.chat().status_code == 200
    opened = perpetuo(gateway, "breaker", "open", "demo", "--for", "5m")
    assert (opened.exit_code, opened.stdout) == (0, "The breaker of demo was opened on all workers.\n")
    eventually(lambda: all(gateway.chat().status_code == 503 for _ in range(6)))
    listed = perpetuo(gateway, "breaker", "list").stdout.splitlines()
    assert listed[0].split()[:2] == ["PROVIDER", "BREAKER"]
    assert listed[1].split()[:2] == ["demo", "open"]
    reset = perpetuo(gateway, "breaker", "reset", "demo")
    assert (reset.exit_code, reset.stdout) == (0, "The breaker of demo was closed on all workers.\n")
    eventually(lambda: all(gateway.chat().status_code == 200 for _ in range(6)))
    shown = perpetuo(gateway, "breaker", "show", "demo").stdout
    assert [line.split()[2] for line in shown.splitlines() if "by an operator" in line and ":" in line] == [
        "closed",
        "open",
    ]
    found = json.loads(perpetuo(gateway, "breaker", "show", "demo", "--json").stdout)
    assert [change["cause"] for change in found["history"]["items"]] == ["operator", "operator"]


def test_what_can_not_be_done_is_a_sentence_and_a_status(gateway: LiveGateway) -> None:
    """1: there is no such provider, or the key is wrong; 2: no span, a span too long."""
    nobody = perpetuo(gateway, "breaker", "reset", "nobody")
    assert (nobody.exit_code, nobody.stderr) == (1, "There is no provider nobody.\n")
    wrong = perpetuo(gateway, "breaker", "list", key="wrong-key-wrong-key-wrong-key")
    assert wrong.exit_code == 1
    assert "refused PERPETUO_ADMIN_KEY" in wrong.stderr
    for arguments in (("demo",), ("demo", "--for", "soon"), ("demo", "--for", "25h"), ("demo", "--for", "0s")):
        refused = perpetuo(gateway, "breaker", "open", *arguments)
        assert refused.exit_code == 2
        assert "Traceback" not in refused.stderr
    assert gateway.chat().status_code == 200
