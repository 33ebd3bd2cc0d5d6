"""What `serve` refuses to start with, what it warns of, and what `dev` decides by itself."""

import socket
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from perpetuo.entrypoints import dev, serve
from tests.servers import free_port

PAID = """
providers: [{id: paid, kind: openai, baseUrl: "https://api.example.com/v1", apiKey: "sk-provider"}]
models: [{name: gpt-3.5-turbo, targets: [{provider: paid, model: gpt-3.5-turbo}]}]
plans: [{id: pro, limits: {budgetDay: 5}, models: ["*"]}]
tenants: [{id: acme, plan: pro, apiKeys: ["KEY"]}]
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    config = tmp_path / "perpetuo.config.yaml"
    config.write_text(PAID.replace("KEY", "sk-one-of-our-own-keys-1234567"))
    return {
        "PERPETUO_CONFIG_PATH": str(config),
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
        "REDIS_URL": "redis://127.0.0.1:1",
        "PORT": str(free_port()),
    }


prepare = partial(serve.prepare, look=serve.examine)
"""In this process: a nursery would import the whole gateway for these tests."""


def reasons(environ: dict[str, str]) -> str:
    with pytest.raises(serve.StartRefusedError) as refused:
        prepare(environ)
    return str(refused.value)


def warnings(prepared: serve.Prepared) -> dict[str, Mapping[str, Any]]:
    told: dict[str, Mapping[str, Any]] = {}
    serve.warn(prepared, lambda _level, event, fields: told.update({event: fields}))
    return told


def test_o2_stores_that_are_away_are_no_reason(environ: dict[str, str]) -> None:
    """A gateway that answers 503 and says why is better than none."""
    assert prepare(environ).environment.port == int(environ["PORT"])


def test_no_database_names_the_way_out(environ: dict[str, str]) -> None:
    """Somebody who typed `serve` to have a look is told of `perpetuo dev`."""
    del environ["DATABASE_URL"]
    assert "perpetuo dev" in reasons(environ)


def test_published_keys_are_refused(environ: dict[str, str]) -> None:
    """A key from our documentation would let anybody spend the operator's money."""
    Path(environ["PERPETUO_CONFIG_PATH"]).write_text(PAID.replace("KEY", "sk-new-key"))
    assert "perpetuo keys new" in reasons(environ)
    assert prepare(environ, production=False).drain_delay == 5


def test_every_reason_is_given_at_once(environ: dict[str, str]) -> None:
    """The configuration's problems come with the others, in one go."""
    del environ["DATABASE_URL"]
    Path(environ["PERPETUO_CONFIG_PATH"]).write_text(PAID.replace("budgetDay: 5", "budgetDay: -5, rate: 1"))
    text = reasons(environ)
    assert "DATABASE_URL" in text
    assert text.count("perpetuo.config.yaml:") == 2


def test_a_port_in_use_is_refused(environ: dict[str, str]) -> None:
    """Two servers would share the port, and each get half of the calls."""
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other:
        environ["PORT"] = str(other.getsockname()[1])
        assert "set PORT" in reasons(environ)


def test_an_admin_key_is_made_up_once_for_all_workers(environ: dict[str, str]) -> None:
    """It goes into the environment that the workers inherit, and into one warning."""
    prepared = prepare(environ)
    assert environ["PERPETUO_ADMIN_KEY"] == prepared.admin_key
    assert warnings(prepared)["admin_key_made_up"]["admin_key"] == prepared.admin_key
    again = prepare(environ)
    assert again.admin_key is None
    assert warnings(again) == {}


def test_open_metrics_are_warned_of(environ: dict[str, str]) -> None:
    """Beyond loopback somebody has to choose who may see the numbers."""
    environ["HOST"] = "0.0.0.0"
    assert "management_open" in warnings(prepare(environ))
    environ["PERPETUO_METRICS_TOKEN"] = "token"
    assert "management_open" not in warnings(prepare(environ))


def test_dev_uses_the_configuration_at_hand(tmp_path: Path) -> None:
    """In a checkout: its own file and var/; elsewhere: the packaged sample and the state directory."""
    (tmp_path / "perpetuo.config.yaml").write_text(PAID)
    environ = {"XDG_STATE_HOME": str(tmp_path / "state"), "REDIS_URL": "redis://elsewhere"}
    assert dev.choose(environ, tmp_path) == tmp_path / "var" / "perpetuo.sqlite3"
    assert environ["REDIS_URL"] == "memory://"
    del environ["PERPETUO_CONFIG_PATH"]
    (tmp_path / "empty").mkdir()
    assert dev.choose(environ, tmp_path / "empty") == tmp_path / "state/perpetuo/perpetuo.sqlite3"
    assert Path(environ["PERPETUO_CONFIG_PATH"]).is_file()


def test_the_curl_line_is_one_command() -> None:
    """It can be pasted into a shell as it stands."""
    text = "\n".join(dev.curl("http://127.0.0.1:3000", "sk-perpetuo-pro-1", "gpt-3.5-turbo"))
    assert text.count("\\\n") == 2
    assert """-d '{"model": "gpt-3.5-turbo",""" in text


HEAVY = {"alembic", "httpx", "jinja2", "litestar", "rich", "sqlalchemy"}


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("perpetuo", {"attr", "click", "granian", *HEAVY}),
        ("perpetuo.entrypoints.cli", {"attr", "click", "granian", *HEAVY}),
        ("perpetuo.entrypoints.commands.healthcheck", {"granian", *HEAVY}),
        ("perpetuo.entrypoints.commands.serve", {"asyncpg", "cattrs", "redis", "yaml", *HEAVY}),
        (
            "perpetuo.entrypoints.process.cradle",
            {"alembic", "click", "google", "httpx", "rich"},
        ),  # google.protobuf: traces are off
    ],
)
def test_nothing_is_imported_that_a_start_does_not_need(module: str, unwanted: set[str]) -> None:
    """Imports are most of a start: each process has its own, and the program itself none before it answers signals."""
    script = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {*done.stdout.split()} & unwanted
