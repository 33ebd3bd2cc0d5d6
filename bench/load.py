"""
How many answers a second, at what delay, and were they right?

wrk sends the load; its Lua script checks the status of every answer, a text that it has to contain, and the number of
its events, so that a fast error is no result. `first_answer` waits for a gateway that is starting.
"""

import http.client
import re
import subprocess
import tempfile
import time
from pathlib import Path

import attrs

from bench.upstream import tool

SCRIPT = """
wrk.method = "POST"
wrk.path = "%(path)s"
%(headers)s
%(lua)s
wrk.body = [==[%(body)s]==]
local threads = {}
function setup(thread) table.insert(threads, thread) end
wrong = 0
seen = 0
local function events(body)
  local count, at = 0, string.find(body, "data: ", 1, true)
  while at do count = count + 1; at = string.find(body, "data: ", at + 6, true) end
  return count
end
function response(status, headers, body)
  seen = seen + 1
  if status ~= %(status)d or not string.find(body, [==[%(must)s]==], 1, true) or events(body) ~= %(events)d then
    wrong = wrong + 1
  end
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
    lua: str = ""
    """More of wrk's script, for what a constant request can't say."""
    events: int = 0
    """So many events, exactly."""
    more: dict[str, str] = attrs.field(factory=dict)
    """Headers beside those of every call."""

    def headers(self) -> dict[str, str]:
        return {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}", **self.more}


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


def script(load: Load) -> str:
    """For wrk."""
    headers = "\n".join(f'wrk.headers["{name}"] = [==[{value}]==]' for name, value in load.headers().items())
    return SCRIPT % {**attrs.asdict(load), "headers": headers}


def run(port: int, load: Load, seconds: int, *, connections: int = 64, core: int = 1) -> Measured:
    """Send load for so long over so many connections, from one core."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script(load))
        file.flush()
        command = ["taskset", "-c", str(core), tool("wrk", "wrk"), "-t1", f"-c{connections}", f"-d{seconds}s"]
        command += ["--timeout", "10s", "-s", file.name, f"http://127.0.0.1:{port}"]
        out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(file.name).parent).stdout
    match = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) ([\d.]+) ([\d.]+)", out)
    if match is None:
        raise RuntimeError(f"wrk said: {out}")
    seen, micros, wrong, failed = (int(match.group(n)) for n in range(1, 5))
    return Measured(seen, micros / 1e6, wrong + failed, float(match.group(5)) / 1_000, float(match.group(6)) / 1_000)


def first_answer(port: int, load: Load, began: float, patience: float = 60.0) -> float:
    """Seconds from ``began`` until the first right answer."""
    seen = ""
    while time.monotonic() - began < patience:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("POST", load.path, load.body.encode(), load.headers())
            answer = connection.getresponse()
            seen = f"{answer.status} {answer.read()[:300]!r}"
            if answer.status == load.status:
                return time.monotonic() - began
        except (OSError, http.client.HTTPException) as error:
            seen = str(error)
        finally:
            connection.close()
        time.sleep(0.01)
    raise RuntimeError(f"no right answer within {patience} s; the last one: {seen}")
