"""Every exception of httpx has its fault."""

import inspect

import httpx
import pytest

from perpetuo.adapters.providers.transport.httpx_transport import FAULTS, fault_of
from perpetuo.domain.model.upstream import Fault

OF_THE_CLIENT_LAYER = {
    httpx.HTTPError, httpx.RequestError, httpx.DecodingError, httpx.TooManyRedirects, httpx.HTTPStatusError,
    httpx.InvalidURL, httpx.CookieConflict, httpx.StreamError, httpx.StreamConsumed, httpx.StreamClosed,
    httpx.ResponseNotRead, httpx.RequestNotRead,
}  # fmt: skip
"""Raised above the transport, by parts of httpx that we don't use."""


def test_t2_every_exception_of_the_transport_is_mapped() -> None:
    """A class that a new httpx adds is noticed here, before it is mistaken for something else."""
    exceptions = {
        value for value in vars(httpx).values() if inspect.isclass(value) and issubclass(value, BaseException)
    }
    assert exceptions == set(FAULTS) | OF_THE_CLIENT_LAYER


@pytest.mark.parametrize("kind", FAULTS)
def test_t2_before_the_first_byte_every_failure_is_connect(kind: type[httpx.TransportError]) -> None:
    """A class alone can't say whether the request was sent, and must not."""
    assert fault_of(kind("x"), sent=False) is Fault.CONNECT


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (httpx.RemoteProtocolError("Server disconnected without sending a response."), Fault.RESET),
        (httpx.RemoteProtocolError("peer closed connection without sending complete message body"), Fault.RESET),
        (httpx.RemoteProtocolError("<StreamReset stream_id:1, error_code:2, remote_reset:True>"), Fault.RESET),
        (httpx.RemoteProtocolError("illegal status line"), Fault.PROTOCOL),
        (httpx.ReadTimeout("x"), Fault.TIMEOUT),
        (RuntimeError("something of anyio's"), Fault.PROTOCOL),
    ],
)
def test_t2_afterwards_each_has_its_own(error: Exception, fault: Fault) -> None:
    """A server that went away is no server that talks nonsense."""
    assert fault_of(error, sent=True) is fault
