"""Does a shell complete what can be typed?"""

import inspect
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from perpetuo.entrypoints.commands.group import COMMANDS, GROUPS, loaded, main

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


@pytest.mark.parametrize("name", COMMANDS)
def test_what_the_list_says_of_a_command_is_what_the_command_says(name: str) -> None:
    """The list imports none of them, so it has the sentence as well."""
    assert inspect.cleandoc(loaded(name).help or "").split("\n\n")[0].replace("\n", " ").startswith(COMMANDS[name])


def test_a_list_of_commands_imports_none() -> None:
    """Each brings a tenth of a second to a second with it."""
    script = (
        "import contextlib, sys; from perpetuo.entrypoints.commands.group import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "print(*(name for name in sys.modules if name.startswith(('perpetuo.', 'httpx', 'sqlalchemy'))))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True)
    ours = "perpetuo.entrypoints perpetuo.entrypoints.commands perpetuo.entrypoints.commands.group"
    assert done.stdout.splitlines()[-1] == ours


def test_a_typing_mistake_gets_the_right_name() -> None:
    """Also without importing anything."""
    result = CliRunner().invoke(main, ["chek"])
    assert result.exit_code == 2
    assert "check" in result.stderr


def test_bash_takes_the_script_and_completes_commands() -> None:
    """Loaded as the help says; `perpetuo co<TAB>` then offers what begins so, `perpetuo keys <TAB>` its own."""
    if shutil.which("bash") is None:
        pytest.skip("there is no bash on this machine")
    script = (
        f'PATH="{PERPETUO.parent}:$PATH"; eval "$(perpetuo completion bash)"; COMP_WORDS=(perpetuo co); COMP_CWORD=1;'
        ' _perpetuo_completion perpetuo co perpetuo; echo "${COMPREPLY[@]}";'
        ' COMPREPLY=(); COMP_WORDS=(perpetuo keys ""); COMP_CWORD=2; _perpetuo_completion perpetuo "" keys;'
        ' echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.splitlines() == ["completion", "hash new rotate"], done.stderr


def test_help_shows_every_command_under_a_heading() -> None:
    """Groups are for people with hundreds of other things to remember."""
    shown = CliRunner().invoke(main, ["--help"]).output
    assert all(title in shown for title in GROUPS)
    assert [name for name in COMMANDS if f"│ {name} " not in shown] == []
