"""
The configuration in force, in words and figures.

Written out member by member, so that nothing comes along: no key, no hash, no address with a password in it. Of a
secret it says that there is one.
"""

from urllib.parse import urlsplit

from perpetuo.domain.model.models import Model, ProviderSpec
from perpetuo.domain.model.settings import Settings
from perpetuo.entrypoints.http.admin.facts import Facts
from perpetuo.entrypoints.http.admin.system.configuration import SECRET, sections


def in_force(settings: Settings) -> Facts:
    """What the file says, as it is understood; tenants have their own page."""
    return {
        "providers": [_provider(one) for one in settings.providers.values()],
        "models": [_model(one) for one in settings.models.by_name.values()],
        "admin_keys": [{"name": key.name, "role": key.role, "hash": SECRET} for key in settings.admin_keys],
        "rest": {
            f"{section}.{name}": ", ".join(value) or "none" if isinstance(value, list) else value
            for section, members in sections(settings).items()
            for name, value in members.items()
        },
    }


def _provider(one: ProviderSpec) -> Facts:
    where = urlsplit(one.base_url)
    return {
        "id": one.id,
        "kind": one.kind.value,
        "host": f"{where.hostname}:{where.port}" if where.port else where.hostname,
        "api_key": SECRET if one.api_key else None,
        "timeouts_s": {
            "connect": one.timeouts.connect,
            "first_token": one.timeouts.first_token,
            "idle": one.timeouts.idle,
            "total": one.timeouts.total,
        },
    }


def _model(one: Model) -> Facts:
    return {"name": one.name, "targets": [f"{target.provider}/{target.model}" for target in one.targets]}
