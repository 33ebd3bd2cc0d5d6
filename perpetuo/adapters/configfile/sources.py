"""
Which files make up a configuration, and what do they say?

Rule 1: the main file names others under ``include``, relative to itself and beside or below it. Included files hold
        lists of named things (`LISTS`) and nothing else: what is there once for the whole gateway (`server`, `admin`,
        `budget`, …) has one place, and no order of files decides anything. They include no others.
Rule 2: the lists are joined in the order of reading: the main file, then pattern by pattern, sorted by name.
Rule 3: a path into what was joined leads back to its file, so that every mistake is told where it was written.
Rule 4: a wildcard may match nothing (nobody has a file yet), but its directory has to be there: a mount that is away
        must not look like a hundred tenants who left.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path as FilePath
from pathlib import PurePath
from typing import Any

import attrs

from perpetuo.adapters.configfile import kinds, schema
from perpetuo.adapters.configfile.document import BROKEN, Broken, Document, Map, Position, Seq, read_document
from perpetuo.adapters.configfile.problems import Path, did_you_mean, quoted
from perpetuo.adapters.configfile.watch import Seen, has_wildcard, look

LISTS = {"providers": "id", "models": "name", "plans": "id", "tenants": "id"}
"""Sections that are lists, which included files may hold too, and what their items go by."""
FROM_OUTSIDE = ("apiKey", "baseUrl", "proxy")
_ONLY_MAIN = frozenset(schema.camel(a.name) for a in attrs.fields(schema.ConfigFile)) - LISTS.keys()


@attrs.frozen
class Finding:
    """A mistake seen while reading one file; ``path`` is within that file."""

    source: int
    path: Path
    place: Position
    message: str


@attrs.frozen
class Source:
    """One file. ``offsets``: where its lists begin in those of the whole configuration."""

    file: str
    text: str
    document: Document
    offsets: Mapping[str, int] = attrs.field(factory=dict)

    def whole_path(self, path: Path) -> Path:
        """A path within this file as one within the whole configuration."""
        if len(path) > 1 and isinstance(path[1], int) and path[0] in self.offsets:
            return (path[0], path[1] + self.offsets[str(path[0])], *path[2:])
        return path


@attrs.frozen
class Sources:
    """Everything that was read, joined. ``root`` is what one file would have said."""

    files: tuple[Source, ...]
    root: Any
    findings: tuple[Finding, ...]
    seen: Seen
    """The files as they were before they were read."""

    @property
    def version(self) -> str:
        """Short hash over every file; of a single one, that of its text."""
        digest = sha256(self.files[0].text.encode())
        for source in self.files[1:]:
            digest.update(f"\0{source.file}\0{source.text}".encode())
        return digest.hexdigest()[:12]

    @property
    def variables(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """By provider and member: the variables that its address or a secret of it was made of."""
        found: dict[tuple[str, str], tuple[str, ...]] = {}
        for place, provider in enumerate(self.root.get("providers") or ()):
            for member in FROM_OUTSIDE:
                number, path = self.locate(("providers", place, member))
                names = self.files[number].document.sources.get(path)
                if names:
                    found[provider["id"], member] = names
        return found

    @property
    def unmatched(self) -> list[str]:
        """Patterns that no file goes by yet."""
        return [pattern for pattern in self.seen.patterns if not look(self.seen.path, (pattern,)).included]

    def locate(self, path: Path) -> tuple[int, Path]:
        """Number of the file that a path of the whole configuration stands in, and the path there."""
        if len(path) > 1 and isinstance(path[1], int) and path[0] in LISTS:
            section, place = str(path[0]), path[1]
            number = max(n for n, s in enumerate(self.files) if n == 0 or s.offsets.get(section, place + 1) <= place)
            return number, (section, place - self.files[number].offsets.get(section, 0), *path[2:])
        return 0, path


def read_sources(path: FilePath, variables: Mapping[str, str]) -> Sources:
    """Read ``path`` and what it includes. What can't be read is a finding."""
    seen = look(path)
    text, problem = _text(path, "there is no such file; PERPETUO_CONFIG_PATH names another")
    reader = _Reader(path, variables)
    if problem is not None:
        reader.findings.append(problem)
        reader.files.append(Source(str(path), "", Document(BROKEN, {})))
        return reader.sources(seen)
    reader.read(str(path), text)
    patterns = reader.patterns()
    if patterns:
        # their identity before they are read, and the main file's from before it was
        seen = attrs.evolve(look(path, patterns), main=seen.main)
        for name, _ in seen.included:
            reader.include(name)
    return reader.sources(seen)


def sources_of(text: str, variables: Mapping[str, str], file: str) -> Sources:
    """As `read_sources`, of a text that includes nothing."""
    reader = _Reader(FilePath(file), variables)
    reader.read(file, text)
    return reader.sources(Seen(FilePath(file), (), None, ()))


def with_text(sources: Sources, number: int, text: str, variables: Mapping[str, str]) -> Sources:
    """As ``sources``, had one of its files another text. Nothing is read."""
    files = [(source.file, text if n == number else source.text) for n, source in enumerate(sources.files)]
    return attrs.evolve(with_texts(sources.seen.path, files, variables), seen=sources.seen)


def with_texts(path: FilePath, files: Sequence[tuple[str, str]], variables: Mapping[str, str]) -> Sources:
    """Files by name and text, the main one at ``path`` first. Nothing is read."""
    reader = _Reader(path, variables)
    for file, text in files:
        reader.read(file, text)
    return reader.sources(Seen(path, (), None, ()))


def _text(path: FilePath, absent: str) -> tuple[str, Finding | None]:
    place, message = (1, 1), ""
    try:
        return path.read_bytes().decode("utf-8-sig"), None
    except FileNotFoundError:
        message = absent
    except OSError as error:
        message = f"can't be read: {error.strerror}"
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        place = (line, error.start - error.object.rfind(b"\n", 0, error.start))
        message = "is not UTF-8 from here on"
    return "", Finding(0, (), place, message)


class _Reader:
    """Reads file after file. One use."""

    def __init__(self, path: FilePath, variables: Mapping[str, str]) -> None:
        self.files: list[Source] = []
        self.findings: list[Finding] = []
        self._path = path
        self._variables = variables
        self._names: dict[str, int] = {}
        """Names under ``include`` without a wildcard, by their place there."""

    def read(self, file: str, text: str) -> None:
        number = len(self.files)

        def report(path: Path, place: Position, message: str) -> None:
            self.findings.append(Finding(number, path, place, message))

        self.files.append(Source(file, text, read_document(text, self._variables, report)))

    def patterns(self) -> tuple[str, ...]:
        """What the main file includes, as far as it is right."""
        root = self.files[0].document.root
        named = root.get("include", []) if isinstance(root, Map) else []
        if not isinstance(named, list):
            self._of_include((), f"{_shown(named)} is not allowed: a list")
            return ()
        return tuple(pattern for i, pattern in enumerate(named) if self._is_right(i, pattern))

    def _is_right(self, i: int, pattern: Any) -> bool:
        try:
            name = kinds.INCLUDE.read(pattern if isinstance(pattern, str) else "")
        except ValueError:
            if not isinstance(pattern, Broken):
                self._of_include((i,), f"{_shown(pattern)} is not allowed: {kinds.INCLUDE.allowed}")
            return False
        missing = self._missing_directory(name)
        if missing is not None:
            self._of_include((i,), f"{quoted(name)} leads nowhere: there is no directory {missing}")
            return False
        self._names.setdefault(str(PurePath(name)), i)
        return True

    def _missing_directory(self, pattern: str) -> str | None:
        """The fixed part of a pattern, if it is no directory (rule 4)."""
        parts = PurePath(pattern).parts
        first = next((n for n, part in enumerate(parts) if has_wildcard(part)), 0)
        fixed = self._path.parent.joinpath(*parts[:first])
        return None if first == 0 or fixed.is_dir() else str(fixed)

    def include(self, name: str) -> None:
        path = self._path.parent / name
        text, problem = _text(path, "")
        if problem is not None and not problem.message:
            self._of_include((self._names.get(name, 0),), f"{path} is included, and there is no such file")
            return
        number = len(self.files)
        if problem is not None:
            self.findings.append(attrs.evolve(problem, source=number))
        self.read(str(path), text)
        self._check(number)

    def _of_include(self, rest: Path, message: str) -> None:
        path: Path = ("include", *rest)
        self.findings.append(Finding(0, path, self.files[0].document.position(path), message))

    def _check(self, number: int) -> None:
        """Included files hold lists, and nothing else (rule 1)."""
        document = self.files[number].document
        root, known = document.root, ", ".join(LISTS)
        if root is None or isinstance(root, Broken):
            return
        if not isinstance(root, Map):
            place = document.position(())
            self.findings.append(Finding(number, (), place, f"an included file is a mapping with {known}"))
            return
        for key, value in root.items():
            if key in LISTS:
                if not isinstance(value, list | Broken):
                    self.findings.append(Finding(number, (key,), document.position((key,)), "has to be a list"))
                continue
            place = document.position((key,), of_key=True)
            self.findings.append(Finding(number, (key,), place, self._misplaced(key, known)))

    def _misplaced(self, key: str, known: str) -> str:
        main = self._path
        if key == "include":
            return f"an included file can't include others: name them in {main}"
        if key in _ONLY_MAIN:
            return f"may only stand in {main}; included files hold {known}"
        return f"unknown key{did_you_mean(key, LISTS)}; an included file holds {known}"

    def sources(self, seen: Seen) -> Sources:
        """The lists of all files joined (rule 2)."""
        root, files = self.files[0].document.root, [self.files[0]]
        if isinstance(root, Map):
            root = _copied(root)
            files += [attrs.evolve(source, offsets=_join(root, source.document.root)) for source in self.files[1:]]
        else:
            files += self.files[1:]
        return Sources(tuple(files), root, tuple(self.findings), seen)


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    return quoted(value) if isinstance(value, str) else "a mapping" if isinstance(value, dict) else "a list"


def _copied(root: Map) -> Map:
    """A mapping whose lists can grow without changing the document's."""
    copy = Map(root.mark)
    copy.update({key: [*value] if isinstance(value, Seq) else value for key, value in root.items()})
    return copy


def _join(root: Map, further: Any) -> dict[str, int]:
    """Put the lists of a file behind those of ``root``; where each of them begins there."""
    offsets: dict[str, int] = {}
    if not isinstance(further, Map):
        return offsets
    for section in LISTS:
        value, whole = further.get(section), root.setdefault(section, []) if section in further else None
        if isinstance(value, list) and isinstance(whole, list):
            offsets[section] = len(whole)
            whole += value
    return offsets
