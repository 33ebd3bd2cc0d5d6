"""
What does an answer in OpenAI's dialect say: how much was used, or what went wrong?

Rule 1: providers differ; a member of another shape than expected is as good as missing, never an exception.
Rule 2: what a client sees of a provider's error is rebuilt member by member; pages of HTML stay here.
Rule 3: nothing that says more about our credential than that it was refused goes on, and the credential itself never.
"""

import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import attrs
import msgspec

from perpetuo.domain.model.upstream import Fault
from perpetuo.domain.model.usage import Usage

_TEXTS_TOO_LONG = (
    "maximum context length",  # OpenAI, vLLM, Mistral, OpenRouter
    "maximum model length",  # vLLM
    "context window",  # Anthropic, Ollama
    "context size",  # llama.cpp
    "context length",  # LM Studio, Together
    "prompt is too long",  # Anthropic
    "input token count exceeds",  # Gemini
    "input is too long",  # Bedrock
)
_CODES_TOO_LONG = frozenset({"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"})
_CODES_UNPAID = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
_CODES_BAD_KEY = frozenset({"invalid_api_key", "api_key_invalid", "incorrect_api_key", "authentication_error"})
_BAD_KEY = re.compile(
    r"\W*(?:error: )?(?:incorrect api key|invalid api key|api key (?:is )?(?:not valid|invalid|expired))",
    re.IGNORECASE | re.ASCII,
)
"""
How a 400 begins that is about our key (xAI, Gemini), and not about the client's request.

Only at its beginning, and not where a client named its model so ("… is not a valid model ID", OpenRouter): one
client that has its own words quoted must not take the provider from everybody.
"""
MOST_TOKENS = 10**8
"""More than a hundred times the longest context there is: a report beyond it is a mistake that nobody should pay."""
_LONGEST_WAIT_S = 86_400 * 31
_LLAMA_BLAMES_ITSELF = {
    "is too large to process": "context_length_exceeded",  # an embedding's input beyond the batch size
    "input is not supported - hint": "unsupported_input",  # an image or audio for a model of text
    "Failed to parse tools": "invalid_tools",
    "Failed to parse messages": "invalid_messages",
}
"""What llama.cpp answers 500 to though the request is at fault, and what it should be called."""


# --- usage ---------------------------------------------------------------------------------------


def read_usage(wire: object) -> Usage | None:
    """
    Tokens of a decoded ``usage`` object; ``None`` when it is missing, odd, all zero, or beyond belief.

    Some providers leave reasoning out of ``completion_tokens`` and have it in ``total_tokens`` only (xAI, Gemini).
    """
    if not isinstance(wire, dict):
        return None
    prompt, completion = _tokens(wire, "prompt_tokens"), _tokens(wire, "completion_tokens")
    total = _tokens(wire, "total_tokens")
    if prompt is None or (completion is None and total is None):
        return None
    output = max(completion or 0, (total or 0) - prompt)
    if max(prompt, output) > MOST_TOKENS:
        return None
    details = wire.get("prompt_tokens_details")
    cached = _tokens(details, "cached_tokens") if isinstance(details, dict) else None
    if cached is None:
        cached = _tokens(wire, "prompt_cache_hit_tokens") or 0  # DeepSeek
    return Usage(prompt, output, min(cached, prompt)) if prompt or output else None


def _tokens(wire: Mapping[str, Any], name: str) -> int | None:
    value = wire.get(name)
    return value if type(value) is int and value >= 0 else None


# --- complete answers ----------------------------------------------------------------------------


@attrs.frozen
class Reading:
    """What a 2xx body says. ``output_bytes`` bounds the output tokens when there is no ``usage``; else it is 0."""

    usage: Usage | None
    output_bytes: int
    error: bool


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct, gc=False):
    function: _Function | None = None


class Said(msgspec.Struct, gc=False):
    """What a model has said: a message, or a chunk's part of one."""

    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None


class _Choice(msgspec.Struct):
    message: Said | None = None


class _Reply(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: dict[str, Any] | None = None
    error: msgspec.Raw = msgspec.Raw(b"null")


_REPLY = msgspec.json.Decoder(_Reply)
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODE = msgspec.json.Encoder().encode
_CHOICES = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_CHUNK_OBJECT = msgspec.Raw(b'"chat.completion.chunk"')


def read_reply(body: bytes) -> Reading | None:
    """Read the body of a 2xx; ``None`` when it is not one JSON object."""
    try:
        if not body.isascii():
            body.decode()
        reply = _REPLY.decode(body)
    except msgspec.ValidationError:
        return _read_odd_reply(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    usage = read_usage(reply.usage)
    failed = bytes(reply.error) != b"null" and reply.choices is None
    return Reading(usage, 0 if usage is not None else _reply_bytes(reply), failed)


def _reply_bytes(reply: _Reply) -> int:
    messages = [choice.message for choice in reply.choices or () if choice.message is not None]
    return sum(text_bytes(message.content) + other_output(message) for message in messages)


def _read_odd_reply(body: bytes) -> Reading | None:
    """Valid JSON of unexpected shape: all of it counts as output."""
    try:
        reply = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(reply, dict):
        return None
    return Reading(read_usage(reply.get("usage")), len(body), bool(reply.get("error")) and "choices" not in reply)


def as_events(body: bytes) -> bytes | None:
    """A complete chat answer as the events of a stream, for a client that asked for one; ``None``: it is no such."""
    try:
        reply = _OBJECT.decode(body)
        choices = _CHOICES.decode(reply["choices"])
        deltas = msgspec.Raw(_ENCODE([_as_delta(choice) for choice in choices]))
    except (KeyError, msgspec.DecodeError, RecursionError):
        return None
    usage = reply.pop("usage", None)
    events = [{**reply, "object": _CHUNK_OBJECT, "choices": deltas}]
    if usage is not None:
        events.append({**events[0], "choices": msgspec.Raw(b"[]"), "usage": usage})
    return b"".join(b"data: %b\n\n" % _ENCODE(event).replace(b"\n", b" ") for event in events) + b"data: [DONE]\n\n"


def _as_delta(choice: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    message = _OBJECT.decode(choice.pop("message"))
    calls = _CHOICES.decode(message["tool_calls"]) if "tool_calls" in message else None
    if calls:
        numbered = [{"index": msgspec.Raw(b"%d" % place), **call} for place, call in enumerate(calls)]
        message["tool_calls"] = msgspec.Raw(_ENCODE(numbered))
    return {**choice, "delta": msgspec.Raw(_ENCODE(message))}


def text_bytes(text: str | None) -> int:
    """Bytes of ``text`` in UTF-8."""
    if text is None:
        return 0
    return len(text) if text.isascii() else len(text.encode())


def other_output(said: Said) -> int:
    """Bytes beside the content that can have been output tokens."""
    size = 0
    if said.reasoning_content is not None:
        size += text_bytes(said.reasoning_content)
    if said.reasoning is not None:
        size += text_bytes(said.reasoning)
    if said.refusal is not None:
        size += text_bytes(said.refusal)
    if said.tool_calls is not None:
        size += sum(_function_bytes(call.function) for call in said.tool_calls)
    if said.function_call is not None:
        size += _function_bytes(said.function_call)
    return size


def _function_bytes(function: _Function | None) -> int:
    return 0 if function is None else text_bytes(function.name) + text_bytes(function.arguments)


# --- errors --------------------------------------------------------------------------------------


@attrs.frozen
class ErrorReading:
    """What a provider's error says. ``status`` is what it should have been; ``body`` the envelope a client may see."""

    status: int
    fault: Fault
    code: str | None
    retry_after_us: int | None
    body: bytes


def secret(key: str) -> re.Pattern[str]:
    """Finds our key in a text; one as short as a word (``EMPTY``, ``x``) only where it stands alone."""
    return re.compile(re.escape(key) if len(key) >= 8 else rf"(?<!\w){re.escape(key)}(?!\w)")


def read_error(
    status: int,
    body: bytes,
    headers: Mapping[str, str],
    now_us: int,
    key: re.Pattern[str] | None = None,
    model: str = "",
) -> ErrorReading:
    """
    Read an answer that is no success.

    ``headers`` have lower-case names; ``now_us`` is for a Retry-After date; ``key`` is our `secret` there,
    ``model`` what the client called its model.
    """
    status, error = _rightly_blamed(status, _error_object(body))
    if key is not None:
        error = {
            name: key.sub("[redacted]", value) if isinstance(value, str) else value for name, value in error.items()
        }
    code = _code(error)
    fault = Fault.CREDENTIAL if status == 400 and _bad_key(code, error, model) else _fault(status, code, error)
    if fault is Fault.CONTEXT_LENGTH and not isinstance(error.get("code"), str):
        code = "context_length_exceeded"  # what OpenAI's clients look for
    return ErrorReading(status, fault, code, _retry_after(headers, now_us), _envelope(status, fault, code, error))


def error_status(body: bytes) -> int:
    """The status an error inside a 200 stands for: some say it in ``error.code`` (OpenRouter, vLLM)."""
    code = _error_object(body).get("code")
    return code if type(code) is int and 400 <= code <= 599 else 502


def _bad_key(code: str | None, error: Mapping[str, Any], model: str) -> bool:
    """Some say with a 400 that they refuse our key (xAI, Gemini)."""
    details = error.get("details")
    reasons = [one.get("reason") for one in details if isinstance(one, dict)] if isinstance(details, list) else []
    codes = {name.lower() for name in (code, error.get("type"), *reasons) if isinstance(name, str)}
    if codes & _CODES_BAD_KEY:
        return True
    return "api key" not in model.lower() and _BAD_KEY.match(_string(error, "message") or "") is not None


def _fault(status: int, code: str | None, error: Mapping[str, Any]) -> Fault:
    kind, message = _string(error, "type"), _string(error, "message") or ""
    if status in (400, 413, 422) and _too_long(code, kind, message):
        return Fault.CONTEXT_LENGTH
    match status:
        case 400 | 404 | 413 | 422:
            return Fault.CLIENT_ERROR
        case 401 | 402 | 403:  # 402: some say so when the account has run dry
            return Fault.CREDENTIAL
        case 429:
            return Fault.CREDENTIAL if {code, kind} & _CODES_UNPAID else Fault.RATE_LIMITED
        case _:
            return Fault.SERVER_ERROR


def _rightly_blamed(status: int, error: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """As 400 what a server took for its own failure: else one client's mistakes open the breaker for everybody."""
    if status == 500 and error.get("code") == 500 and error.get("type") == "server_error":
        message = _string(error, "message") or ""
        for text, code in _LLAMA_BLAMES_ITSELF.items():
            if text in message:
                return 400, {**error, "type": "invalid_request_error", "code": code}
    return status, error


def _too_long(code: str | None, kind: str | None, message: str) -> bool:
    lower = message.lower()
    return bool({code, kind} & _CODES_TOO_LONG) or any(text in lower for text in _TEXTS_TOO_LONG)


def _error_object(body: bytes) -> dict[str, Any]:
    """``{"error": {…}}``, that in a list, ``{"error": "text"}``, ``{"detail": …}``, members at the top; or empty."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    if isinstance(found, list) and len(found) == 1:
        found = found[0]  # Gemini
    if not isinstance(found, dict):
        return {}
    error = found.get("error", found)
    if isinstance(error, str):
        return {**found, "message": error}
    if error is found and isinstance(found.get("detail"), str):
        return {"message": found["detail"]}
    return error if isinstance(error, dict) else {}


def _string(error: Mapping[str, Any], name: str) -> str | None:
    value = error.get(name)
    return value if isinstance(value, str) else None


def _code(error: Mapping[str, Any]) -> str | None:
    """The code as text: llama.cpp and vLLM put the status there as a number and the reason into ``type``."""
    code = error.get("code")
    if isinstance(code, str):
        return _name(code)
    kind = _string(error, "type")
    if kind is not None:
        return _name(kind)
    return str(code) if type(code) is int else None


def _name(text: str) -> str:
    """Printable and short: it goes into rows and logs, and PostgreSQL takes no row with a NUL."""
    return "".join(char for char in text[:128] if char.isprintable())


def _envelope(status: int, fault: Fault, code: str | None, error: Mapping[str, Any]) -> bytes:
    if fault is Fault.CREDENTIAL:
        message, kind, param, code = "The provider refused the gateway's credential.", "upstream_error", None, None
    else:
        message = _string(error, "message") or f"The provider answered {status} without an explanation."
        kind = _string(error, "type") or ("invalid_request_error" if status < 500 else "upstream_error")
        param = _string(error, "param")
    shown = {"message": message, "type": kind, "param": param, "code": code, "source": "provider"}
    return msgspec.json.encode({"error": shown})


def _retry_after(headers: Mapping[str, str], now_us: int) -> int | None:
    """The wait in µs from ``retry-after-ms``, or ``retry-after`` in seconds or as a date."""
    exact = _number(headers.get("retry-after-ms"), _LONGEST_WAIT_S * 1_000)
    if exact is not None:
        return math.ceil(exact * 1_000)
    given = headers.get("retry-after")
    seconds = _number(given, _LONGEST_WAIT_S)
    if seconds is not None:
        return math.ceil(seconds * 1_000_000)
    if not given:
        return None
    try:
        at = parsedate_to_datetime(given).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    wait = int(at) * 1_000_000 - now_us
    return min(max(0, wait), _LONGEST_WAIT_S * 1_000_000)


def _number(text: str | None, most: int) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return min(max(0.0, value), float(most)) if math.isfinite(value) else None
