"""
What do the configuration's files say, and what goes while they are broken?

What a worker of this server took over last goes then (see `kept`): for one that is born meanwhile, and for one that
missed the last right version because the next edit, a broken one, followed at once.
"""

from collections.abc import Mapping
from pathlib import Path

import attrs

from perpetuo.adapters.configfile import kept
from perpetuo.adapters.configfile.catalogue import load_catalogue
from perpetuo.adapters.configfile.load import load_sources
from perpetuo.adapters.configfile.problems import ConfigError
from perpetuo.adapters.configfile.sources import Sources, read_sources
from perpetuo.adapters.configfile.watch import Identity, Seen, identity
from perpetuo.adapters.environment import Variables
from perpetuo.domain.model.settings import Settings


@attrs.define(eq=False)
class ConfigState:
    """What is known about the configuration file."""

    loaded_at_us: int
    read_as: Seen
    """The files as they were before they were last read."""
    variables: Mapping[tuple[str, str], tuple[str, ...]] = attrs.field(factory=dict)
    """By provider and member: the variables that its address or a secret of it was made of."""
    problems: tuple[str, ...] = ()
    """Why the file as it is now was not taken over; the one before is in force."""
    kept_as: Identity = None
    """What another worker had taken over when that was last looked at."""


@attrs.frozen
class ConfigFiles:
    """Where they are. ``catalogue`` ``None``: the shipped one; ``run_dir`` ``None``: there are no other workers."""

    path: Path
    catalogue: Path | None = None
    run_dir: Path | None = None

    def read(self) -> Sources:
        """As they are now, right or not."""
        return read_sources(self.path, Variables())

    def settings(self, sources: Sources) -> Settings:
        """What they say; raises `ConfigError`."""
        catalogue = load_catalogue(self.catalogue) if self.catalogue is not None else None
        return load_sources(sources, catalogue)

    def taken_over(self, sources: Sources) -> Settings:
        """What they say, left for the other workers; raises `ConfigError`."""
        settings = self.settings(sources)
        kept.keep(self.run_dir, sources)
        return settings

    def first(self) -> tuple[Settings, Sources, tuple[str, ...]]:
        """What a worker begins with, its files, and what is wrong with them now; raises `ConfigError`: all of it."""
        sources = self.read()
        try:
            return self.taken_over(sources), sources, ()
        except ConfigError as error:
            found = self.kept(sources.seen)
            if found is None:
                raise
            return (*found, error.texts)

    def kept(self, broken: Seen) -> tuple[Settings, Sources] | None:
        """What was taken over last, by whichever worker; ``None``: nothing was yet. May raise `ConfigError`."""
        sources = kept.last_kept(self.run_dir, broken, Variables())
        return (self.settings(sources), sources) if sources is not None else None

    def kept_as(self) -> Identity:
        """Another one whenever a worker has taken something over."""
        return identity(self.run_dir / kept.NAME) if self.run_dir is not None else None
