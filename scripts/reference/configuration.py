"""What may stand in the configuration file, and what stands in for what is left out?"""

from collections.abc import Iterator
from typing import Any, get_args, get_origin

import attrs

from perpetuo.adapters.configfile.schema import ConfigFile, camel
from perpetuo.adapters.configfile.structure import kind_of
from scripts.generate_schema import bare, classes, inner
from scripts.reference.markdown import GENERATED, prose, table


def lines() -> Iterator[str]:
    yield from ["# Configuration: every key", "", GENERATED, ""]
    yield "What may stand in `perpetuo.config.yaml`. How it is written, and how limits, keys and prices work together:"
    yield from ["[configuration](../configuration.md).", ""]
    places = _places()
    for cls in classes(ConfigFile):
        title = "The whole file" if cls is ConfigFile else ", ".join(f"`{place}`" for place in places[cls])
        yield from [f"## {title}", ""]
        if cls is not ConfigFile:
            yield from [prose(cls.__doc__ or ""), ""]
        rows = [(f"`{camel(f.name)}`", f"{f.metadata['doc']} {_allowed(f)}", _otherwise(f)) for f in attrs.fields(cls)]
        yield from table(("Key", "Value", "Left out"), rows)
        yield ""


def _allowed(field: Any) -> str:
    cls = bare(field.type)
    item = get_args(cls)[0] if get_origin(cls) is tuple else cls
    many = "A list; each is " if item is not cls else ""
    kind = kind_of(item)
    text = kind.allowed if kind else "a mapping, see below"
    text = text.replace("*", r"\*")
    return f"*{many}{text if many else text[0].upper() + text[1:]}.*"


def _otherwise(field: Any) -> str:
    if field.default is attrs.NOTHING:
        return "required"
    default, otherwise = field.metadata.get("default"), field.metadata.get("otherwise")
    return f"`{default}`" if default else otherwise or "defaults"


def _places() -> dict[type[Any], list[str]]:
    """Where in the file each class stands: ``tenants[].apiKeys[]``."""
    found: dict[type[Any], list[str]] = {}

    def visit(cls: type[Any], at: str) -> None:
        found.setdefault(cls, []).append(at)
        for field in attrs.fields(cls):
            below = inner(field)
            if below is not None:
                step = camel(field.name) + ("[]" if get_origin(bare(field.type)) is tuple else "")
                visit(below, f"{at}.{step}" if at else step)

    visit(ConfigFile, "")
    return found
