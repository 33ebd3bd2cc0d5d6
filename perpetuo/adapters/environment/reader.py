"""How is one variable read, and what is said when its value can't be obeyed?"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

import attrs

MIN_ADMIN_KEY = 24
MAX_WORKERS = 8
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("json", "text")
_TEXT = re.compile(r"[^=\x00-\x1f\x7f]+=[^\x00-\x1f\x7f]*")
_HEADER = re.compile(r"[\w!#$%&'*+.^`|~-]+\s*=[\x20-\x7e]*", re.ASCII)


class InvalidEnvironmentError(ValueError):
    """The variables can't be obeyed; ``problems`` has a sentence for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Variables(Mapping[str, str]):
    """The environment with ``NAME_FILE`` standing in for ``NAME``; files are read when asked for."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ

    def __getitem__(self, name: str) -> str:
        plain = self._environ.get(name)
        path = self._environ.get(f"{name}_FILE")
        if path is None or name.endswith("_FILE"):
            return self._environ[name]
        if plain is not None:
            raise InvalidEnvironmentError([f"{name} and {name}_FILE are both set; leave one out"])
        try:
            return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as broken:
            raise InvalidEnvironmentError([f"{name}_FILE names {path!r}, which can't be read: {broken}"]) from broken

    def __iter__(self) -> Iterator[str]:
        return iter(self._environ)

    def __len__(self) -> int:
        return len(self._environ)


@attrs.define
class Reader:
    """Reads one variable at a time and remembers what was wrong; an empty variable counts as not set."""

    variables: Mapping[str, str]
    problems: list[str] = attrs.field(factory=list)

    def text(self, name: str) -> str | None:
        try:
            return self.variables.get(name) or None
        except InvalidEnvironmentError as invalid:
            self.problems.extend(invalid.problems)
            return None

    def port(self, name: str, default: int | None) -> int | None:
        return self._number(name, 1, 65535, "a port, 1 to 65535") or default

    def workers(self, *, in_process: bool) -> int:
        asked = self._number("WORKERS", 1, 1024, "a number of processes, at least 1")
        if not in_process:
            return asked or min(usable_cpus(), MAX_WORKERS)
        if asked and asked > 1:
            self.problems.append(
                f"WORKERS is {asked}, but REDIS_URL=memory:// keeps limits in one process: use WORKERS=1 or a Redis"
            )
        return 1

    def choice(self, name: str, default: str, allowed: tuple[str, ...]) -> str:
        value = (self.text(name) or default).lower()
        if value not in allowed:
            self.problems.append(f"{name} is {value!r}; it can be {', '.join(allowed)}")
            return default
        return value

    def url(self, name: str, default: str | None, schemes: tuple[str, ...]) -> str | None:
        """Only the scheme is checked, and only it is shown: the rest may hold a password."""
        value = self.text(name) or default
        if value is not None and urlsplit(value).scheme not in schemes:
            self.problems.append(f"{name} has to begin with one of {', '.join(f'{s}://' for s in schemes)}")
        return value

    def http(self, name: str) -> str | None:
        """An address to send to; not shown: it may hold a password."""
        value = self.text(name)
        try:
            parts = urlsplit(value or "http://none")
            good = (
                parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0 and parts.netloc.isprintable()
            )
        except ValueError:  # brackets or a port that are none
            good = False
        if not good:
            self.problems.append(f"{name} has to be an address, as http://host:4318")
        return value

    def pairs(self, name: str, fit: re.Pattern[str] = _TEXT) -> dict[str, str]:
        """``name=value,name=value``, percent-encoded. What does not ``fit`` is not repeated: it may be secret."""
        found = {}
        for number, part in enumerate(filter(None, (self.text(name) or "").split(",")), 1):
            key, _, value = part.partition("=")
            found[unquote(key.strip())] = unquote(value.strip())
            if not fit.fullmatch(unquote(part.strip())):
                self.problems.append(f"{name}: entry {number} has to be name=value, without line breaks")
        return found

    def headers(self, name: str) -> dict[str, str]:
        """The same for headers."""
        return self.pairs(name, _HEADER)

    def file(self, name: str) -> Path | None:
        """A file that is there."""
        text = self.text(name)
        if text is None or Path(text).is_file():
            return None if text is None else Path(text)
        self.problems.append(f"{name} names {text!r}, which is no file")
        return None

    def share(self, name: str) -> float:
        """A number from 0 to 1; 1 when it is left out."""
        text = self.text(name)
        if text is None:
            return 1.0
        if re.fullmatch(r"0|1|0?\.\d+|1\.0+", text):
            return float(text)
        self.problems.append(f"{name} is {text!r}; it has to be a number from 0 to 1")
        return 1.0

    def count(self, name: str, default: int, most: int, what: str) -> int:
        return self._number(name, 1, most, what) or default

    def admin_key(self) -> str | None:
        value = self.text("PERPETUO_ADMIN_KEY")
        if value is not None and len(value) < MIN_ADMIN_KEY:
            self.problems.append(
                f"PERPETUO_ADMIN_KEY has {len(value)} characters; it needs at least {MIN_ADMIN_KEY}"
                " (`perpetuo keys new` makes one)"
            )
        return value

    def _number(self, name: str, least: int, most: int, what: str) -> int | None:
        text = self.text(name)
        if text is None:
            return None
        if text.isascii() and text.isdecimal() and least <= int(text) <= most:
            return int(text)
        self.problems.append(f"{name} is {text!r}; it has to be {what}")
        return None


def usable_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """CPUs this process may use: its affinity, or its cgroup's quota where that is less. At least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, _quota(cgroup) or allowed))


def _quota(cgroup: Path) -> int | None:
    """The cgroup's CPU quota in whole CPUs, rounded up (version 2, then version 1); ``None``: none."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not quota.isdecimal() or not period.isdecimal() or int(period) == 0:
        return None  # "max", or -1: no quota
    return -(-int(quota) // int(period))
