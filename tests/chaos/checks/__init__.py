"""What must hold of a run, by subject. Each check takes `tests.chaos.evidence.Evidence` and yields what breaks it."""

from collections.abc import Callable, Iterator

import attrs

from tests.chaos.evidence import Evidence


@attrs.frozen
class Violation:
    """A promise broken: which, and by what."""

    name: str
    about: str

    def __str__(self) -> str:
        return f"{self.name}: {self.about}"


Check = Callable[[Evidence], Iterator[Violation]]
