"""Write the reference; ``--check`` writes nothing, and exits 1 when a page is not what the code says."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from scripts.reference import commands, configuration, decisions, environment, errors, http, metrics, tables

ROOT = Path(__file__).parents[2]
PAGES: dict[str, Callable[[], Iterator[str]]] = {
    "docs/reference/configuration.md": configuration.lines,
    "docs/reference/environment.md": environment.lines,
    "docs/reference/commands.md": commands.lines,
    "docs/reference/http.md": http.lines,
    "docs/reference/errors.md": errors.lines,
    "docs/reference/metrics.md": metrics.lines,
    "docs/reference/tables.md": tables.lines,
    "docs/decisions/README.md": decisions.lines,
}


def main() -> int:
    stale = [name for name in PAGES if text(name) != current(name)]
    if "--check" in sys.argv[1:]:
        for name in stale:
            print(f"{name} is not what the code says; run `make reference`", file=sys.stderr)
        return 1 if stale else 0
    for name in stale:
        (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / name).write_text(text(name))
    print(f"wrote {', '.join(stale) or 'nothing new'}")
    return 0


def text(name: str) -> str:
    return "\n".join(PAGES[name]()).rstrip("\n") + "\n"


def current(name: str) -> str:
    path = ROOT / name
    return path.read_text() if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
