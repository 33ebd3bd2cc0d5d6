"""Are new keys strong, shown once, and known to the configuration by their hash?"""

import base64
from hashlib import sha256

from click.testing import CliRunner

from perpetuo.adapters.configfile.kinds import KEY
from perpetuo.entrypoints.commands.group import main
from perpetuo.entrypoints.commands.keys import hash_line, new_key


def test_contract_a_new_key_has_at_least_160_random_bits() -> None:
    """``sk-`` and 24 random bytes; no two are alike."""
    made = {new_key() for _ in range(100)}
    assert len(made) == 100
    assert all(len(base64.urlsafe_b64decode(key.removeprefix("sk-"))) * 8 >= 160 for key in made)


def test_contract_keys_new_prints_the_key_and_its_hash_line() -> None:
    """On a pipe two plain lines; the second is what the configuration takes for the first."""
    result = CliRunner().invoke(main, ["keys", "new"])
    key, line = result.stdout.splitlines()
    assert result.exit_code == 0
    assert line == hash_line(key)
    assert KEY.read(line) == KEY.read(key) == sha256(key.encode()).digest()
