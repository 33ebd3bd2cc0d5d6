"""
How does a file become `Settings`, or a list of everything that is wrong with it?

text → `document` (values and places) → `structure` (classes) → `rules` (do they fit?) → `build` (the domain's values)
"""

from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any, get_args

import attrs

from perpetuo.adapters.configfile import rules, schema
from perpetuo.adapters.configfile.build import build
from perpetuo.adapters.configfile.catalogue import load_catalogue
from perpetuo.adapters.configfile.document import Broken, Document, Position, read_document
from perpetuo.adapters.configfile.problems import (
    ConfigError,
    Path,
    Problem,
    did_you_mean,
    is_secret,
    masked,
    path_text,
    quoted,
)
from perpetuo.adapters.configfile.structure import Mistake, structure
from perpetuo.domain.model.pricing import CatalogueEntry
from perpetuo.domain.model.settings import Settings

DEFAULT_FILE = "perpetuo.config.yaml"
_LISTS = {"providers": "id", "models": "name", "plans": "id", "tenants": "id"}


def load(
    path: FilePath, variables: Mapping[str, str], catalogue: Mapping[str, CatalogueEntry] | None = None
) -> Settings:
    """
    The settings in ``path``; raises `ConfigError`.

    ``variables`` is what ``${NAME}`` reads; it may raise ``ValueError`` for one that can't be read.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise _unreadable(path, "there is no such file; PERPETUO_CONFIG_PATH names another") from None
    except OSError as error:
        raise _unreadable(path, f"can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        column = error.start - error.object.rfind(b"\n", 0, error.start)
        raise ConfigError([Problem(str(path), line, column, "", "is not UTF-8 from here on")]) from None
    return load_text(text, variables, file=str(path), catalogue=catalogue)


def load_text(
    text: str,
    variables: Mapping[str, str],
    *,
    file: str = DEFAULT_FILE,
    catalogue: Mapping[str, CatalogueEntry] | None = None,
) -> Settings:
    """As `load`, from text; ``file`` is only named in problems."""
    findings = _Findings(file)
    document = read_document(text, variables, findings.of_document)
    findings.document = document
    draft = None if isinstance(document.root, Broken) else _draft(document, findings)
    if draft is not None:
        for mistake in rules.mistakes(draft):
            findings.of_value(mistake)
    if findings.problems or draft is None:
        raise ConfigError(findings.problems)
    return build(draft.complete(), load_catalogue() if catalogue is None else catalogue, text)


def _unreadable(path: FilePath, message: str) -> ConfigError:
    return ConfigError([Problem(str(path), 1, 1, "", message)])


class _Findings:
    """Collects problems and finds their places; at most one for each place."""

    def __init__(self, file: str) -> None:
        self.problems: list[Problem] = []
        self.mended: set[Path] = set()
        self.document = Document(None, {})
        self._file = file
        self._paths: set[Path] = set()

    def of_document(self, path: Path, place: Position, message: str) -> None:
        self._add(path, place, message)

    def of_value(self, mistake: Mistake) -> None:
        if mistake.path in self._paths:
            return
        shown = f"{self._seen(mistake.path)} is not allowed: " if mistake.shown else ""
        place = self.document.position(mistake.path, of_key=mistake.of_key)
        self._add(mistake.path, place, shown + mistake.message)

    def _add(self, path: Path, place: Position, message: str) -> None:
        self._paths.add(path)
        self.mended.add(path[:2])
        self.problems.append(Problem(self._file, *place, path_text(path, KNOWN_KEYS), message))

    def _seen(self, path: Path) -> str:
        """The value that was written, or as much of it as may be shown."""
        value = self.document.at(path)
        if value is None:
            return "nothing"
        if not isinstance(value, str):
            return "a mapping" if isinstance(value, dict) else "a list"
        sources = self.document.sources.get(path, ())
        return masked(value, sources) if sources or is_secret(path) else quoted(value)


# --- section by section --------------------------------------------------------------------------


def _draft(document: Document, findings: _Findings) -> rules.Draft | None:
    """Whatever can be read; an item of a list that can't does not take the others with it."""
    root = document.root
    fields = {schema.camel(a.name): a for a in attrs.fields(schema.ConfigFile)}
    if not isinstance(root, dict):
        findings.of_value(Mistake((), f"a configuration is a mapping with {', '.join(fields)}"))
        return None
    for key in root.keys() - fields.keys():
        message = f"unknown key{did_you_mean(key, fields)}; known here: {', '.join(fields)}"
        findings.of_value(Mistake((key,), message, of_key=True))
    found: dict[str, Any] = {}
    for key, field in fields.items():
        if key in _LISTS:
            found[key] = _items(root, key, get_args(field.type)[0], findings)
        elif root.get(key) is not None:
            found[key] = structure(_section_class(field.type), root[key], (key,), findings.of_value)
    lists = {key: found.pop(key) for key in _LISTS}
    names = {key: _names(root.get(key), name) for key, name in _LISTS.items()}
    return rules.Draft(**lists, rest=found, names=names, mended=frozenset(findings.mended))


def _section_class(annotation: Any) -> Any:
    """``Retry`` of ``Retry | None``."""
    return next(a for a in get_args(annotation) if a is not type(None))


def _items(root: dict[str, Any], key: str, cls: type[Any], findings: _Findings) -> tuple[tuple[int, Any], ...]:
    value = root.get(key)
    if key not in root:
        if attrs.fields_dict(schema.ConfigFile)[key].default is attrs.NOTHING:
            findings.of_value(Mistake((key,), "is missing: a list"))
        return ()
    if not isinstance(value, list):
        findings.of_value(Mistake((key,), "a list", shown=True))
        return ()
    read = ((i, structure(cls, item, (key, i), findings.of_value)) for i, item in enumerate(value))
    return tuple((i, item) for i, item in read if item is not None)


def _names(items: Any, name: str) -> frozenset[str]:
    values = (item.get(name) for item in items if isinstance(item, dict)) if isinstance(items, list) else ()
    return frozenset(v for v in values if isinstance(v, str))


def _keys_of(cls: Any) -> frozenset[str]:
    """Every key that ``cls`` and what is in it may have."""
    if not attrs.has(cls):
        return frozenset[str]().union(*map(_keys_of, get_args(cls)))
    fields = attrs.fields(cls)
    return frozenset(schema.camel(a.name) for a in fields).union(*(_keys_of(a.type) for a in fields))


KNOWN_KEYS = _keys_of(schema.ConfigFile)
