"""Is an answer read as it was kept, also by the release before?"""

from perpetuo.adapters.redis.codec import admit_decision
from perpetuo.adapters.redis.plans import plan_request
from perpetuo.domain.model.admission import Replay, StoredAnswer
from tests.contract.ledger_world import event, request


def test_an_answer_that_was_kept_without_its_call_is_replayed() -> None:
    """It was kept before calls were noted; for a day there are such. The head is as it was: an older one reads ours."""
    asked = request("c-1")
    plan = plan_request(asked)
    read = admit_decision(
        [b"replay", b'[200,"text/plain",[["x-a","b"]]]', b"body", b""], asked, plan, event("c-1", "acme")
    )
    assert read == Replay(StoredAnswer(200, "text/plain", (("x-a", "b"),), b"body"))
