"""
Installs the other gateways into ``.peers``: ``python -m bench.peers.install``.

Each gets an environment of its own, from a lock with hashes beside its configuration. One that can't be installed is
named, and the others still are.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from bench.peers import HERE, PLACE


def litellm() -> None:
    place, uv = PLACE / "litellm", Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, place], check=True)
    options = ["--quiet", "--compile-bytecode", "--no-deps", "--require-hashes", "--python", str(place)]
    subprocess.run([uv, "pip", "install", *options, "-r", HERE / "litellm" / "requirements.txt"], check=True)


def portkey() -> None:
    place = PLACE / "portkey"
    place.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / "portkey" / name, place / name)
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run(["npm", "ci", *options], check=True, cwd=place)


def main() -> int:
    for name, install, lock in (
        ("LiteLLM", litellm, HERE / "litellm" / "requirements.txt"),
        ("Portkey", portkey, HERE / "portkey" / "package-lock.json"),
    ):
        mark = PLACE / f"{name}.installed"
        if mark.exists() and mark.read_bytes() == lock.read_bytes():
            continue
        print(f"Installing {name} into {PLACE.name} …", flush=True)
        try:
            install()
            mark.write_bytes(lock.read_bytes())
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
