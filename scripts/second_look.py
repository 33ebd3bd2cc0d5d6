"""
Look once more at the tests that failed: alone, three times over (docs/decisions/0035-…).

    .venv/bin/python -m pytest --cache-clear … || .venv/bin/python scripts/second_look.py $?

Exits with 0 if every one of them passed each time, and then says which they were; else as the first run did.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROUNDS = 3
AT_MOST = 10  # more than that is no accident
TESTS_FAILED = 1  # pytest's exit status; others are about collecting, or about pytest itself


def failed(root: Path) -> list[str]:
    """The tests that pytest wrote down as failed, in setup and teardown as well."""
    written = root / ".pytest_cache" / "v" / "cache" / "lastfailed"
    return sorted(json.loads(written.read_text())) if written.exists() else []


def passes_alone(tests: list[str], root: Path) -> bool:
    """One round. What is set for the whole run (a report to write) is not meant for this one."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--durations=0", *tests]
    return subprocess.run(command, cwd=root, env=environ, check=False).returncode == 0


def main(status: int, root: Path) -> int:
    tests = failed(root)
    if status != TESTS_FAILED or not 0 < len(tests) <= AT_MOST:
        return status
    print(f"\n==> a second look at {len(tests)} failed, alone, {ROUNDS} times", flush=True)
    for number in range(1, ROUNDS + 1):
        if not passes_alone(tests, root):
            print(f"==> failed again, time {number} of {ROUNDS}", flush=True)
            return status
    print(f"==> UNSTEADY, please mend: failed once, then passed {ROUNDS} times of {ROUNDS}")
    print(*(f"      {test}" for test in tests), sep="\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path.cwd()))
