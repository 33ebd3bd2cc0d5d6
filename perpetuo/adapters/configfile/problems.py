"""
How is a mistake in the configuration told, without telling a secret?

Rule 1: a problem is one line: ``file:line:column: path: value seen is not allowed: what is allowed``.
Rule 2: whatever stands under ``apiKey``, ``apiKeys``, ``hash`` or ``proxy``, came from ``${…}`` or looks like a key
        is shown by its length only: ``(51 characters, from OPENAI_API_KEY)``.
Rule 3: all problems are collected; nobody fixes a file one run at a time.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches

import attrs

Path = tuple[str | int, ...]
"""Where a value stands in the document: ``("tenants", 0, "limits")``."""

SECRET_KEYS = frozenset({"apiKey", "apiKeys", "hash", "proxy"})
_PLAIN = re.compile(r"[\w.+\-/:*@%$]{1,60}")
_SECRET = re.compile(r"(?<![A-Za-z0-9])sk-|sha256:|://.*[@?]")
"""A key, the hash of one, an address with a password or with what may be a token."""
_LONGEST = 60


@attrs.frozen
class Problem:
    """One mistake: lines and columns count from 1, ``path`` is empty when it is the whole file."""

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}"
        return f"{where}: {self.path}: {self.message}" if self.path else f"{where}: {self.message}"


class ConfigError(Exception):
    """The configuration can't be used; ``problems`` says everything that is wrong with it, file by file, in order."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        found = list(problems)
        files = {file: n for n, file in enumerate(dict.fromkeys(problem.file for problem in found))}
        self.problems = sorted(found, key=lambda p: (files[p.file], p.line, p.column))
        super().__init__("\n".join(self.texts))

    @property
    def texts(self) -> tuple[str, ...]:
        """A line for each problem."""
        return tuple(map(str, self.problems))


def is_secret(path: Path) -> bool:
    """Is this a place for secrets? Also for one put in the wrong way: a bare text in ``admin.keys``."""
    return any(part in SECRET_KEYS for part in path) or (path[:2] == ("admin", "keys") and len(path) <= 3)


def masked(text: str, sources: tuple[str, ...] = ()) -> str:
    """``(51 characters, from OPENAI_API_KEY)``"""
    origin = f", from {', '.join(sources)}" if sources else ""
    return f"({len(text)} characters{origin})"


def quoted(text: str) -> str:
    """A text that is no secret, on one line and not too long; masked all the same when it looks like a key."""
    if looks_secret(text):
        return masked(text)
    if _PLAIN.fullmatch(text):
        return text
    short = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in short) + '"'


def looks_secret(text: str) -> bool:
    return _SECRET.search(text) is not None


def path_text(path: Path, known_keys: frozenset[str]) -> str:
    """``tenants[0].limits.budgetDay``; a key that we don't know and that stands where secrets do is masked."""
    out = ""
    for depth, part in enumerate(path):
        if isinstance(part, int):
            out += f"[{part}]"
            continue
        hidden = part not in known_keys and is_secret(path[:depth])
        shown = masked(part) if hidden else quoted(part)
        out += f".{shown}" if out else shown
    return out


def did_you_mean(seen: str, allowed: Iterable[str]) -> str:
    """`` (did you mean budgetDay?)``, or nothing."""
    lower = {a.lower(): a for a in allowed}
    close = get_close_matches(seen.lower(), lower, n=1, cutoff=0.6)
    return f" (did you mean {lower[close[0]]}?)" if close else ""
