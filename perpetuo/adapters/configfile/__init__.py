"""``perpetuo.config.yaml`` and the catalogue of prices, as values of the domain."""

from perpetuo.adapters.configfile.catalogue import Catalogue, load_catalogue
from perpetuo.adapters.configfile.load import DEFAULT_FILE, load, load_sources, load_text
from perpetuo.adapters.configfile.problems import ConfigError, Problem
from perpetuo.adapters.configfile.published import published_keys
from perpetuo.adapters.configfile.sources import Sources, read_sources
from perpetuo.adapters.configfile.watch import watch

__all__ = [
    "DEFAULT_FILE",
    "Catalogue",
    "ConfigError",
    "Problem",
    "Sources",
    "load",
    "load_catalogue",
    "load_sources",
    "load_text",
    "published_keys",
    "read_sources",
    "watch",
]
