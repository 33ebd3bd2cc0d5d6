"""What does a command say when the gateway it asks is away, refuses, or is something else?"""

import socket
import ssl
import subprocess
from pathlib import Path

import pytest
import rich_click as click
from click.testing import CliRunner, Result

from perpetuo.entrypoints.commands.remote import Remote, as_json, asks_a_gateway
from perpetuo.entrypoints.commands.tables import show_table
from tests.unit.commands.gateways import ADMIN_KEY, Canned, refusal, serving


@click.command()
@asks_a_gateway
@as_json
@click.option("--act", is_flag=True)
def look(gateway: Remote, json: bool, act: bool) -> None:
    """A command such as the real ones."""
    query: dict[str, str | int | None] = {"tenant_id": "a&b", "status": 429, "model": None}
    found = gateway.post("/breaker", {"action": "close"}) if act else gateway.get("/events", query)
    if json:
        click.echo(found.raw)
    else:
        show_table(["name", "n"], [[name, n] for name, n in found.facts.items()], right=["n"])


def run(*arguments: str, **env: str | None) -> Result:
    alone = {"PERPETUO_ADMIN_KEY": ADMIN_KEY, "PERPETUO_URL": None, "PORT": None, "MANAGEMENT_PORT": None}
    return CliRunner().invoke(look, arguments, env={**alone, **env})


def test_a_gateway_is_asked_with_the_key_and_the_filters_that_are_set() -> None:
    """What is None is left out, the rest is escaped; the key goes as a bearer."""
    with serving(Canned(body=b'{"m": 12}')) as (url, seen):
        result = run("--url", url)
    (method, path, headers) = seen[0]
    assert (method, path) == ("GET", "/admin/api/events?tenant_id=a%26b&status=429")
    assert {name.lower(): value for name, value in headers.items()}["authorization"] == f"Bearer {ADMIN_KEY}"
    assert (result.exit_code, result.stdout) == (0, "name   n\nm     12\n")


def test_json_is_what_the_gateway_said() -> None:
    """Byte for byte, spaces too."""
    with serving(Canned(body=b'{"m":   1.50}')) as (url, _):
        assert run("--json", PERPETUO_URL=url).stdout == '{"m":   1.50}\n'


def test_the_address_comes_from_the_environment() -> None:
    """MANAGEMENT_PORT before PORT, PERPETUO_URL before both, --url before all; /admin at its end is forgiven."""
    with serving(Canned()) as (url, seen):
        port = url.rpartition(":")[2]
        assert run(PORT=port).exit_code == 0
        assert run(PORT="1", MANAGEMENT_PORT=port).exit_code == 0
        assert run(PORT="1", PERPETUO_URL=f"{url}/admin/").exit_code == 0
        assert run("--url", url, PERPETUO_URL="http://127.0.0.1:1").exit_code == 0
    assert [path.partition("?")[0] for _, path, _ in seen] == ["/admin/api/events"] * 4


def test_the_key_may_come_from_a_file_and_is_never_an_option(tmp_path: Path) -> None:
    """`ps` shows arguments to everybody."""
    file = tmp_path / "key"
    file.write_text(ADMIN_KEY + "\n")
    with serving(Canned()) as (url, _):
        assert run("--url", url, PERPETUO_ADMIN_KEY=None, PERPETUO_ADMIN_KEY_FILE=str(file)).exit_code == 0
    assert "--admin-key" not in run("--help").output


@pytest.mark.parametrize(
    "url", ["3000", "ftp://h", "http://", "http://u:p@h", "http://h/?q=1", "http://[::1", "http://h\n"]
)
def test_an_address_that_is_none_is_told_apart(url: str) -> None:
    """Exit 2, what it should look like, and nothing of what was given: it may hold a password."""
    result = run("--url", url)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "has to look like http://127.0.0.1:3000" in result.stderr
    assert ":p@" not in result.stderr


def test_no_key_says_where_one_comes_from() -> None:
    """Exit 2: it was asked for wrongly."""
    result = run(PERPETUO_ADMIN_KEY=None)
    assert result.exit_code == 2
    assert "PERPETUO_ADMIN_KEY is not set" in result.stderr


def test_nothing_listens() -> None:
    """The address, and how to name another."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        result = run("--url", url)
    assert result.exit_code == 1
    assert f"Nothing answers at {url}" in result.stderr
    assert "Traceback" not in result.output


SAID = [
    (refusal(401, "invalid_api_key", "This is not an admin key."), 1, "refused PERPETUO_ADMIN_KEY: This is not"),
    (refusal(429, "rate_limit_exceeded", "Too many. Try again in 9 s."), 1, "Try again in 9 s."),
    (refusal(403, "read_only_key", "The key bob has the role read."), 1, "Use a key with the role write."),
    (refusal(400, "invalid_request", "The parameter `status` must be one."), 2, "The parameter `status` must be one."),
    (refusal(404, "not_found", "There is nothing at /admin/api/x."), 1, "older than this command"),
    (refusal(405, "method_not_allowed", "POST is not possible here."), 1, "older than this command"),
    (refusal(404, "not_found", "There is no event with this id."), 1, "There is no event with this id."),
    (refusal(503, "store_unavailable", "The event table is away."), 1, "The event table is away."),
    (Canned(200, b"<html>hello</html>", (("content-type", "text/html"),)), 1, "not as a Perpetuo gateway does"),
    (Canned(404, b"<html>no</html>"), 1, "answered 404, but not as a Perpetuo gateway does"),
    (Canned(500, b'{"error": "boom"}'), 1, "answered 500, but not as a Perpetuo gateway does"),
    (Canned(302, b"", (("location", "https://login.example/x"),)), 1, "It wants to send you to https://login.example/x"),
]  # fmt: skip


@pytest.mark.parametrize(("canned", "status", "sentence"), SAID, ids=lambda v: v if isinstance(v, str) else None)
def test_each_refusal_is_a_sentence_and_an_exit_status(canned: Canned, status: int, sentence: str) -> None:
    """What the gateway said, and what to do; no traceback, nothing on stdout, and one request only."""
    with serving(canned) as (url, seen):
        result = run("--url", url, "--act")
    assert (result.exit_code, result.stdout) == (status, "")
    assert sentence in result.stderr
    assert ADMIN_KEY not in result.output
    assert len(seen) == 1


def test_a_certificate_that_is_not_trusted(tmp_path: Path) -> None:
    """What TLS found wrong and SSL_CERT_FILE; the key is not sent. With the authority named, it works."""
    pem = tmp_path / "pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-keyout", str(pem), "-out", str(tmp_path / "crt"), "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    pem.write_text(pem.read_text() + (tmp_path / "crt").read_text())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with serving(Canned(), tls=context) as (url, seen):
        result = run("--url", url)
        assert seen == []
        assert run("--url", url, SSL_CERT_FILE=str(tmp_path / "crt")).exit_code == 0
    assert result.exit_code == 1
    assert "self-signed certificate" in result.stderr
    assert "SSL_CERT_FILE" in result.stderr


def test_a_table_on_a_pipe_is_plain_and_can_not_steer_a_terminal() -> None:
    """Escapes of a tenant's name are shown, wide characters count double, and markup is text."""
    with serving(Canned(body='{"\\u001b[2J": 1, "日本": 20, "[b]x[/b]": 300}'.encode())) as (url, _):
        lines = run("--url", url).stdout.splitlines()
    assert lines == ["name        n", "\\x1b[2J     1", "日本       20", "[b]x[/b]  300"]
