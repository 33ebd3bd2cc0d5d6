"""What does a process tree cost, and on which machine was that measured?"""

import compileall
import os
import platform
import signal
import subprocess
import time
from pathlib import Path

import perpetuo

TICKS = os.sysconf("SC_CLK_TCK")


def compile_gateway() -> None:
    """Bytecode for all its modules, as pip and the image make it: without, every process compiles what it imports."""
    for folder in perpetuo.__path__:
        compileall.compile_dir(folder, quiet=1)


def cores() -> tuple[int, int]:
    """One for the gateway, and another for everything else; the same one twice where there is only one."""
    ours = sorted(os.sched_getaffinity(0))
    return ours[0], ours[-1]


def tree(pid: int | None) -> list[int]:
    """``pid`` and all its descendants that are alive; none of nothing."""
    if pid is None:
        return []
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    children: dict[int, list[int]] = {}
    for line in listed.splitlines():
        child, parent = map(int, line.split())
        children.setdefault(parent, []).append(child)
    found, waiting = [], [pid]
    while waiting:
        current = waiting.pop()
        found.append(current)
        waiting += children.get(current, [])
    return found


def cpu_seconds(pid: int | None) -> float:
    """User and system time of the tree, ended children included."""
    total = 0
    for member in tree(pid):
        try:
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(int(f) for f in fields[11:15])
    return total / TICKS


def thread_seconds(pid: int) -> float:
    """User and system time of the main thread of one process."""
    fields = Path(f"/proc/{pid}/task/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_mib(pid: int | None) -> float:
    """Resident memory of the largest process of the tree, in MiB: a worker."""
    sizes = []
    for member in tree(pid):
        try:
            lines = Path(f"/proc/{member}/status").read_text().splitlines()
        except OSError:
            continue
        sizes += [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")]
    return max(sizes, default=0.0)


def pin(pid: int, core: int) -> None:
    """Keep the tree, and what it starts from now on, on one core."""
    for member in tree(pid):
        try:
            for thread in Path(f"/proc/{member}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {core})
        except OSError:
            continue  # a server that starts has children that are soon over


def described() -> str:
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "unknown CPU",
    )
    return f"{model}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"


def kill(pid: int) -> None:
    """End one process at once, if it is still there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def quiet(seconds: float = 0.5) -> float:
    """How busy the machine is while nothing of ours runs: 0 to 1, over all cores."""
    before = _busy()
    time.sleep(seconds)
    return (_busy() - before) / TICKS / seconds / (os.cpu_count() or 1)


def _busy() -> int:
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return sum(fields[:3]) + sum(fields[5:8])


def commit() -> str:
    """`` (a1b2c3d)``, or nothing outside of a clone."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    except OSError:
        return ""
    return f" ({said.stdout.strip()})" if said.returncode == 0 else ""
