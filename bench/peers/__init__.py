"""
Other gateways, measured beside ours: how is each one run well?

``make bench-peers`` installs them into ``.peers`` at the versions of the locks beside their configuration
(`bench.peers.install`); what is not there is left out, with a sentence. Each runs as its makers advise for production:
one worker for its one core, no debug log, prices configured, nothing fetched at the start.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import attrs

from bench import cases, machine, subjects
from bench.load import Load, first_answer
from bench.subjects import Provider, Subject
from bench.upstream import MissingToolError
from tests import servers

HERE = Path(__file__).parent
PLACE = HERE.parents[1] / ".peers"
LITELLM = PLACE / "litellm" / "bin" / "litellm"
PORTKEY = PLACE / "portkey" / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
CASES = ("chat", "stream")


def _missing(path: Path, name: str) -> MissingToolError:
    return MissingToolError(f"{name} is left out: {path.relative_to(PLACE.parent)} is not there (make bench-peers)")


def _run(stack: ExitStack, command: list[str | Path], environ: dict[str, str]) -> "subprocess.Popen[bytes]":
    """Pinned from its first moment; its output goes to a file that is thrown away."""
    directory = tempfile.mkdtemp(prefix="bench-peer-")
    stack.callback(shutil.rmtree, directory, True)
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with (Path(directory) / "log").open("wb") as log:
        process = subprocess.Popen(
            ["taskset", "-c", str(subjects.GATEWAY_CORE), *command],
            env={**clean, **environ}, cwd=directory, stdout=log, stderr=log,
        )  # fmt: skip
    stack.callback(subjects.end, process)
    return process


def portkey(stack: ExitStack, provider: Provider) -> Subject:
    """It is told with each request where to send it, and has neither keys nor limits of its own."""
    if not PORTKEY.exists() or shutil.which("node") is None:
        raise _missing(PORTKEY, "Portkey")
    port = servers.free_port()

    def asked(case: str) -> tuple[int, Load]:
        told = {"x-portkey-provider": "openai", "x-portkey-custom-host": provider.url(cases.PROVIDERS[case])}
        return port, attrs.evolve(cases.CASES[case], more=told)

    began = time.monotonic()
    process = _run(stack, ["node", PORTKEY, f"--port={port}", "--headless"], {"NODE_ENV": "production"})
    started = first_answer(port, asked("chat")[1], began)
    version = json.loads((PORTKEY.parents[1] / "package.json").read_text())["version"]
    return Subject(f"Portkey {version}, no key, no limits", process.pid, asked, started)


def _litellm(stack: ExitStack, provider: Provider, config: str, environ: dict[str, str], what: str) -> Subject:
    if not LITELLM.exists():
        raise _missing(LITELLM, f"LiteLLM with {what}")
    port = servers.free_port()

    def asked(case: str) -> tuple[int, Load]:
        return port, attrs.evolve(cases.CASES[case], key=cases.KEY.format(1))

    command: list[str | Path] = [LITELLM, "--config", HERE / "litellm" / config, "--host", "127.0.0.1"]
    environ = {
        "UPSTREAM_CHAT": provider.url("chat"), "UPSTREAM_STREAM": provider.url("stream"),
        "BENCH_KEY": cases.KEY.format(1),
        "LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", **environ,
    }  # fmt: skip
    began = time.monotonic()
    process = _run(stack, [*command, "--port", str(port), "--num_workers", "1"], environ)
    started = first_answer(port, asked("chat")[1], began)
    version = next(LITELLM.parents[1].glob("lib/*/site-packages/litellm-*.dist-info")).name.split("-")[1]
    name = f"LiteLLM, {what} ({version.removesuffix('.dist')})"
    return Subject(name, process.pid, asked, started, few=frozenset(CASES))


def litellm(stack: ExitStack, provider: Provider) -> Subject:
    """A master key, no limits."""
    return _litellm(stack, provider, "plain.yaml", {}, "master key")


def litellm_limits(stack: ExitStack, provider: Provider) -> Subject:
    """A key with requests and tokens a minute, counted in Redis."""
    redis = servers.RedisServer()
    if LITELLM.exists():
        redis.start()
        stack.callback(redis.close)
        machine.pin(redis.pid, subjects.OTHER_CORE)
    return _litellm(stack, provider, "limits.yaml", {"REDIS_PORT": str(redis.port)}, "rpm and tpm limits in Redis")


PEERS: tuple[Callable[[ExitStack, Provider], Subject], ...] = (portkey, litellm, litellm_limits)
