"""Does `perpetuo breaker` do to a running gateway what it says?"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live import ADMIN_KEY, LiveGateway, config_text, eventually

CONFIG = config_text(
    providers="  - {id: demo, kind: demo}",
    models="  - {name: m, targets: [{provider: demo, model: gpt-3.5-turbo}], free: true}",
)


def perpetuo(gateway: LiveGateway, *arguments: str, key: str = ADMIN_KEY) -> "subprocess.CompletedProcess[str]":
    """A command as somebody on the same machine would type it."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PERPETUO_", "REDIS_", "DATABASE_"))}
    environ = kept | {"PERPETUO_URL": gateway.url, "PERPETUO_ADMIN_KEY": key}
    command = [str(Path(sys.executable).with_name("perpetuo")), *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30, check=False)


@pytest.fixture
def gateway(redis_url: str, postgres_url: str) -> "LiveGateway":
    return LiveGateway(CONFIG, redis_url=redis_url, database_url=postgres_url, workers=2)


def test_a_provider_is_taken_out_and_let_in_again(gateway: LiveGateway) -> None:
    """Calls get 503 on every worker, then 200 again; the history and an event tell of it."""
    with gateway:
        assert gateway.chat().status_code == 200
        opened = perpetuo(gateway, "breaker", "open", "demo", "--for", "5m")
        assert (opened.returncode, opened.stdout) == (0, "The breaker of demo was opened on all workers.\n")
        eventually(lambda: all(gateway.chat().status_code == 503 for _ in range(6)))
        listed = perpetuo(gateway, "breaker", "list").stdout.splitlines()
        assert listed[0].split()[:2] == ["PROVIDER", "BREAKER"]
        assert listed[1].split()[:2] == ["demo", "open"]
        reset = perpetuo(gateway, "breaker", "reset", "demo")
        assert (reset.returncode, reset.stdout) == (0, "The breaker of demo was closed on all workers.\n")
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
    with gateway:
        nobody = perpetuo(gateway, "breaker", "reset", "nobody")
        assert (nobody.returncode, nobody.stderr) == (1, "There is no provider nobody.\n")
        wrong = perpetuo(gateway, "breaker", "list", key="wrong-key-wrong-key-wrong-key")
        assert wrong.returncode == 1
        assert "refused PERPETUO_ADMIN_KEY" in wrong.stderr
        for arguments in (("demo",), ("demo", "--for", "soon"), ("demo", "--for", "25h"), ("demo", "--for", "0s")):
            refused = perpetuo(gateway, "breaker", "open", *arguments)
            assert refused.returncode == 2
            assert "Traceback" not in refused.stderr
        assert gateway.chat().status_code == 200
