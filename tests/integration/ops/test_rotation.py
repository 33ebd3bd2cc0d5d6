"""Does a rotation work on a running gateway, from the first call with the new key to the last with the old one?"""

import re
import stat
from pathlib import Path

from click.testing import Result

from tests import commands
from tests.live import KEY, LiveGateway, config_text, eventually

CONFIG = config_text(
    providers="  - {id: demo, kind: demo}",
    models="  - {name: m, targets: [{provider: demo, model: gpt-3.5-turbo}], free: true}",
)


def rotate(path: Path, *arguments: str) -> Result:
    return commands.perpetuo("keys", "rotate", *arguments, PERPETUO_CONFIG_PATH=str(path))


def test_both_keys_are_good_until_the_grace_is_over(redis_url: str, postgres_url: str) -> None:
    """The gateway takes the file over by itself; afterwards the old key gets 401 `api_key_expired`, the new one 200."""
    with LiveGateway(CONFIG, redis_url=redis_url, database_url=postgres_url) as gateway:
        path = gateway.config_path
        path.chmod(0o640)
        done = rotate(path, "acme", "key-1", "--grace", "1h", "--write")
        assert done.exit_code == 0, done.stderr
        new = done.stdout.splitlines()[0]
        assert KEY not in path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert [entry.name for entry in path.parent.iterdir() if entry.name.startswith(".")] == []
        eventually(lambda: gateway.chat(new).status_code == 200)
        assert gateway.chat(KEY).status_code == 200
        # nobody waits an hour: the old key's end is brought forward, and the gateway takes that over as well
        path.write_text(re.sub(r'expires: "[^"]+"', 'expires: "2026-01-01T00:00:00Z"', path.read_text()))
        eventually(lambda: gateway.chat(KEY).status_code == 401)
        assert gateway.chat(KEY).json()["error"]["code"] == "api_key_expired"
        assert gateway.chat(new).status_code == 200


def test_a_file_is_left_alone_when_nothing_can_be_done(tmp_path: Path) -> None:
    """Without ``--write``, for a key that is not there, and for a file that is not valid."""
    path = tmp_path / "perpetuo.config.yaml"
    path.write_text(CONFIG)
    printed = rotate(path, "acme", "key-1")
    assert (printed.exit_code, len(printed.stdout.splitlines())) == (0, 3)
    nobody = rotate(path, "acme", "nobody", "--write")
    assert (nobody.exit_code, nobody.stdout) == (1, "")
    assert nobody.stderr == "Nothing was changed: Tenant acme has no key nobody. It has: key-1.\n"
    assert rotate(path, "acme", "key-1", "--grace", "soon").exit_code == 2
    assert path.read_text() == CONFIG
    path.write_text("providers: 5\n")
    broken = rotate(path, "acme", "key-1", "--write")
    assert (broken.exit_code, broken.stdout, path.read_text()) == (2, "", "providers: 5\n")
