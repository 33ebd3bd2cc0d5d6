"""
What did the clients do, and what were they told?

A history is a file of JSON lines. A request is an ``invoke`` line and, when it is over, an ``ok``, ``fail`` or ``lost``
line with the same id; a request without a second line is still open. Times are seconds since the epoch.

    ok      200 and the whole answer
    fail    an error in words: a status, or a stream's error event
    lost    neither: the client does not know what became of it
"""

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs
import msgspec


@attrs.frozen(kw_only=True)
class Asked:
    """One request, as sent. ``id`` is its ``x-request-id``, which its row has too."""

    id: str
    at: float
    gateway: int
    tenant: str
    key: str
    """The name of the API key."""
    said: str
    """Its prompt: a word with the tenant's canary in it, the same for every request with the same idempotency key."""
    idem: str | None = None
    stream: bool = False
    leaves: bool = False
    """Does the client mean to leave in the middle of the answer?"""


@attrs.frozen(kw_only=True)
class Answered:
    """How it ended for the client."""

    id: str
    at: float
    what: str
    """``ok``, ``fail`` or ``lost``."""
    status: int = 0
    code: str | None = None
    type: str | None = None
    source: str | None = None
    headers: dict[str, str] = attrs.field(factory=dict)
    """Those that say something of the call: retry, idempotency, cost."""
    digest: str = ""
    """Of the whole body."""
    call: str = ""
    """The call that made this answer, by the answer's own text."""
    said: str = ""
    """The prompt that this answer repeats."""
    canaries: tuple[str, ...] = ()
    """Tenants whose canaries were in it, wherever."""
    how: str = ""
    """Why it is lost: ``left``, ``refused``, ``reset``, ``cut``, ``timeout``."""

    @property
    def replayed(self) -> bool:
        return self.headers.get("idempotent-replayed") == "true"


@attrs.frozen
class Exchange:
    """Question and answer."""

    asked: Asked
    answered: Answered | None

    @property
    def is_run(self) -> bool:
        """Is it a whole answer that was made for this request?"""
        return self.answered is not None and self.answered.what == "ok" and not self.answered.replayed


class Recorder:
    """Writes the history of one process; may be used by its threads."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")
        self._lock = threading.Lock()

    def invoke(self, asked: Asked) -> None:
        self._write({"what": "invoke", **attrs.asdict(asked)})

    def end(self, answered: Answered) -> None:
        self._write(attrs.asdict(answered))

    def close(self) -> None:
        self._file.close()

    def _write(self, line: dict[str, Any]) -> None:
        data = msgspec.json.encode(line) + b"\n"
        with self._lock:
            self._file.write(data)


def read(paths: Iterable[Path]) -> list[Exchange]:
    """All requests of some histories, in the order in which they were sent."""
    asked: dict[str, Asked] = {}
    answered: dict[str, Answered] = {}
    for path in paths:
        for line in path.read_bytes().splitlines():
            found = msgspec.json.decode(line)
            if found["what"] == "invoke":
                del found["what"]
                asked[found["id"]] = msgspec.convert(found, Asked)
            else:
                answered[found["id"]] = msgspec.convert(found, Answered)
    return [Exchange(one, answered.get(one.id)) for one in sorted(asked.values(), key=lambda one: one.at)]
