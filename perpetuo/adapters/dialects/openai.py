"""
What does a request in OpenAI's dialect ask for, and how does it go on to a provider?

Rule 1: decide on what the provider will read; a body that two parsers could read differently is refused.
Rule 2: only what decisions need is decoded; every value goes on in the client's own bytes.
Rule 3: whatever can fail fails in `parse_chat`: what it accepted can be rendered for any target.
Rule 4: ``null`` means the same as leaving a member out, as at OpenAI.
"""

import hashlib
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, TypeVar

import msgspec

from perpetuo.adapters.dialects import media
from perpetuo.adapters.dialects.jsonbody import BadRequest, canonical, members, refuse_look_alikes
from perpetuo.domain.model.chat import Ask, Kind
from perpetuo.domain.model.models import CATCH_ALL
from perpetuo.domain.model.upstream import Outbound

__all__ = ["BadRequest", "fingerprint", "parse_chat", "parse_embeddings", "render"]

_MOST_CHOICES = 128
_MOST_TOKENS = 2**31 - 1
_MODEL_CHARACTERS = 256

_Count = Annotated[int, msgspec.Meta(ge=0, le=_MOST_TOKENS)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=_MODEL_CHARACTERS)]

COSTS_EXTRA = frozenset(
    {
        "audio",  # spoken output has rates of its own
        "chat_template",  # a template of the client's can repeat its input
        "data_sources",  # Azure: documents put into the prompt
        "enable_search",
        "models",  # OpenRouter: other models, at other prices
        "plugins",
        "prediction",  # rejected tokens are charged as output, beyond the limit
        "search_parameters",
        "web_search_options",  # charged per search
    }
)
"""Members whose cost the body does not bound, whatever their value."""

PLAIN_TIERS = frozenset({"auto", "default"})

LIFTS_LIMIT = frozenset({"n_predict", "max_new_tokens", "max_output_tokens", "num_predict", "best_of"})
"""Members some servers obey instead of, or on top of, the output limit."""

_SUSPECTS = COSTS_EXTRA | LIFTS_LIMIT | {"min_tokens", "modalities", "service_tier", "tools"}

_LIMITS = ("max_tokens", "max_completion_tokens")
_WATCHED = _SUSPECTS | {"model", "messages", "input", "n", "stream", "stream_options", *_LIMITS}
"""Every member that is read, priced, set or suspected: no other spelling of these goes to a provider."""
_USUAL = _WATCHED | {"temperature", "top_p", "stop", "user", "seed", "response_format", "tool_choice", "metadata"}
"""Names in ASCII's lower case need no second look; these are only the frequent ones."""
_TOOL = "A tool in 'tools'"
_TOOL_KEYS = frozenset({"type", "function", "custom"})
_STREAM_KEYS = frozenset({"include_usage"})
_TYPE_KEY = b'"type"'
_PLAIN_TOOLS = frozenset({b'"function"', b'"custom"'})


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Chat(msgspec.Struct):
    model: _Name
    messages: Annotated[list[media.Message], msgspec.Meta(min_length=1)]
    stream: bool | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=_MOST_CHOICES)] | None = None
    max_tokens: _Count | None = None
    max_completion_tokens: _Count | None = None
    stream_options: _StreamOptions | None = None


class _Embeddings(msgspec.Struct):
    model: _Name
    input: Annotated[str, msgspec.Meta(min_length=1)] | Annotated[list[Any], msgspec.Meta(min_length=1)]


_CHAT = msgspec.json.Decoder(_Chat)
_EMBEDDINGS = msgspec.json.Decoder(_Embeddings)
_TOOLS = msgspec.json.Decoder(list[dict[str, msgspec.Raw]] | None)
_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])
_STRINGS = msgspec.json.Decoder(list[str] | None)
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
_ENCODE = msgspec.json.Encoder().encode


# --- reading -------------------------------------------------------------------------------------


def parse_chat(body: bytes) -> Ask:
    """Read a chat completion request. Raises `BadRequest`."""
    fields = _fields(body)
    chat = _decode(_CHAT, body)
    _check_model(chat.model)
    found = media.count(chat.messages, fields["messages"])
    named = [limit for limit in (chat.max_tokens, chat.max_completion_tokens) if limit is not None]
    suspicious = not _SUSPECTS.isdisjoint(fields)
    if chat.stream:
        fields["stream_options"] = _with_usage(fields.get("stream_options"))
    return Ask(
        kind=Kind.CHAT,
        model=chat.model,
        stream=chat.stream is True,
        body=body,
        fields=fields,
        text_bytes=len(body) - found.inline_bytes,
        choices=chat.n or 1,
        max_tokens=chat.max_tokens,
        max_completion_tokens=chat.max_completion_tokens,
        include_usage=chat.stream_options is not None and chat.stream_options.include_usage is True,
        images=found.images,
        audios=found.audios,
        files=found.files,
        unbounded=_first(fields, _costs_extra) if suspicious else None,
        lifts_limit=_first(fields, lambda name, raw: _lifts(name, raw, named)) if suspicious else None,
    )


def parse_embeddings(body: bytes) -> Ask:
    """Read an embeddings request: text, texts, or token ids. Raises `BadRequest`."""
    fields = _fields(body)
    wanted = _decode(_EMBEDDINGS, body)
    _check_model(wanted.model)
    if isinstance(wanted.input, list):
        _check_inputs(wanted.input)
    return Ask(kind=Kind.EMBEDDINGS, model=wanted.model, stream=False, body=body, fields=fields, text_bytes=len(body))


def _fields(body: bytes) -> dict[str, bytes]:
    fields = members(body)
    if not fields.keys() <= _USUAL:
        refuse_look_alikes(fields, _WATCHED, "The request body")
    return fields


def _check_inputs(inputs: list[Any]) -> None:
    texts = all(type(item) is str for item in inputs)
    tokens = all(type(item) is int for item in inputs)
    token_lists = all(type(item) is list and all(type(token) is int for token in item) for item in inputs)
    if not (texts or tokens or token_lists):
        raise BadRequest("Invalid 'input': expected a string, an array of strings, or arrays of token ids.", "input")


def _check_model(model: str) -> None:
    if not model.isprintable():
        raise BadRequest("Invalid 'model': it has characters that can't be printed.", "model")


def _with_usage(given: bytes | None) -> bytes:
    """The client's ``stream_options`` with usage asked for."""
    options = _decode(_OBJECT, given, "stream_options") if given is not None else None
    if not options:
        return b'{"include_usage":true}'
    refuse_look_alikes(options, _STREAM_KEYS, "The object in 'stream_options'", "stream_options")
    return _ENCODE({**options, "include_usage": True})


def _first(fields: dict[str, bytes], test: Callable[[str, bytes], bool]) -> str | None:
    """The first member, in the client's order, that is set and fails ``test``."""
    return next((n for n, raw in fields.items() if n in _SUSPECTS and raw != b"null" and test(n, raw)), None)


def _costs_extra(name: str, raw: bytes) -> bool:
    match name:
        case "service_tier":
            tier = _value(raw)
            return not (isinstance(tier, str) and tier in PLAIN_TIERS)
        case "modalities":
            return any(modality != "text" for modality in _decode(_STRINGS, raw, name) or ())
        case "tools":
            return not _PLAIN_TOOLS.issuperset(_tool_types(raw))
        case _:
            return name in COSTS_EXTRA


def _tool_types(raw: bytes) -> list[bytes]:
    """The type of each tool, still JSON; refused where another parser could read another, with a price for each use."""
    tools = _decode(_TOOLS, raw, "tools") or []
    if b"\\u" in raw or raw.count(_TYPE_KEY) != _ENCODE(tools).count(_TYPE_KEY):  # decoded, a doubled key is gone
        for item in _decode(_ITEMS, raw, "tools"):
            members(bytes(item), _TOOL)
    for tool in tools:
        if not tool.keys() <= _TOOL_KEYS:
            refuse_look_alikes(tool, _TOOL_KEYS, _TOOL, "tools")
    return [bytes(tool.get("type", b"null")) for tool in tools]


def _lifts(name: str, raw: bytes, named: list[int]) -> bool:
    if name == "min_tokens":
        wanted = _value(raw)
        # without a limit of the client's own, the one we set may be lower
        return not (type(wanted) is int and named and wanted <= max(named))
    return name in LIFTS_LIMIT


def _value(raw: bytes) -> object:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None


def fingerprint(method: str, path: str, body: bytes) -> str:
    """Hex SHA-256 of a request: spacing, key order and escapes don't matter, array order and numbers do."""
    return hashlib.sha256(b"%s %s\n%s" % (method.encode(), path.encode(), canonical(body))).hexdigest()


# --- errors in OpenAI's words --------------------------------------------------------------------

_TYPES = re.compile(r"`([^`]+)`")
_AT = re.compile(r" - at `\$\.?([^`]*)`$")
_MISSING = re.compile(r"missing required field `(\w+)`")
_WORDS = {
    "str": "a string",
    "int": "an integer",
    "float": "a number with decimals",
    "bool": "a boolean",
    "array": "an array",
    "object": "an object",
    "null": "null",
}


_Decoded = TypeVar("_Decoded")


def _decode(decoder: msgspec.json.Decoder[_Decoded], raw: bytes, name: str | None = None) -> _Decoded:
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise _explain(str(error), name) from None
    except msgspec.DecodeError as error:
        raise BadRequest(f"The request body is not valid JSON: {error}.", name) from None
    except RecursionError:
        raise BadRequest("The request body is nested too deeply.", name) from None


def _explain(text: str, name: str | None) -> BadRequest:
    """Turn a decoder's words into OpenAI's: which parameter, what was expected, what was there."""
    missing = _MISSING.search(text)
    if missing is not None:
        return BadRequest(f"Missing required parameter: '{missing[1]}'.", missing[1])
    where = _AT.search(text)
    param = name or (where[1] if where else None) or None
    what = _AT.sub("", text)
    what = _TYPES.sub(lambda types: " or ".join(_WORDS.get(t, t) for t in types[1].split(" | ")), what)
    kind = "type for" if ", got " in what else "value of"
    return BadRequest(f"Invalid {kind} '{param}': {what[:1].lower()}{what[1:]}.", param)


# --- writing -------------------------------------------------------------------------------------


def render(out: Outbound) -> bytes:
    """
    The body for one target: its model's name, the output limit under the name it takes.

    With a limit, the other name of it is removed; without, the client's own stay as they are.
    """
    ask = out.ask
    changed: dict[str, bytes] = {}
    if out.target.model not in (CATCH_ALL, ask.model):
        changed["model"] = _ENCODE(out.target.model)
    if out.limit is None or out.limit_field is None:
        return _rewrite(ask, changed, ()) if changed or ask.stream else ask.body
    changed[out.limit_field] = b"%d" % out.limit
    return _rewrite(ask, changed, _LIMITS)


def _rewrite(ask: Ask, changed: dict[str, bytes], dropped: tuple[str, ...]) -> bytes:
    fields = {name: raw for name, raw in ask.fields.items() if name not in dropped} if dropped else dict(ask.fields)
    fields.update(changed)
    return b"{%b}" % b",".join([_key(name) + raw for name, raw in fields.items()])


@lru_cache(maxsize=1_024)
def _key(name: str) -> bytes:
    # an identifier needs no escapes, and only odd names are none
    return b'"%b":' % name.encode() if name.isidentifier() else _ENCODE(name) + b":"
