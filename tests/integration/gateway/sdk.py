"""
OpenAI's own client, unchanged but for two things: it counts the HTTP requests it makes, and unless it is ``patient`` it
notes how long it would wait before a retry instead of waiting.
"""

import time
from collections.abc import Iterator
from typing import Any

import httpx2
import openai

from tests.live import KEY, LiveGateway

HELLO: Any = [{"role": "user", "content": "hi"}]


class Counted(openai.OpenAI):
    """``sent``: HTTP requests. ``waits``: the seconds before each retry. ``told``: the ``retry-after-ms`` of each."""

    def __init__(
        self, gateway: LiveGateway, key: str = KEY, *, patient: bool = False, transport: Any = None, **options: Any
    ) -> None:
        self.sent = 0
        self.waits: list[float] = []
        self.told: list[str | None] = []
        self._patient = patient
        client = openai.DefaultHttpxClient(event_hooks={"request": [self._count]}, transport=transport, verify=False)
        super().__init__(base_url=gateway.url + "/v1", api_key=key, http_client=client, **options)

    def ask(self, **more: Any) -> Any:
        return self.chat.completions.create(**asked(more))

    def _count(self, _: object) -> None:
        self.sent += 1

    def _sleep_for_retry(self, *, retries_taken: int, max_retries: int, options: Any, response: Any) -> None:
        note(self, max_retries - retries_taken, options, response)
        if self._patient:
            super()._sleep_for_retry(
                retries_taken=retries_taken, max_retries=max_retries, options=options, response=response
            )


class AsyncCounted(openai.AsyncOpenAI):
    """The same of the asynchronous client; it never waits."""

    def __init__(self, gateway: LiveGateway, key: str = KEY, **options: Any) -> None:
        self.sent = 0
        self.waits: list[float] = []
        self.told: list[str | None] = []
        client = openai.DefaultAsyncHttpxClient(event_hooks={"request": [self._count]}, verify=False)
        super().__init__(base_url=gateway.url + "/v1", api_key=key, http_client=client, **options)

    async def ask(self, **more: Any) -> Any:
        return await self.chat.completions.create(**asked(more))

    async def _count(self, _: object) -> None:
        self.sent += 1

    async def _sleep_for_retry(self, *, retries_taken: int, max_retries: int, options: Any, response: Any) -> None:
        note(self, max_retries - retries_taken, options, response)


class SlowUpload(httpx2.HTTPTransport):
    """Sends the first byte of a body, then nothing for so many seconds, then the rest."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        return super().handle_request(
            httpx2.Request(
                request.method,
                request.url,
                headers=request.headers,
                content=self._slowly(request.read()),
                extensions=request.extensions,
            )
        )

    def _slowly(self, body: bytes) -> Iterator[bytes]:
        yield body[:1]
        time.sleep(self._seconds)
        yield body[1:]


def asked(more: dict[str, Any]) -> dict[str, Any]:
    return {"model": "m", "messages": HELLO, "max_tokens": 5, **more}


def note(sdk: Counted | AsyncCounted, left: int, options: Any, response: Any) -> None:
    headers = None if response is None else response.headers
    sdk.waits.append(sdk._calculate_retry_timeout(left, options, headers))
    sdk.told.append(None if headers is None else headers.get("retry-after-ms"))
