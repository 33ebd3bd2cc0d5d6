"""
Which parts of the messages are not inline text, and how many bytes of the body are their base64 data?

Rule 1: a part is text only if its type says so and it carries no media member; anything unknown counts as a file.
Rule 2: base64 data is taken off the text bytes by its decoded length: its escapes stay counted as text.
Rule 3: where a provider could read other parts than we do (``content``, ``type``, ``audio`` twice, or written in
        another case), refuse.
"""

import json
import re
from typing import Any

import attrs
import msgspec

from perpetuo.adapters.dialects.jsonbody import BadRequest, refuse_look_alikes

_TEXT = frozenset({"text", "refusal", "input_text", "output_text", "thinking", "reasoning"})
_IMAGE = frozenset({"image_url", "input_image", "image"})
_AUDIO = frozenset({"input_audio", "audio", "audio_url"})
_MEDIA_MEMBERS = frozenset(
    {"image_url", "input_audio", "file", "video_url", "audio_url", "image", "audio", "video", "input_video", "document"}
)
_COUNTED_KEYS = ("content", "type", "audio")
_PART_KEYS = _MEDIA_MEMBERS | {"type"}
_PLAIN_KEYS = _PART_KEYS | {"text", "cache_control"}
_MESSAGE_KEYS = frozenset({"content", "audio"})
_OTHER_CASE = re.compile(rb'"(?=[cCaA])(?:(?!content")(?i:content)|(?!audio")(?i:audio))"')
_MESSAGES = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])


@attrs.frozen
class Media:
    """Parts that are not inline text, and the bytes of base64 in the body."""

    images: int = 0
    audios: int = 0
    files: int = 0
    inline_bytes: int = 0


NONE = Media()


class Message(msgspec.Struct):
    """What we read of a message; the rest of it is text to us."""

    content: str | list[Any] | None | msgspec.UnsetType = msgspec.UNSET
    audio: dict[str, Any] | None = None


def count(messages: list[Message], raw: bytes) -> Media:
    """Count the media of ``messages``, whose JSON is ``raw``. Raises `BadRequest`."""
    if raw.count(b"{") == len(messages):
        return NONE  # no object inside a message, so no part that is one
    if _may_read_differently(messages, raw):
        _refuse_doubtful_keys(raw)
    parts = [
        (f"messages[{index}].content[{place}]", part)
        for index, message in enumerate(messages)
        if isinstance(message.content, list)
        for place, part in enumerate(message.content)
    ]
    # an answer with audio that is referred to by id is read again by the model
    spoken = sum(message.audio is not None for message in messages)
    if not parts and not spoken:
        return NONE
    kinds = [_sort(part, param) for param, part in parts]
    return Media(
        images=sum(kind == "image" for kind, _ in kinds),
        audios=sum(kind == "audio" for kind, _ in kinds) + spoken,
        files=sum(kind == "file" for kind, _ in kinds),
        inline_bytes=sum(size for _, size in kinds),
    )


def _sort(part: object, param: str) -> tuple[str, int]:
    """The kind of one content part, and its bytes of base64."""
    if isinstance(part, str):
        return "text", 0
    if not isinstance(part, dict):
        raise BadRequest(f"Invalid type for '{param}': expected an object.", param)
    if not part.keys() <= _PLAIN_KEYS:
        refuse_look_alikes(part, _PART_KEYS, param, param)
    kind = part.get("type")
    media = part.keys() & _MEDIA_MEMBERS
    if not media and (kind is None or (isinstance(kind, str) and kind in _TEXT)):
        return "text", 0
    size = sum(_inline(part[name]) for name in media)
    if not isinstance(kind, str | None):
        return "file", size
    if kind in _IMAGE or (kind is None and media & _IMAGE):
        return "image", size
    return ("audio" if kind in _AUDIO else "file"), size


def _inline(value: object) -> int:
    """Length of the base64 data in a media member: a ``data:`` URL, ``data`` or ``file_data``."""
    if isinstance(value, str):
        return _data_url(value)
    if not isinstance(value, dict):
        return 0
    url, data, file = value.get("url"), value.get("data"), value.get("file_data")
    size = _data_url(url) if isinstance(url, str) else 0
    size += len(data) if isinstance(data, str) and data.isascii() else 0
    size += _data_url(file) or len(file) if isinstance(file, str) and file.isascii() else 0
    return size


def _data_url(url: str) -> int:
    head, comma, data = url.partition(",")
    return len(data) if comma and head.startswith("data:") and head.endswith(";base64") and data.isascii() else 0


def _may_read_differently(messages: list[Message], raw: bytes) -> bool:
    """Cheap and never wrongly False: can one of the counted keys stand twice in one object, in any case?"""
    if (b"\\" in raw and b"\\u" in raw) or b'"audio"' in raw or _OTHER_CASE.search(raw):
        return True
    if raw.count(b'"content"') > sum(message.content is not msgspec.UNSET for message in messages):
        return True
    lists = [message.content for message in messages if isinstance(message.content, list)]
    if not lists:
        return False
    return raw.count(b'"type"') > sum("type" in part for parts in lists for part in parts if isinstance(part, dict))


def _refuse_doubtful_keys(raw: bytes) -> None:
    def look(pairs: list[tuple[str, Any]]) -> None:
        if len(dict(pairs)) != len(pairs):
            for key in _COUNTED_KEYS:
                if sum(name == key for name, _ in pairs) > 1:
                    raise BadRequest(f"An object in 'messages' has the key {key!r} twice.", "messages")

    try:
        json.loads(raw.decode(), object_pairs_hook=look, parse_int=len, parse_float=len)
        given = _MESSAGES.decode(raw)
    except RecursionError:
        raise BadRequest("The request body is nested too deeply.") from None
    for index, keys in enumerate(given):
        refuse_look_alikes(keys, _MESSAGE_KEYS, f"messages[{index}]", f"messages[{index}]")
