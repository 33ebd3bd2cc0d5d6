"""Which Lua scripts are there? Each is a file ``*.lua`` beside this one; some begin with shared functions."""

from functools import cache
from hashlib import sha1
from importlib.resources import files

import attrs


@attrs.frozen
class Script:
    """A script and the SHA-1 Redis knows it by."""

    name: str
    body: bytes = attrs.field(repr=False)
    sha: bytes


@cache
def load(name: str, *parts: str) -> Script:
    """The script ``name.lua``, after the shared functions in ``parts`` (file names without suffix)."""
    folder = files(__package__)
    body = "\n".join((folder / f"{part}.lua").read_text() for part in (*parts, name)).encode()
    return Script(name, body, sha1(body).hexdigest().encode())  # noqa: S324 - Redis names scripts by it
