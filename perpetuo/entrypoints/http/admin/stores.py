"""A store that is away makes its part of a page say so, never the page fail."""

from collections.abc import Awaitable
from typing import TypeVar

import attrs

from perpetuo.domain.ports import StoreUnavailable

T = TypeVar("T")


@attrs.frozen
class Away:
    """A store that could not be asked, and why."""

    why: str


async def asked(step: Awaitable[T]) -> T | Away:
    try:
        return await step
    except StoreUnavailable as error:
        return Away(str(error) or "the store is away")
