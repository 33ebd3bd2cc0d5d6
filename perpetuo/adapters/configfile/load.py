"""
How do files become `Settings`, or a list of everything that is wrong with them?

files → `sources` (a `document` of values and places for each; joined) → `structure` (classes) → `rules` (do they fit?)
      → `build` (the domain's values)
"""

from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any, get_args

import attrs

from perpetuo.adapters.configfile import rules, schema
from perpetuo.adapters.configfile.build import build
from perpetuo.adapters.configfile.catalogue import load_catalogue
from perpetuo.adapters.configfile.document import Broken, Document, Position
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
from perpetuo.adapters.configfile.sources import LISTS, Finding, Sources, read_sources, sources_of
from perpetuo.adapters.configfile.structure import Mistake, structure
from perpetuo.domain.model.pricing import CatalogueEntry
from perpetuo.domain.model.settings import Settings

DEFAULT_FILE = "perpetuo.config.yaml"


def load(
    path: FilePath, variables: Mapping[str, str], catalogue: Mapping[str, CatalogueEntry] | None = None
) -> Settings:
    """
    The settings in ``path`` and what it includes; raises `ConfigError`.

    ``variables`` is what ``${NAME}`` reads; it may raise ``ValueError`` for one that can't be read.
    """
    return load_sources(read_sources(path, variables), catalogue)


def load_text(
    text: str,
    variables: Mapping[str, str],
    *,
    file: str = DEFAULT_FILE,
    catalogue: Mapping[str, CatalogueEntry] | None = None,
) -> Settings:
    """As `load`, from text that includes nothing; ``file`` is only named in problems."""
    return load_sources(sources_of(text, variables, file), catalogue)


def load_sources(sources: Sources, catalogue: Mapping[str, CatalogueEntry] | None = None) -> Settings:
    """As `load`, from files that were read."""
    findings = _Findings(sources)
    draft = None if isinstance(sources.root, Broken) else _draft(sources.root, findings)
    if draft is not None and not findings.lacks_a_file:
        for mistake in rules.mistakes(draft):
            findings.of_value(mistake)
    if findings.problems or draft is None:
        raise ConfigError(findings.problems)
    return build(draft.complete(), load_catalogue() if catalogue is None else catalogue, sources.version)


class _Findings:
    """Collects problems and finds their places; at most one for each place."""

    def __init__(self, sources: Sources) -> None:
        self._found: list[tuple[int, Problem]] = []
        self.mended: set[Path] = set()
        self.lacks_a_file = False
        """Names that its items have are not known, so nobody is blamed for using one."""
        self._sources = sources
        self._paths: set[tuple[int, Path]] = set()
        for finding in sources.findings:
            self._of_document(finding)

    @property
    def problems(self) -> list[Problem]:
        """File by file, in the order of reading."""
        return [problem for _, problem in sorted(self._found, key=lambda found: found[0])]

    def place(self, path: Path, seen_from: Path) -> str:
        """``tenants[0]``, with its file and line when that is another than where it is told."""
        number, local = self._sources.locate(path)
        text = path_text(local, KNOWN_KEYS)
        if number == self._sources.locate(seen_from)[0]:
            return text
        source = self._sources.files[number]
        return "{} in {}:{}:{}".format(text, source.file, *source.document.position(local))

    def _of_document(self, finding: Finding) -> None:
        self.lacks_a_file |= not finding.path or finding.path[:1] == ("include",)
        self.mended.add(self._sources.files[finding.source].whole_path(finding.path)[:2])
        self._add(finding.source, finding.path, finding.place, finding.message)

    def of_value(self, mistake: Mistake) -> None:
        number, path = self._sources.locate(mistake.path)
        if (number, path) in self._paths:
            return
        document = self._sources.files[number].document
        shown = f"{_seen(document, path)} is not allowed: " if mistake.shown else ""
        self.mended.add(mistake.path[:2])
        self._add(number, path, document.position(path, of_key=mistake.of_key), shown + mistake.message)

    def _add(self, number: int, path: Path, place: Position, message: str) -> None:
        self._paths.add((number, path))
        file = self._sources.files[number].file
        self._found.append((number, Problem(file, *place, path_text(path, KNOWN_KEYS), message)))


def _seen(document: Document, path: Path) -> str:
    """The value that was written, or as much of it as may be shown."""
    value = document.at(path)
    if value is None:
        return "nothing"
    if not isinstance(value, str):
        return "a mapping" if isinstance(value, dict) else "a list"
    sources = document.sources.get(path, ())
    return masked(value, sources) if sources or is_secret(path) else quoted(value)


# --- section by section --------------------------------------------------------------------------


def _draft(root: Any, findings: _Findings) -> rules.Draft | None:
    """Whatever can be read; an item of a list that can't does not take the others with it."""
    fields = {schema.camel(a.name): a for a in attrs.fields(schema.ConfigFile)}
    if not isinstance(root, dict):
        findings.of_value(Mistake((), f"a configuration is a mapping with {', '.join(fields)}"))
        return None
    for key in root.keys() - fields.keys():
        message = f"unknown key{did_you_mean(key, fields)}; known here: {', '.join(fields)}"
        findings.of_value(Mistake((key,), message, of_key=True))
    found: dict[str, Any] = {}
    for key, field in fields.items():
        if key in LISTS:
            found[key] = _items(root, key, get_args(field.type)[0], findings)
        elif root.get(key) is not None and key != "include":  # that has been followed
            found[key] = structure(_section_class(field.type), root[key], (key,), findings.of_value)
    lists = {key: found.pop(key) for key in LISTS}
    names = {key: _names(root.get(key), name) for key, name in LISTS.items()}
    return rules.Draft(**lists, rest=found, names=names, mended=frozenset(findings.mended), place=findings.place)


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
