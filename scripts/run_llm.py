"""
How does the gateway feel with a real model behind it?

    make run-llm

Starts a small language model on this machine, writes a configuration for it, and runs `perpetuo dev` with that.
Ctrl-C ends both; so does the end of either.
"""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "var" / "run-llm.config.yaml"

TEXT = """\
# Written by `make run-llm`, anew each time: the address of the model changes. See perpetuo.config.yaml for a sample.
providers:
  - id: llama
    kind: openai
    baseUrl: {address}/v1
models:
  - name: smollm2
    targets: [{{provider: llama, model: smollm2}}]
    price: {{inputPerMTok: 0.05, outputPerMTok: 0.2}}   # made up, so that there is something to see
    maxOutputTokens: 512
plans:
  - id: pro
    limits: {{rateLimitMin: 100, budgetDay: 1, budgetMonth: 10, concurrency: 20}}
tenants:
  - id: demo
    plan: pro
    apiKeys: ["sk-perpetuo-pro-1"]
"""


def main() -> int:
    model = subprocess.Popen(
        [sys.executable, ROOT / "scripts" / "language_model.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert model.stdout is not None  # noqa: S101 - asked for above
    address = model.stdout.readline().strip()
    if not address:
        return model.wait()
    print(f"The language model answers on {address} (SmolLM2, 135 million parameters).")
    CONFIG.parent.mkdir(exist_ok=True)
    CONFIG.write_text(TEXT.format(address=address))
    gateway = subprocess.Popen(
        [Path(sys.executable).with_name("perpetuo"), "dev"],
        env={**os.environ, "PERPETUO_CONFIG_PATH": str(CONFIG)},
        cwd=ROOT,
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the gateway by itself
    signal.signal(signal.SIGTERM, lambda *_: gateway.terminate())
    threading.Thread(target=_end_with, args=(model, gateway), daemon=True).start()
    status = gateway.wait()
    model.communicate()
    return status or abs(model.returncode)


def _end_with(model: subprocess.Popen[str], gateway: subprocess.Popen[bytes]) -> None:
    if model.wait() and gateway.poll() is None:
        print("The language model has ended; so does the gateway.", file=sys.stderr)
        gateway.terminate()


if __name__ == "__main__":
    sys.exit(main())
