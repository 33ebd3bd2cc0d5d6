"""
The call path: ``POST /v1/chat/completions`` and ``/v1/embeddings``.

    head checks -> key -> body -> parse -> Gateway.complete

A plain ASGI function, not a Litestar handler: at this one place 35 µs a call are worth it
(docs/performance.md). Everything else in this folder is ordinary Litestar.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from perpetuo.adapters.dialects import openai
from perpetuo.domain.gateway.complete import Gateway
from perpetuo.domain.model.chat import Ask, CallRequest, Kind
from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.domain.model.events import RefusalNote
from perpetuo.domain.model.tenants import Caller
from perpetuo.domain.ports import Journal, System
from perpetuo.entrypoints.http import intake
from perpetuo.entrypoints.http.client import AsgiClient
from perpetuo.entrypoints.http.patience import Patience
from perpetuo.entrypoints.http.refusals import DEFECT_BODY

AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]
_log = logging.getLogger("perpetuo")
PARSE: dict[Kind, Callable[[bytes], Ask]] = {Kind.CHAT: openai.parse_chat, Kind.EMBEDDINGS: openai.parse_embeddings}


class Calls:
    """Takes calls in for one kind of endpoint."""

    def __init__(self, kind: Kind, gateway: Gateway, journal: Journal, system: System) -> None:
        self._kind = kind
        self._parse = PARSE[kind]
        self._gateway = gateway
        self._journal = journal
        self._system = system
        self._patience = Patience()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        started, started_us = self._system.monotonic(), self._system.now_us()
        head, wait = intake.read_head(scope["headers"]), self._patience.begin()
        client = AsgiClient(send, self._request_id(head), self._gateway.settings.budget_status, wait)
        try:
            caller = self._caller(scope, head)
            if isinstance(caller, Refusal):
                return await self._turn_away(scope, head, client, caller)
            body = await intake.read_body(receive, head, self._gateway.settings.server, wait)
            if isinstance(body, Refusal):
                return await self._refuse(scope, head, client, caller, body, close=True)
            request = self._request(scope, head, client, body, started, started_us)
            if isinstance(request, Refusal):
                return await self._refuse(scope, head, client, caller, request)
            client.watch(receive)
            await self._gateway.complete(caller, request, client)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer and no traceback
            await self._broken(client, error)
        finally:
            client.unwatch()
            self._patience.end(wait)

    async def _broken(self, client: AsgiClient, error: Exception) -> None:
        """A defect of ours: the log has where. A stream that has begun can only be cut off."""
        _log.error("POST %s is broken", self._kind.path, exc_info=error)
        if client.status:
            raise error
        await client.answer(500, (("content-type", "application/json"), ("x-should-retry", "false")), DEFECT_BODY)

    def _request_id(self, head: intake.Head) -> str:
        given = head.text(b"x-request-id") if head.options else None
        return given if given is not None and intake.SANE_ID.match(given) else self._system.new_id()

    def _caller(self, scope: Any, head: intake.Head) -> Caller | Refusal:
        """Head checks, then the key; the body has not been looked at."""
        if scope["method"] != "POST":
            return Refusal(Reason.METHOD_NOT_ALLOWED, f"{self._kind.path} takes POST, not {scope['method']}.")
        refusal = intake.check_framing(head, self._gateway.settings.server)
        if refusal is not None:
            return refusal
        key = intake.credential(head)
        return key if isinstance(key, Refusal) else self._gateway.authenticate(key)

    def _request(
        self, scope: Any, head: intake.Head, client: AsgiClient, body: bytes, started: float, started_us: int
    ) -> CallRequest | Refusal:
        said, key = intake.options_of(head), intake.idempotency_key(head)
        if isinstance(key, Refusal):
            return key
        if isinstance(said, Refusal):
            return said
        try:
            ask = self._parse(body)
            fingerprint = openai.fingerprint("POST", self._kind.path, body) if key is not None else None
        except openai.BadRequest as error:
            return Refusal(Reason.INVALID_REQUEST, error.message, error.param)
        return CallRequest(
            ask=ask,
            request_id=client.request_id,
            started_us=started_us,
            started=started,
            client_ip=self._address(scope, head),
            tag=said.tag,
            trace=said.trace,
            timeout=said.timeout,
            idempotency_key=key,
            fingerprint=fingerprint,
            wait=said.wait,
            call_id=client.request_id if client.request_id != said.request_id else None,
        )

    def _address(self, scope: Any, head: intake.Head) -> str | None:
        settings = self._gateway.settings
        address = intake.client_address(scope, head, settings.server)
        return intake.recorded_address(address, settings.audit.client_ip)

    async def _turn_away(self, scope: Any, head: intake.Head, client: AsgiClient, refusal: Refusal) -> None:
        """Refused before anybody is known: the body is not read, so the connection can't be used again."""
        headers = [("connection", "close")]
        if refusal.reason is Reason.METHOD_NOT_ALLOWED:
            headers.append(("allow", "POST"))
        await client.refuse(refusal, headers)
        if refusal.reason in (Reason.INVALID_API_KEY, Reason.API_KEY_EXPIRED):
            self._note(scope, head, client, refusal, None)

    async def _refuse(
        self,
        scope: Any,
        head: intake.Head,
        client: AsgiClient,
        caller: Caller,
        refusal: Refusal,
        *,
        close: bool = False,
    ) -> None:
        """Refused to a known caller; ``close``: the body was not read to its end."""
        await client.refuse(refusal, [("connection", "close")] if close else ())
        self._note(scope, head, client, refusal, caller)

    def _note(self, scope: Any, head: intake.Head, client: AsgiClient, refusal: Refusal, caller: Caller | None) -> None:
        self._journal.refused(
            RefusalNote(
                at_us=self._system.now_us(),
                request_id=client.request_id,
                tenant_id=caller.tenant.id if caller is not None else "",
                key_name=caller.key.name if caller is not None else "",
                reason=refusal.reason.value,
                status=client.status_of(refusal),
                model="other",
                client_ip=self._address(scope, head),
            )
        )
