"""Does a shell complete what can be typed?"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from perpetuo.entrypoints.commands.group import COMMANDS, GROUPS, main

PERPETUO = Path(sys.executable).with_name("perpetuo")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(shell: str) -> None:
    """click's own, for the name `perpetuo`."""
    result = CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0
    assert f"_PERPETUO_COMPLETE={shell}_complete" in result.stdout


def test_another_shell_is_told_which_there_are() -> None:
    """Exit 2, with the three names."""
    result = CliRunner().invoke(main, ["completion", "tcsh"])
    assert result.exit_code == 2
    assert all(shell in result.stderr for shell in ("bash", "zsh", "fish"))


def test_bash_takes_the_script_and_completes_commands() -> None:
    """Loaded as the help says; `perpetuo co<TAB>` then offers what begins so."""
    if shutil.which("bash") is None:
        pytest.skip("there is no bash on this machine")
    script = (
        f'PATH="{PERPETUO.parent}:$PATH"; eval "$(perpetuo completion bash)"; COMP_WORDS=(perpetuo co); COMP_CWORD=1;'
        ' _perpetuo_completion perpetuo co perpetuo; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=50, check=False)
    assert done.stdout.split() == ["completion"], done.stderr


def test_help_shows_every_command_under_a_heading() -> None:
    """Groups are for people with hundreds of other things to remember."""
    shown = CliRunner().invoke(main, ["--help"]).output
    assert all(title in shown for title in GROUPS)
    assert [name for name in COMMANDS if f"│ {name} " not in shown] == []
