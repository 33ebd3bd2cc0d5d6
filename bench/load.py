"""
How many answers a second, at what delay, and were they right?

wrk sends the load; its Lua script checks the status of every answer and the length or end of its body, so that
a fast error is no result.
"""

import re
import subprocess
import tempfile
from pathlib import Path

import attrs

from bench.upstream import tool

SCRIPT = """
wrk.method = "POST"
wrk.path = "%(path)s"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer %(key)s"
%(headers)s
wrk.body = [==[%(body)s]==]
local threads = {}
function setup(thread) table.insert(threads, thread) end
wrong = 0
seen = 0
function response(status, headers, body)
  seen = seen + 1
  if status ~= %(status)d or not string.find(body, [==[%(must)s]==], 1, true) then wrong = wrong + 1 end
end
function done(summary, latency, requests)
  local wrong, seen = 0, 0
  for _, t in ipairs(threads) do wrong = wrong + t:get("wrong"); seen = seen + t:get("seen") end
  local e = summary.errors
  io.write(string.format("RESULT %%d %%d %%d %%d %%.1f %%.1f\\n", seen, summary.duration, wrong,
    e.connect + e.read + e.write + e.timeout, latency:percentile(50), latency:percentile(99)))
end
"""


@attrs.frozen
class Load:
    """What is sent, and what has to come back."""

    path: str
    key: str
    body: str
    status: int
    must: str
    """Text that every right answer contains."""
    headers: str = ""


@attrs.frozen
class Measured:
    """Delays in ms."""

    answers: int
    seconds: float
    wrong: int
    p50: float
    p99: float

    @property
    def rate(self) -> float:
        return self.answers / self.seconds


def run(port: int, load: Load, seconds: int, *, connections: int = 64, core: int = 1) -> Measured:
    """Send load for so long over so many connections, from one core."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT % attrs.asdict(load))
        script.flush()
        command = ["taskset", "-c", str(core), tool("wrk", "wrk"), "-t1", f"-c{connections}", f"-d{seconds}s"]
        command += ["--timeout", "10s", "-s", script.name, f"http://127.0.0.1:{port}"]
        out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(script.name).parent).stdout
    match = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) ([\d.]+) ([\d.]+)", out)
    if match is None:
        raise RuntimeError(f"wrk said: {out}")
    seen, micros, wrong, failed = (int(match.group(n)) for n in range(1, 5))
    return Measured(seen, micros / 1e6, wrong + failed, float(match.group(5)) / 1_000, float(match.group(6)) / 1_000)
