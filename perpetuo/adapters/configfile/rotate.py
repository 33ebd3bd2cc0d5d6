"""
How does a configuration file get another key for a tenant, while the one before stays good for a while?

    the old entry    keeps its name, is written by its hash, and gets ``expires``
    a new entry      at the end of the list, by its hash, with the old one's models and limits

Rule 1: only these two places of the text change; comments, order and quotes elsewhere stay as they are.
Rule 2: the text that comes out is read again as `perpetuo check` reads it. It has to say exactly what was wanted, or
        nothing is changed.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import attrs
import yaml

from perpetuo.adapters.configfile.load import load_sources
from perpetuo.adapters.configfile.problems import ConfigError
from perpetuo.adapters.configfile.sources import Sources, read_sources, with_text
from perpetuo.domain.model.money import usd
from perpetuo.domain.model.settings import Settings
from perpetuo.domain.model.tenants import ApiKey, Limits, Tenant

SECOND_US = 1_000_000
DATED = re.compile(r"-\d{4}-\d\d(-\d+)?$")


class NotRotatedError(Exception):
    """The text says why."""


@attrs.frozen
class Rotation:
    """``text`` is the file as it would be; ``old`` and ``new`` are the two entries, in one line each."""

    file: Path
    """Where the tenant stands: the main file, or one that it includes."""
    before: str = attrs.field(repr=False)
    text: str = attrs.field(repr=False)
    old: str
    new: str
    line: int
    """Of the old entry, from 1."""
    name: str
    """The new key's."""
    expires: str
    """From when the old key is refused."""


def rotate(
    path: Path, variables: Mapping[str, str], tenant_id: str, key_name: str, new_key: str, *, now_us: int, grace_us: int
) -> Rotation:
    """Plan it; raises `ConfigError` for a configuration that is not valid, and `NotRotatedError`."""
    sources = read_sources(path, variables)
    settings = load_sources(sources)
    tenant, old = _find(settings, tenant_id, key_name)
    until_us = (now_us + grace_us) // SECOND_US * SECOND_US
    if old.expires_us is not None and old.expires_us <= until_us:
        raise NotRotatedError(
            f"Key {key_name} of tenant {tenant_id} already ends at {_instant(old.expires_us)}, which is sooner. "
            "Make a new key with `perpetuo keys new` instead."
        )
    number, where = sources.locate(("tenants", _place(sources, tenant_id)))
    source = sources.files[number]
    keys = _keys_node(source.text, int(where[1]), tenant_id)
    ends = _instant(until_us)
    new = attrs.evolve(
        old, name=_free_name(tenant, key_name, now_us), digest=sha256(new_key.encode()).digest(), expires_us=None
    )
    after = _edited(source.text, keys, tenant.keys.index(old), _entry(old, ends), _entry(new), ends)
    kept = tuple(attrs.evolve(key, expires_us=until_us) if key is old else key for key in tenant.keys)
    wanted = attrs.evolve(tenant, keys=(*kept, new))
    _check(with_text(sources, number, after, variables), settings, wanted)
    line = keys.value[tenant.keys.index(old)].start_mark.line + 1
    return Rotation(Path(source.file), source.text, after, _entry(old, ends), _entry(new), line, new.name, ends)


def _find(settings: Settings, tenant_id: str, key_name: str) -> tuple[Tenant, ApiKey]:
    tenant = settings.tenants.get(tenant_id)
    if tenant is None:
        raise NotRotatedError(f"The configuration has no tenant {tenant_id}.")
    for key in tenant.keys:
        if key.name == key_name:
            return tenant, key
    names = ", ".join(key.name for key in tenant.keys) or "none"
    raise NotRotatedError(f"Tenant {tenant_id} has no key {key_name}. It has: {names}.")


def _free_name(tenant: Tenant, old: str, now_us: int) -> str:
    """The old name and this month, in the place of an earlier one; a number behind it when there is such a key."""
    taken = {key.name for key in tenant.keys}
    stem = f"{DATED.sub('', old)[:100]}-{datetime.fromtimestamp(now_us / SECOND_US, UTC):%Y-%m}"
    names = (stem if number == 1 else f"{stem}-{number}" for number in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)


def _instant(us: int) -> str:
    return datetime.fromtimestamp(us // SECOND_US, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# --- where it stands -----------------------------------------------------------------------------


def _place(sources: Sources, tenant_id: str) -> int:
    return next(n for n, tenant in enumerate(sources.root["tenants"]) if tenant["id"] == tenant_id)


def _keys_node(text: str, place: int, tenant_id: str) -> yaml.SequenceNode:
    """The list of keys of the tenant at this place of the file."""
    keys = _member(_member(yaml.compose(text, Loader=yaml.SafeLoader), "tenants").value[place], "apiKeys")
    if not isinstance(keys, yaml.SequenceNode):
        raise NotRotatedError(f"The apiKeys of tenant {tenant_id} are no list in this file: rotate the key by hand.")
    return keys


def _member(node: Any, name: str) -> Any:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for key, value in node.value if key.value == name), None)


def _end(node: yaml.Node) -> int:
    """Where its last word ends: a block's own end mark is where the next thing begins."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)


# --- what becomes of it --------------------------------------------------------------------------


def _edited(text: str, keys: yaml.SequenceNode, place: int, old: str, new: str, ends: str) -> str:
    """Back to front, so that the places in front stay where they are."""
    return _expiring(_appended(text, keys, new), keys.value[place], old, ends)


def _entry(key: ApiKey, expires: str | None = None) -> str:
    parts = [f'hash: "sha256:{key.digest.hex()}"', f"name: {json.dumps(key.name, ensure_ascii=False)}"]
    if expires is not None:
        parts.append(f'expires: "{expires}"')
    if key.models is not None:
        parts.append(f"models: {json.dumps(list(key.models), ensure_ascii=False)}")
    if limits := _limits(key.limits):
        parts.append(f"limits: {{{', '.join(limits)}}}")
    return f"{{{', '.join(parts)}}}"


def _limits(limits: Limits) -> list[str]:
    found = {
        "rateLimitMin": limits.rate_per_minute,
        "concurrency": limits.concurrency,
        "budgetDay": None if limits.budget_day is None else usd(limits.budget_day),
        "budgetMonth": None if limits.budget_month is None else usd(limits.budget_month),
    }
    return [f"{name}: {value}" for name, value in found.items() if value is not None]


def _expiring(text: str, node: yaml.Node, entry: str, ends: str) -> str:
    """A mapping over several lines keeps them: its ``expires`` is replaced, or becomes its first line."""
    start, end = node.start_mark.index, node.end_mark.index
    if not isinstance(node, yaml.MappingNode) or node.flow_style:
        return text[:start] + entry + text[end:]
    given = _member(node, "expires")
    if given is not None:
        return f'{text[: given.start_mark.index]}"{ends}"{text[given.end_mark.index :]}'
    line = f'expires: "{ends}"{_newline(text)}{" " * node.start_mark.column}'
    return text[:start] + line + text[start:]


def _appended(text: str, keys: yaml.SequenceNode, entry: str) -> str:
    """``entry`` behind the last one; in a list over several lines, on a line of its own."""
    after = _end(keys.value[-1])
    if keys.flow_style:
        return f"{text[:after]}, {entry}{text[after:]}"
    end = text.find("\n", after)
    line = f"{' ' * keys.start_mark.column}- {entry}{_newline(text)}"
    return f"{text}{_newline(text)}{line}" if end < 0 else f"{text[: end + 1]}{line}{text[end + 1 :]}"


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _check(changed: Sources, before: Settings, wanted: Tenant) -> None:
    """Does the text say what was wanted, and nothing else?"""
    try:
        found = load_sources(changed)
    except ConfigError as error:
        raise NotRotatedError(f"The file could not be edited ({error.problems[0]}): rotate the key by hand.") from error
    expected = attrs.evolve(before, tenants={**before.tenants, wanted.id: wanted}, version=found.version)
    if found != expected:
        raise NotRotatedError("The file could not be edited without changing more than this key: do it by hand.")
