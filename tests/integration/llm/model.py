"""
Where do tests get a real language model from?

Rule 1: it runs in a process of its own, as users run one, and ends with the test run, however that ended.
Rule 2: what it is doing is asked at the server itself (``/slots``), not at the gateway.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx

SCRIPT = Path(__file__).parents[3] / "scripts" / "language_model.py"
MODEL = "smollm2"
CONTEXT = 2048
"""Tokens of one call, in and out."""
Row = dict[str, Any]
"""A row of ``events``."""


class NoModelError(RuntimeError):
    """No model can be run here; the text says what was tried."""


class ModelServer:
    """llama.cpp's own server with a small model."""

    def __init__(self) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - for as long as the server lives
        self._process = subprocess.Popen(
            [sys.executable, SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        if not self.url:
            self.close()
            raise NoModelError(f"{SCRIPT.name} ended with {self._process.returncode}: {self.errors()}")

    def errors(self) -> str:
        """The last of what the server complained about."""
        self._errors.seek(0)
        return self._errors.read()[-2_000:].strip()

    def close(self) -> None:
        self._process.communicate()

    def slots(self) -> list[dict[str, Any]]:
        slots: list[dict[str, Any]] = httpx.get(f"{self.url}/slots", timeout=60).json()
        return slots

    def busy(self) -> int:
        """Slots that are answering right now."""
        return sum(slot["is_processing"] for slot in self.slots())
