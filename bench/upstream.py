"""
A provider that costs next to nothing: nginx with fixed answers, and nginx as a plain proxy to compare with.

``/chat/v1/…`` answers one JSON completion of 614 bytes, ``/stream/v1/…`` 101 events of 29 KB at once. The proxy also
knows ``/trickle/v1/…``, of `bench.trickle`, and passes its events on one by one, as a proxy of such streams has to.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[1]
EVENTS = 101
TEXT = "It costs what it costs. "


class MissingToolError(RuntimeError):
    """Something the benchmark needs is not installed."""


def tool(name: str, package: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise MissingToolError(f"{name} is not installed (Debian: apt-get install {package})")
    return found


def completion() -> bytes:
    """A chat completion of 614 bytes."""
    body = {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": "bench-model",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 60, "completion_tokens": 78, "total_tokens": 138},
    }
    short = 614 - len(json.dumps(body, separators=(",", ":")))
    body["choices"][0]["message"]["content"] = (TEXT * 40)[:short]  # type: ignore[index]
    return json.dumps(body, separators=(",", ":")).encode()


def stream() -> bytes:
    """101 events, about 29 KB, ended by ``[DONE]``."""

    def event(delta: dict[str, str], finish: str | None = None, **more: object) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        chunk = {
            "id": "chatcmpl-bench-0123456789abcdef",
            "object": "chat.completion.chunk",
            "created": 1_790_000_000,
            "model": "bench-model-2026-11-23",
            "service_tier": "default",
            "system_fingerprint": "fp_0123456789",
            "choices": [choice],
            **more,
        }
        return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"

    usage = {"prompt_tokens": 60, "completion_tokens": 99, "total_tokens": 159}
    parts = [event({"role": "assistant", "content": ""})]
    parts += [event({"content": f" word{n}"}) for n in range(EVENTS - 2)]
    parts.append(event({}, "stop", usage=usage))
    return b"".join(parts) + b"data: [DONE]\n\n"


CONFIG = """
daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 300s; client_body_buffer_size 64k;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/f;
  uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
  {server}
}}
"""
UPSTREAM = """
server {{ listen 127.0.0.1:{port} backlog=4096; root {directory};
  location /chat/  {{ error_page 405 =200 /chat.json; default_type application/json; return 405; }}
  location = /chat.json {{ default_type application/json; }}
  location /stream/ {{ error_page 405 =200 /stream.sse; return 405; }}
  location = /stream.sse {{ types {{ }} default_type text/event-stream; }}
}}
"""
PROXY = """
upstream u {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests 1000000000; }}
upstream t {{ server 127.0.0.1:{trickle}; keepalive 128; keepalive_requests 1000000000; }}
server {{ listen 127.0.0.1:{port} backlog=4096; proxy_http_version 1.1; proxy_set_header Connection "";
  location / {{ proxy_pass http://u; }}
  location /trickle/ {{ proxy_pass http://t; proxy_buffering off; }}
}}
"""


@attrs.define
class Nginx:
    """One nginx of our own."""

    port: int
    process: "subprocess.Popen[bytes]"
    directory: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        shutil.rmtree(self.directory, ignore_errors=True)


def _start(port: int, server: str, look_at: str) -> Nginx:
    directory = Path(tempfile.mkdtemp(prefix="bench-nginx-"))
    directory.chmod(0o755)
    (directory / "chat.json").write_bytes(completion())
    (directory / "stream.sse").write_bytes(stream())
    config = directory / "nginx.conf"
    config.write_text(CONFIG.format(directory=directory, server=server.format(directory=directory, port=port)))
    process = subprocess.Popen([tool("nginx", "nginx-light"), "-c", str(config)], stderr=subprocess.DEVNULL)
    for _ in range(100):
        try:
            request = urllib.request.Request(f"http://127.0.0.1:{port}{look_at}", data=b"{}")
            with urllib.request.urlopen(request, timeout=1):
                return Nginx(port, process, directory)
        except OSError:
            time.sleep(0.05)
    raise MissingToolError(f"nginx did not start: {(directory / 'error.log').read_text()[-500:]}")


def start_upstream(port: int) -> Nginx:
    return _start(port, UPSTREAM, "/chat/v1/chat/completions")


def start_proxy(port: int, upstream: int, trickle: int) -> Nginx:
    config = PROXY.replace("{upstream}", str(upstream)).replace("{trickle}", str(trickle))
    return _start(port, config, "/chat/v1/chat/completions")


def start_python(module: str, port: int) -> "subprocess.Popen[bytes]":
    """A server of our own, listening."""
    command = [sys.executable, "-m", module, str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    if process.stdout.readline() != b"ready\n":
        raise RuntimeError(f"{module} did not start")
    return process
