"""Does the tutorial work as it is written?"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
STEP = re.compile(r"^```sh\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
ASSIGNMENT = re.compile(r"^(?:export )?[A-Z_]+=\S*(?:\(.*\))?$", re.MULTILINE)
SERVER = "perpetuo dev"
PATIENCE = 20.0


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
        return number


@pytest.fixture
def environment(port: int, tmp_path: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(tmp_path), "PORT": str(port)}


@pytest.fixture
def steps(port: int) -> list[tuple[str, str]]:
    page = (ROOT / "docs" / "tutorial.md").read_text().replace("localhost:3000", f"127.0.0.1:{port}")
    return STEP.findall(page)


@pytest.fixture
def server(steps: list[tuple[str, str]], environment: dict[str, str], tmp_path: Path) -> Iterator[list[str]]:
    """Prepared by the steps before it, and started by its own; gives the steps that follow."""
    at = next(i for i, (command, _) in enumerate(steps) if SERVER in command)
    for command, expected in steps[:at]:
        assert said(run(command, environment, tmp_path), expected)
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            ["sh", "-c", steps[at][0]], env=environment, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True
        )
        try:
            live = f"curl -s http://127.0.0.1:{environment['PORT']}/health/live"
            until_said(live, "live", environment, tmp_path)
            yield [command for command, _ in steps[: at + 1]]
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_every_command_of_the_tutorial_does_what_the_page_says(
    server: list[str], steps: list[tuple[str, str]], environment: dict[str, str], tmp_path: Path
) -> None:
    """Each block of commands is run, and each line that the page shows comes."""
    assert len(steps) - len(server) > 8
    before = [line for command in server for line in ASSIGNMENT.findall(command)]
    for command, expected in steps[len(server) :]:
        script = "\n".join([*before, command])
        if " -d " in command:  # a call is made once
            output = run(script, environment, tmp_path)
            assert said(output, expected), output
        else:
            until_said(script, expected, environment, tmp_path)
        before += ASSIGNMENT.findall(command)


def run(script: str, environment: dict[str, str], folder: Path) -> str:
    done = subprocess.run(
        ["sh", "-c", script], env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=50
    )
    return done.stdout + done.stderr


def until_said(script: str, expected: str, environment: dict[str, str], folder: Path) -> None:
    """What is only looked at may be looked at again."""
    end = time.monotonic() + PATIENCE
    while not said(output := run(script, environment, folder), expected):
        assert time.monotonic() < end, output
        time.sleep(0.1)


def said(output: str, expected: str) -> bool:
    """Are all lines there, in this order? An ellipsis stands for anything."""
    pieces = [re.escape(piece) for line in expected.splitlines() for piece in re.split("…", line.strip()) if piece]
    return re.search(".*?".join(pieces), output.replace("\r", ""), re.DOTALL) is not None
