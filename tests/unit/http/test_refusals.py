"""What ordinary routes answer when Litestar refuses, and when one of them is broken."""

from typing import Any

from litestar import Litestar, get
from litestar.datastructures import State
from litestar.testing import TestClient

from perpetuo.adapters.system import RealSystem
from perpetuo.entrypoints.http.refusals import EXCEPTION_HANDLERS


@get("/v1/models/{name:path}", sync_to_thread=False)
def route(name: str) -> str:
    return name


@get("/v1/key", sync_to_thread=False)
def broken_route() -> str:
    raise ZeroDivisionError


class Wired:
    system = RealSystem()


def client() -> TestClient[Litestar]:
    app = Litestar(
        [route, broken_route], exception_handlers=EXCEPTION_HANDLERS, state=State({"container": Wired()}),
        logging_config=None,
    )  # fmt: skip
    return TestClient(app, raise_server_exceptions=False)


def error_of(response: Any) -> dict[str, Any]:
    found: dict[str, Any] = response.json()["error"]
    return found


def test_a_wrong_method_is_told_the_right_one() -> None:
    """405 names what is possible, in the header and in words."""
    with client() as asking:
        response = asking.put("/v1/models/a/b")
    assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")
    assert response.headers["allow"] in error_of(response)["message"]


def test_a_defect_of_ours_asks_for_no_retry_and_shows_no_traceback() -> None:
    """An honest 500 with an id to look for in the log."""
    with client() as asking:
        response = asking.get("/v1/key")
    assert response.status_code == 500
    assert error_of(response)["code"] == "internal_error"
    assert response.headers["x-should-retry"] == "false"
    assert response.headers["x-request-id"]
    assert "ZeroDivision" not in response.text
