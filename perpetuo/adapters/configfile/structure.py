"""
How do the document's values become the schema's classes, with every mistake told and none told twice?

cattrs does the structuring and collects its errors as a tree; here the tree becomes a list of `Mistake`. What was
mistaken is then left out and the rest is structured again, so that rules between values (is this provider known?) are
checked in the same run.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, TypeVar, get_args, get_origin

import attrs
from cattrs import Converter
from cattrs.cols import homogenous_tuple_structure_factory
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError, IterableValidationError
from cattrs.gen import make_dict_structure_fn, override

from perpetuo.adapters.configfile.kinds import KEY, Kind
from perpetuo.adapters.configfile.problems import Path, did_you_mean
from perpetuo.adapters.configfile.schema import ApiKey, camel

T = TypeVar("T")


@attrs.frozen
class Mistake:
    """``shown``: does the message start with the value seen? ``of_key``: it is the key that is wrong."""

    path: Path
    message: str
    shown: bool = False
    of_key: bool = False


class NotAllowed(ValueError):  # noqa: N818 - says what the value is
    """A value that its place does not allow; the message is what is allowed."""


def structure(cls: type[T], value: Any, path: Path, report: Callable[[Mistake], None]) -> T | None:
    """``value`` as ``cls``, without what is wrong with it; ``None`` when nothing useful is left."""
    try:
        return CONVERTER.structure(value, cls)
    except (ClassValidationError, NotAllowed) as error:
        mistakes = list(_mistakes(error, (), cls))
    for mistake in mistakes:
        report(attrs.evolve(mistake, path=path + mistake.path))
    if any(not m.path for m in mistakes):
        return None
    # First without what is wrong; if that lacks something (a key without its hash), without all that is around it.
    paths = [m.path for m in mistakes]
    return _try(cls, _without(value, paths)) or _try(cls, _without(value, [p[:1] for p in paths]))


def _try(cls: type[T], value: Any) -> T | None:
    try:
        return CONVERTER.structure(value, cls)
    except (ClassValidationError, NotAllowed):
        return None


def _mistakes(error: BaseException, path: Path, cls: Any) -> Iterator[Mistake]:
    """Flatten a tree of cattrs errors."""
    if isinstance(error, ClassValidationError):
        placed, others = error.group_exceptions()
        for inner, attribute in placed:
            yield from _mistakes(inner, (*path, camel(attribute.name)), attribute.type)
        for inner in others:
            yield from _mistakes(inner, path, error.cl)
    elif isinstance(error, IterableValidationError):
        for inner, item in error.group_exceptions()[0]:
            yield from _mistakes(inner, (*path, item.index), item.type)
    elif isinstance(error, ForbiddenExtraKeysError):
        yield from _unknown(error, path)
    elif isinstance(error, KeyError):
        yield Mistake(path, f"is missing: {allowed_text(cls)}")
    else:
        yield Mistake(path, str(error), shown=True)


def _unknown(error: ForbiddenExtraKeysError, path: Path) -> Iterator[Mistake]:
    known = [camel(a.name) for a in attrs.fields(error.cl)]
    for key in sorted(error.extra_fields):
        hint = did_you_mean(key, known)
        yield Mistake((*path, key), f"unknown key{hint}; known here: {', '.join(known)}", of_key=True)


def _without(value: Any, paths: list[Path]) -> Any:
    """A copy of ``value`` that lacks ``paths``; a list with a bad item is left out whole."""
    if isinstance(value, list):
        return [_without(item, [p[1:] for p in paths if p[0] == i]) for i, item in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    copy = {}
    for key, inner in value.items():
        below = [p[1:] for p in paths if p[0] == key]
        if not any(not p or (len(p) == 1 and isinstance(p[0], int)) for p in below):
            copy[key] = _without(inner, below) if below else inner
    return copy


def allowed_text(cls: Any) -> str:
    """What a place of this type allows, in words."""
    kind = kind_of(cls)
    if kind is not None:
        return kind.allowed
    return "a list" if get_origin(cls) is tuple else "a mapping"


def kind_of(cls: Any) -> Kind | None:
    """The `Kind` of ``Annotated[…, kind]``, also inside an optional."""
    if get_origin(cls) is Annotated:
        return next((m for m in get_args(cls)[1:] if isinstance(m, Kind)), None)
    return next((k for k in map(kind_of, get_args(cls)) if k is not None), None) if is_optional(cls) else None


def is_optional(cls: Any) -> bool:
    return type(None) in get_args(cls)


# --- the converter -------------------------------------------------------------------------------


def _read(kind: Kind, value: Any) -> Any:
    if not isinstance(value, str):
        raise NotAllowed(kind.allowed)
    try:
        return kind.read(value)
    except ValueError as error:
        hint = f" ({error})" if str(error) else ""
        raise NotAllowed(kind.allowed + hint) from None


def _scalar_hook(cls: Any) -> Callable[[Any, Any], Any]:
    kind = kind_of(cls)
    if kind is None:
        raise TypeError(f"{cls} has no kind")

    def hook(value: Any, _: Any) -> Any:
        return _read(kind, value)

    return hook


def _optional_hook(cls: Any) -> Callable[[Any, Any], Any]:
    inner = next(a for a in get_args(cls) if a is not type(None))
    hook = CONVERTER.get_structure_hook(inner)

    def structure_optional(value: Any, _: Any) -> Any:
        return None if value is None else hook(value, inner)

    return structure_optional


def _class_hook(cls: Any) -> Callable[[Any, Any], Any]:
    names: dict[str, Any] = {a.name: override(rename=camel(a.name)) for a in attrs.fields(cls)}
    inner = make_dict_structure_fn(cls, CONVERTER, _cattrs_forbid_extra_keys=True, **names)
    keys = ", ".join(camel(a.name) for a in attrs.fields(cls))

    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            raise NotAllowed(f"a mapping with {keys}")
        return inner(value, cls)

    return hook


def _key_hook(cls: Any) -> Callable[[Any, Any], Any]:
    """A key of a tenant may be a text alone."""
    mapping = _class_hook(cls)

    def hook(value: Any, _: Any) -> Any:
        return mapping(value, cls) if isinstance(value, dict) else ApiKey(hash=_read(KEY, value))

    return hook


def _tuple_hook(cls: Any) -> Callable[[Any, Any], Any]:
    inner = homogenous_tuple_structure_factory(cls, CONVERTER)

    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, list):
            raise NotAllowed("a list")
        return inner(value, cls)

    return hook


def _is_tuple(cls: Any) -> bool:
    return get_origin(cls) is tuple


def _is_annotated(cls: Any) -> bool:
    return get_origin(cls) is Annotated


def _is_key(cls: Any) -> bool:
    return cls is ApiKey


def _converter() -> Converter:
    converter = Converter(detailed_validation=True)
    converter.register_structure_hook_factory(attrs.has, _class_hook)
    converter.register_structure_hook_factory(_is_key, _key_hook)
    converter.register_structure_hook_factory(_is_tuple, _tuple_hook)
    converter.register_structure_hook_factory(is_optional, _optional_hook)
    converter.register_structure_hook_factory(_is_annotated, _scalar_hook)
    return converter


CONVERTER = _converter()
