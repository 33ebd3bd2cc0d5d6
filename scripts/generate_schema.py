"""
What do editors know of ``perpetuo.config.yaml``?

Writes ``perpetuo.schema.json`` from the classes that the loader uses; ``scripts/reference`` makes a page of the same.
``--check`` writes nothing and exits 1 when the file is not what this script would write; so does a test.
"""

import json
import sys
from pathlib import Path
from typing import Any, get_args, get_origin

import attrs

from perpetuo.adapters.configfile.kinds import KEY, Kind
from perpetuo.adapters.configfile.schema import ApiKey, ConfigFile, camel
from perpetuo.adapters.configfile.structure import is_optional, kind_of

ROOT = Path(__file__).parents[1]
SCHEMA = ROOT / "perpetuo.schema.json"

VARIABLE = {"type": "string", "pattern": r"\$\{"}
"""Any scalar may be ``${NAME}``, whatever it stands for."""


def main() -> int:
    stale = not SCHEMA.exists() or SCHEMA.read_text() != schema_text()
    if "--check" in sys.argv[1:]:
        if stale:
            print(f"{SCHEMA.name} is not what its classes say; run `make schema`", file=sys.stderr)
        return int(stale)
    SCHEMA.write_text(schema_text())
    print(f"wrote {SCHEMA.name if stale else 'nothing new'}")
    return 0


# --- JSON Schema ---------------------------------------------------------------------------------


def schema_text() -> str:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "perpetuo.config.yaml",
        **_mapping(ConfigFile),
        "$defs": {cls.__name__: _definition(cls) for cls in classes(ConfigFile) if cls is not ConfigFile},
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _definition(cls: type[Any]) -> dict[str, Any]:
    mapping = _mapping(cls)
    return {"anyOf": [_scalar(KEY), mapping]} if cls is ApiKey else mapping


def _mapping(cls: type[Any]) -> dict[str, Any]:
    fields = attrs.fields(cls)
    return {
        "description": _summary(cls),
        "type": "object",
        "additionalProperties": False,
        "required": [camel(a.name) for a in fields if a.default is attrs.NOTHING],
        "properties": {camel(a.name): _described(a) for a in fields},
    }


def _described(field: Any) -> dict[str, Any]:
    default = field.metadata.get("default")
    text = field.metadata["doc"] + (f" Default: {default}." if default else "")
    return {"description": text.replace("`", ""), **_value(bare(field.type))}


def _value(cls: Any) -> dict[str, Any]:
    kind = kind_of(cls)
    if kind is not None:
        return _scalar(kind)
    if get_origin(cls) is tuple:
        return {"type": "array", "items": _value(get_args(cls)[0])}
    return {"$ref": f"#/$defs/{cls.__name__}"}


def _scalar(kind: Kind) -> dict[str, Any]:
    return dict(kind.schema) if kind.schema.get("type") == "string" else {"anyOf": [kind.schema, VARIABLE]}


def bare(cls: Any) -> Any:
    """The type without its ``None``."""
    return next(a for a in get_args(cls) if a is not type(None)) if is_optional(cls) else cls


def inner(field: Any) -> Any:
    """The class of the mapping, or of the mappings in the list, that a field holds; else ``None``."""
    cls = bare(field.type)
    cls = get_args(cls)[0] if get_origin(cls) is tuple else cls
    return cls if attrs.has(cls) else None


def classes(cls: type[Any]) -> list[type[Any]]:
    """``cls`` and every class below it, each once, in the order of reading."""
    found: dict[type[Any], None] = {cls: None}
    for field in attrs.fields(cls):
        below = inner(field)
        if below is not None:
            found |= dict.fromkeys(classes(below))
    return list(found)


def _summary(cls: type[Any]) -> str:
    return " ".join((cls.__doc__ or "").replace("`", "").split())


if __name__ == "__main__":
    sys.exit(main())
