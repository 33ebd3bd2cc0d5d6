"""Who may call, and how often: a hook of LiteLLM's proxy, imported by it (``custom_auth`` in limits.yaml)."""

import os

from fastapi import Request
from litellm.proxy._types import UserAPIKeyAuth


async def user_api_key_auth(request: Request, api_key: str) -> UserAPIKeyAuth:
    """Limits that the load does not reach: they are counted, never met."""
    if api_key != os.environ["BENCH_KEY"]:
        raise ValueError("unknown key")
    return UserAPIKeyAuth(api_key=api_key, rpm_limit=1_000_000, tpm_limit=1_000_000_000)
