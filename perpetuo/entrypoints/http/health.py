"""``/health/live``, ``/health/ready`` and ``/metrics``."""

import hmac
from typing import Any

from litestar import MediaType, Request, Response, get

from perpetuo.domain.model.errors import Reason, Refusal
from perpetuo.entrypoints.http.refusals import RefusedError
from perpetuo.entrypoints.http.wired import Container


@get(["/health/live", "/healthz"], summary="Is this worker alive?", tags=["Health"], sync_to_thread=False)
def live() -> dict[str, str]:
    """Never touches a store."""
    return {"status": "live"}


@get(["/health/ready", "/readyz"], summary="Should this worker get requests?", tags=["Health"], sync_to_thread=False)
def ready(container: Container) -> Response[dict[str, Any]]:
    """
    503 only for this worker's own state; a shared dependency that is away is `degraded`, and still 200.

    Names only: who may ask is everybody. The log and ``/admin`` say what is wrong.
    """
    if container.stage != "ready":
        return Response({"status": container.stage}, status_code=503)
    names = sorted(container.problems())
    return Response({"status": "degraded", "problems": names} if names else {"status": "ready"})


@get("/metrics", summary="Prometheus metrics, summed over all workers", media_type=MediaType.TEXT, tags=["Health"])
async def metrics(request: Request[Any, Any, Any], container: Container) -> Response[bytes]:
    token = container.environment.metrics_token
    given = request.headers.get("authorization", "")
    if token is not None and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
        raise RefusedError(Refusal(Reason.INVALID_API_KEY, "/metrics needs `Authorization: Bearer <metrics token>`."))
    body, content_type = await container.metrics.render()
    return Response(body, headers={"content-type": content_type})
