"""
Tests that others wrote for their clients: how is each suite installed, and what does it say of one base URL?

Rule 1: a suite gets a fresh folder, ``var/clients/<name>``, with an environment of its own; its packages are not ours.
Rule 2: versions and hashes are in the lock beside each suite; the package index is whatever the machine is set up for.
Rule 3: a suite is told nothing but the base URL, so that it can't know who answers.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Protocol

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
KEY = "My API Key"
"""What the tests in OpenAI's sdist send. It has spaces, so a configuration can only name its hash."""

Outcomes = dict[str, str]
"""``passed``, ``failed`` or ``skipped``, by the name of the test."""


class Suite(Protocol):
    """Tests of one client."""

    name: str
    at_least: int
    """So many have to pass directly, or the comparison says nothing."""

    def install(self) -> str:
        """Into a fresh folder; what was installed, for the report."""

    def run(self, base_url: str) -> Outcomes: ...


def fresh(name: str) -> Path:
    place = ROOT / "var" / "clients" / name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    return place


def run(*command: str | Path, cwd: Path, failing: bool = False, **environ: str) -> str:
    """Its output; unless ``failing`` is all right, an exit other than 0 is an error that shows it."""
    ours = ("PYTEST_", "OPENAI_", "VIRTUAL_ENV", "TEST_API")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environ = {**clean, **environ}
    out, both = subprocess.PIPE, subprocess.STDOUT
    done = subprocess.run(command, check=False, cwd=cwd, env=environ, stdout=out, stderr=both, text=True)
    assert failing or done.returncode == 0, f"{command} in {cwd} ended with {done.returncode}:\n{done.stdout[-4_000:]}"
    return done.stdout


def virtual_environment(place: Path, lock: Path) -> Path:
    """A Python with exactly what the lock names."""
    uv = Path(sys.executable).with_name("uv")
    run(uv, "venv", "--quiet", "--python", sys.executable, "venv", cwd=place)
    run(uv, "pip", "install", "--quiet", "--no-deps", "--require-hashes", "-r", lock, cwd=place, VIRTUAL_ENV="venv")
    return place / "venv" / "bin" / "python"


def python_with_pip() -> Path:
    """Ours, or the one that ours was made from: the Makefile makes an environment without pip where it can."""
    own = importlib.util.find_spec("pip") is not None
    return Path(sys.executable) if own else Path(sys.base_prefix) / "bin" / "python3"


def pytest_outcomes(python: Path, cwd: Path, base_url: str, *arguments: str) -> Outcomes:
    """Run their pytest with their configuration, but without their ``addopts``."""
    report = cwd / "report.xml"
    report.unlink(missing_ok=True)
    command: list[str | Path] = [python, "-m", "pytest", "-o", "addopts=", "-q", "-p", "no:cacheprovider"]
    said = run(*command, f"--junit-xml={report}", *arguments, cwd=cwd, failing=True, TEST_API_BASE_URL=base_url)
    assert report.exists(), said
    found = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - written by the pytest we have just run
        inside = {child.tag for child in case}
        outcome = "failed" if inside & {"failure", "error"} else "skipped" if "skipped" in inside else "passed"
        found[f"{case.get('classname')}::{case.get('name')}"] = outcome
    return found


def version(lock: Path, package: str) -> str:
    match = re.search(rf"^{package}==(\S+)", lock.read_text(), re.MULTILINE)
    assert match is not None, f"{package} is not in {lock}"
    return f"{package} {match.group(1)}"


class OpenAISdist:
    """The tests inside OpenAI's source distribution, of the version that our own tests use."""

    name = "openai"
    at_least = 90
    tests = ("tests/api_resources/chat/test_completions.py", "tests/api_resources/test_models.py")
    lock = HERE / "openai" / "requirements.txt"

    def install(self) -> str:
        place = fresh(self.name)
        self.python = virtual_environment(place, self.lock)
        (place / "sdist.txt").write_text(pinned("openai", self.lock))
        pip = (python_with_pip(), "-m", "pip", "download", "--quiet", "--disable-pip-version-check")
        run(*pip, "--no-deps", "--no-binary", ":all:", "--require-hashes", "-r", "sdist.txt", cwd=place)
        (archive,) = place.glob("openai-*.tar.gz")
        run("tar", "-xzf", archive.name, cwd=place)  # Python's own can be told to be careful only from 3.11.4 on
        self.sources = place / archive.name.removesuffix(".tar.gz")
        return version(self.lock, "openai")

    def run(self, base_url: str) -> Outcomes:
        more = "tests/api_resources/test_embeddings.py"
        return pytest_outcomes(self.python, self.sources, base_url, *self.tests, more)


def pinned(package: str, lock: Path) -> str:
    """The lines of one package, with its hashes."""
    match = re.search(rf"^{package}(\[\S*\])?==(\S+)( \\\n    --hash=\S+)+", lock.read_text(), re.MULTILINE)
    assert match is not None, f"{package} is not in {lock}"
    return match.group(0) + "\n"


class LangChain:
    """The tests that LangChain gives to whoever writes a chat model, for its own client of OpenAI's API."""

    name = "langchain"
    at_least = 30
    lock = HERE / "langchain" / "requirements.txt"

    def install(self) -> str:
        place = fresh(self.name)
        self.python = virtual_environment(place, self.lock)
        self.place = place / "suite"
        shutil.copytree(HERE / "langchain", self.place)
        return ", ".join(version(self.lock, package) for package in ("langchain-openai", "langchain-tests"))

    def run(self, base_url: str) -> Outcomes:
        return pytest_outcomes(self.python, self.place, base_url, "chat_model.py")


class Vercel:
    """Vercel's AI SDK with its provider for OpenAI-compatible servers. The cases are ours: its own tests mock HTTP."""

    name = "vercel"
    at_least = 10
    sources = HERE / "vercel"

    def install(self) -> str:
        assert shutil.which("npm"), "this client needs node 20 or newer, and npm"
        self.place = fresh(self.name) / "suite"
        shutil.copytree(self.sources, self.place)
        run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", cwd=self.place)
        wanted = json.loads((self.sources / "package.json").read_text())["dependencies"]
        node = run("node", "--version", cwd=self.place).strip()
        return ", ".join([*(f"{name} {number}" for name, number in wanted.items()), f"node {node}"])

    def run(self, base_url: str) -> Outcomes:
        said = run("node", "cases.mjs", cwd=self.place, TEST_API_BASE_URL=base_url)
        cases = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        return {case["name"]: "passed" if case["error"] is None else "failed" for case in cases}


SUITES: tuple[Suite, ...] = (OpenAISdist(), LangChain(), Vercel())
