"""Does a server end at once while somebody watches its overview?"""

import time

import httpx
import pytest

from tests.live import ADMIN_KEY, LiveGateway, config_text
from tests.servers import free_port

CONFIG = config_text(
    providers="  - {id: demo, kind: demo}",
    models="  - {name: m, targets: [{provider: demo, model: gpt-3.5-turbo}]}",
    more="server: {drainDelay: 0s}",
)
BEARER = {"authorization": f"Bearer {ADMIN_KEY}"}
AT_ONCE_SECONDS = 45.0
"""A call in flight is given 58 s, and whoever watches has no end of their own."""


@pytest.mark.parametrize("apart", [False, True], ids=["one port", "management port"])
def test_o1_a_server_that_ends_waits_for_nobody_who_watches(redis_url: str, postgres_url: str, *, apart: bool) -> None:
    """Each of two viewers is told that its worker leaves, and the server is gone."""
    port = free_port()
    environ = {"MANAGEMENT_PORT": str(port)} if apart else {}
    with LiveGateway(CONFIG, redis_url=redis_url, database_url=postgres_url, workers=2, environ=environ) as gateway:
        address = f"http://127.0.0.1:{port if apart else gateway.port}/admin/live"
        with (
            httpx.stream("GET", address, headers=BEARER, timeout=60) as one,
            httpx.stream("GET", address, headers=BEARER, timeout=60) as other,
        ):
            lines = [one.iter_lines(), other.iter_lines()]
            for said in lines:
                assert "event: overview" in said
            began = time.monotonic()
            status = gateway.stop()
            took = time.monotonic() - began
            for said in lines:
                assert [line for line in said if line.startswith(("event: end", "data: leaving"))] == [
                    "event: end", "data: leaving",
                ]  # fmt: skip
        assert status == 0, gateway.log()
        assert took < AT_ONCE_SECONDS
