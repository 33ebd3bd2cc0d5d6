"""
What does the YAML text say, and where does it say it?

Rule 1: one pass over the parser's events gives values and positions; nothing is parsed twice.
Rule 2: a scalar stays the text that was written (a number is read by whoever knows what it means, so that
        money never passes through a float, and ``no`` is a name and not a boolean). ``null`` is ``None``.
Rule 3: ``${NAME}`` and ``${NAME:-default}`` are replaced in scalars, and their names are remembered, for masking.
Rule 4: no tags, no aliases, no key twice, no depth beyond what a configuration can have: each is a problem with its
        position, so that no text can make the process run code, grow or crash. (Composing with libyaml recurses in C:
        50,000 brackets are a segmentation fault. Events don't.)
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    StreamEndEvent,
)

from perpetuo.adapters.configfile.problems import Path

DEEPEST = 24
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_QUOTED = re.compile(r"'\S{3,}'")

Position = tuple[int, int]
"""Line and column, from 1."""
Report = Callable[[Path, Position, str], None]


class Broken:
    """Stands where a value could not be read; the problem has been reported."""


BROKEN = Broken()


class Map(dict[str, Any]):
    """A mapping that knows where it starts, and where its keys and values do."""

    __slots__ = ("key_marks", "mark", "marks")

    def __init__(self, mark: Any) -> None:
        super().__init__()
        self.mark = mark
        self.key_marks: dict[str, Any] = {}
        self.marks: dict[str, Any] = {}


class Seq(list[Any]):
    """A list that knows where it starts, and where its items do."""

    __slots__ = ("mark", "marks")

    def __init__(self, mark: Any) -> None:
        super().__init__()
        self.mark = mark
        self.marks: list[Any] = []


@attrs.frozen
class Document:
    """The values of one YAML document (`Map`, `Seq`, ``str`` or ``None``) and how to find them in its text."""

    root: Any
    sources: Mapping[Path, tuple[str, ...]]
    """Names of the variables that a scalar was made of."""

    def at(self, path: Path) -> Any:
        """The value at ``path``; `BROKEN` when there is none."""
        value = self.root
        for part in path:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return BROKEN
        return value

    def position(self, path: Path, *, of_key: bool = False) -> Position:
        """Where the value at ``path`` starts (or its key); of what is missing, where its nearest parent starts."""
        value, mark = self.root, getattr(self.root, "mark", None)
        for depth, part in enumerate(path):
            if isinstance(value, Map) and part in value:
                last = depth == len(path) - 1
                mark = value.key_marks[str(part)] if of_key and last else value.marks[str(part)]
            elif isinstance(value, Seq) and isinstance(part, int) and part < len(value):
                mark = value.marks[part]
            else:
                break
            value = value[part]
        return position(mark)


def position(mark: Any) -> Position:
    return (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)


def read_document(text: str, variables: Mapping[str, str], report: Report) -> Document:
    """Read ``text``; whatever is wrong with it goes to ``report``, and `BROKEN` stands in its place."""
    reader = _Reader(variables, report)
    try:
        root = reader.document(_events(text))
    except yaml.MarkedYAMLError as error:
        place = position(error.problem_mark or error.context_mark)
        # PyYAML may quote what it stumbled over, and that may be a key.
        message = f"no YAML: {_QUOTED.sub('a name', error.problem or '')}"
        hint = '; inside { } and [ ] a variable needs quotes: "${NAME}"' if "${" in _line(text, place[0]) else ""
        report((), place, message + hint)
        root = BROKEN
    except (yaml.YAMLError, UnicodeEncodeError) as error:
        report((), _place(text, error), "a character that YAML does not allow")
        root = BROKEN
    except _TooDeep as error:
        report((), error.position, f"nested too deeply: no configuration has more than {DEEPEST} levels")
        root = BROKEN
    return Document(root, reader.sources)


def _events(text: str) -> Iterator[Event]:
    """With libyaml where PyYAML has it: ten times faster, the same events."""
    return yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _line(text: str, number: int) -> str:
    """A line by its number, which may be behind the last."""
    return "".join(text.splitlines()[number - 1 : number])


def _place(text: str, error: Exception) -> Position:
    """Both kinds of error only give an offset into the text."""
    offset = getattr(error, "position", None) or getattr(error, "start", None) or 0
    before = text[: offset if isinstance(offset, int) else 0]
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


class _TooDeep(Exception):  # noqa: N818 - never leaves this module
    def __init__(self, mark: Any) -> None:
        self.position = position(mark)


class _Reader:
    """Turns events into values. One use."""

    def __init__(self, variables: Mapping[str, str], report: Report) -> None:
        self.sources: dict[Path, tuple[str, ...]] = {}
        self._variables = variables
        self._report = report

    def document(self, events: Iterator[Event]) -> Any:
        next(events)
        if isinstance(next(events), StreamEndEvent):
            return None
        self._events = events
        root = self._node(next(events), ())
        next(events)
        after = next(events)
        if isinstance(after, DocumentStartEvent):
            self._report((), position(after.start_mark), "a second document: a configuration is one")
        return root

    def _node(self, event: Event, path: Path) -> Any:
        if isinstance(event, AliasEvent):
            return self._broken(event, path, "aliases (*…) are not supported: share limits through a plan")
        value: Any
        if isinstance(event, ScalarEvent):
            value = self._scalar(event, path)
        elif len(path) >= DEEPEST:
            raise _TooDeep(event.start_mark)
        else:
            value = self._mapping(event, path) if isinstance(event, MappingStartEvent) else self._sequence(event, path)
        if getattr(event, "tag", None) is not None:
            return self._broken(event, path, "tags (!…) are not supported")
        return value

    def _sequence(self, start: Event, path: Path) -> Seq:
        found = Seq(start.start_mark)
        while not isinstance(event := next(self._events), SequenceEndEvent):
            found.marks.append(event.start_mark)
            found.append(self._node(event, (*path, len(found))))
        return found

    def _mapping(self, start: Event, path: Path) -> Map:
        found = Map(start.start_mark)
        while not isinstance(event := next(self._events), MappingEndEvent):
            key = self._key(event, path)
            value_event = next(self._events)
            value = self._node(value_event, (*path, key or "?"))
            if key is None:
                continue
            if key in found:
                first = "line {}, column {}".format(*position(found.key_marks[key]))
                self._report((*path, key), position(event.start_mark), f"written twice (first at {first})")
                continue
            found.key_marks[key] = event.start_mark
            found.marks[key] = value_event.start_mark
            found[key] = value
        return found

    def _key(self, event: Event, path: Path) -> str | None:
        if isinstance(event, ScalarEvent) and event.tag is None:
            return str(event.value)
        self._node(event, (*path, "?"))
        self._report(path, position(event.start_mark), "a key must be a plain name")
        return None

    def _scalar(self, event: ScalarEvent, path: Path) -> Any:
        text: str = event.value
        plain = event.style is None or event.style == ""
        if "${" in text:
            replaced = self._replace(text, event, path)
            if replaced is None:
                return BROKEN
            text = replaced
        return None if plain and text in _NULLS else text

    def _replace(self, text: str, event: Event, path: Path) -> str | None:
        names = tuple(dict.fromkeys(m.group(1) for m in _VARIABLE.finditer(text)))
        self.sources[path] = names
        if "${" in _VARIABLE.sub("", text):
            self._report(path, position(event.start_mark), "${ starts a variable: write ${NAME} or ${NAME:-default}")
            return None
        problems: list[str] = []

        def one(match: re.Match[str]) -> str:
            try:
                return self._variable(match.group(1), match.group(2))
            except ValueError as error:
                problems.append(str(error))
                return ""

        replaced = _VARIABLE.sub(one, text)
        for problem in dict.fromkeys(problems):
            self._report(path, position(event.start_mark), problem)
        return None if problems else replaced

    def _variable(self, name: str, default: str | None) -> str:
        """As in a shell: the default also stands in for an empty variable."""
        value = self._variables.get(name)
        if default is not None and not value:
            return default
        if value is None:
            raise ValueError(f"{name} is not set: set it, or name a file that holds it in {name}_FILE")
        return value

    def _broken(self, event: Event, path: Path, message: str) -> Broken:
        self._report(path, position(event.start_mark), message)
        return BROKEN
