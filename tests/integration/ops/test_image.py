"""Does what the Dockerfile does work, as far as that can be seen without a daemon?"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import free_port

ROOT = Path(__file__).parents[3]
CONTEXT = (
    "requirements-otel.txt",
    "requirements-build.txt",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "perpetuo.config.yaml",
)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_image_can_be_built_and_runs(tmp_path: Path) -> None:
    """The build stage's own commands, in directories of our own; then the installed program in an empty place."""
    source, image = tmp_path / "src", tmp_path / "opt"
    source.mkdir()
    for name in CONTEXT:
        shutil.copy(ROOT / name, source)
    for name in ("alembic", "perpetuo"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    stage = (ROOT / "Dockerfile").read_text().split("\nFROM ")[1].replace("\\\n", " ")
    places = {"/opt/perpetuo": str(image), "/build": str(tmp_path / "build"), "/dist": str(tmp_path / "dist")}
    python = Path(os.environ.get("IMAGE_PYTHON", sys.executable)).parent  # the image's own is 3.13
    environ = {**os.environ, "PATH": f"{python}:{os.environ['PATH']}"}
    for command in re.findall(r"^RUN (.*)$", stage, re.MULTILINE):
        command_here = re.sub("|".join(places), lambda found: places[found[0]], command)
        subprocess.run(["sh", "-ec", command_here], cwd=source, env=environ, check=True, timeout=400)
    _try(image / "bin" / "perpetuo", tmp_path / "empty")


def _try(perpetuo: Path, here: Path) -> None:
    here.mkdir()
    environ = {"PATH": os.environ["PATH"], "HOME": str(here), "DATABASE_URL": f"sqlite:///{here}/events.sqlite3"}

    def run(*arguments: str, **more: str) -> str:
        command = [str(perpetuo), *arguments]
        done = subprocess.run(command, cwd=here, env={**environ, **more}, capture_output=True, text=True, check=True)
        return done.stdout

    assert "before: None" in run("migrate")
    assert run("keys", "new").startswith("sk-")
    port = str(free_port())
    with subprocess.Popen(
        [str(perpetuo), "dev"], cwd=here, env={**environ, "PORT": port}, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert any("Ctrl-C" in line for line in process.stdout)
            run("healthcheck", PORT=port)
        finally:
            process.terminate()
