"""Are new keys strong, shown once, and known to the configuration by their hash?"""

import base64
from hashlib import sha256

import pytest
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


def test_keys_hash_reads_the_key_and_prints_its_line() -> None:
    """From standard input, with or without the end of its line; the key is not repeated."""
    for typed in ("sk-a-key-of-24-characters", "sk-a-key-of-24-characters\n"):
        result = CliRunner().invoke(main, ["keys", "hash"], input=typed)
        assert (result.exit_code, result.stdout) == (0, hash_line("sk-a-key-of-24-characters") + "\n")


@pytest.mark.parametrize("typed", ["", "two words", "k" * 513, "schlüssel-schlüssel-schlüssel", f"sha256:{'0' * 64}"])
def test_keys_hash_refuses_what_is_no_key(typed: str) -> None:
    """With a sentence that does not repeat it, and exit status 2."""
    result = CliRunner().invoke(main, ["keys", "hash"], input=typed)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr
    assert not typed or typed not in result.stderr


def test_keys_hash_warns_of_a_key_that_can_be_guessed() -> None:
    """It is hashed all the same."""
    result = CliRunner().invoke(main, ["keys", "hash"], input="hunter2")
    assert (result.exit_code, result.stdout) == (0, hash_line("hunter2") + "\n")
    assert "can be guessed" in result.stderr


def test_a_key_is_never_an_argument() -> None:
    """Everybody on the machine could read it."""
    assert CliRunner().invoke(main, ["keys", "hash", "sk-a-key-of-24-characters"]).exit_code == 2
