"""
An OpenAI-compatible upstream that writes down what it was asked: what really reached the provider, at what cost?

    with JournalUpstream({"flaky": "status=500,chance=0.05"}) as upstream:
        ...upstream.base_url…
        upstream.behave("m", "wait=1")     # hold every answer of model m back, until it behaves otherwise
        upstream.working("m")              # calls it is working on
        upstream.entries()                 # one `Entry` per request that has ended

It is a process of its own (it may be killed and frozen like any `Server`), honours the output limit, reports usage and
streams. The journal is a file that is only ever appended to, a line when a request has ended, however it ended.
Every answer's text begins with the call's id, so that a client's answer, the journal and the events can be joined.
Faults go by the name of the model; see `Behaviour`.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import httpx
import msgspec

from tests.journal_process import Behaviour, Entry
from tests.servers import Server, spawned

PROCESS = Path(__file__).with_name("journal_process.py")
__all__ = ["Behaviour", "Entry", "JournalUpstream"]


class JournalUpstream(Server):
    """The upstream as a process of its own, seen from a test."""

    def __init__(self, behaviours: Mapping[str, str] | None = None, *, seed: int = 1) -> None:
        super().__init__()
        self.journal = self.directory / "journal"
        self._behaviours = dict(behaviours or {})
        self._seed = seed

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """For ``baseUrl`` in a configuration."""
        return f"{self.url}/v1"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def behave(self, model: str, behaviour: str = "") -> None:
        """From now on; empty: without faults. Answers held back by ``wait`` or ``end=stall`` go on at once."""
        Behaviour.parse(behaviour)
        self._behaviours[model] = behaviour
        httpx.put(f"{self.url}/control", json={model: behaviour}, timeout=30, verify=False).raise_for_status()

    def working(self, model: str | None = None) -> list[str]:
        """Calls it is working on, by their ids, oldest first."""
        found = httpx.get(f"{self.url}/control", timeout=30, verify=False).json()
        return [call for call, of in found if model in (None, of)]

    def entries(self, model: str | None = None) -> list[Entry]:
        """The journal: requests that have ended, in the order of their ends; each that has been answered is there."""
        if self.running:
            self.working()  # it does one thing after the other: what it answered before this, it has written down
        lines = self.journal.read_bytes().splitlines() if self.journal.exists() else []
        found = [msgspec.json.decode(line, type=Entry) for line in lines]
        return [entry for entry in found if model in (None, entry.model)]

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/control", timeout=10, verify=False).status_code == 200
        except httpx.HTTPError:
            return False

    def _spawn(self) -> "subprocess.Popen[bytes]":
        arguments = [str(self.port), str(self.journal), json.dumps(self._behaviours), str(self._seed)]
        return spawned([sys.executable, str(PROCESS), *arguments], self.log)
