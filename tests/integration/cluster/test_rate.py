"""Rate limits over four workers (R1, R4)."""

from tests.integration.cluster.scene import Scene, key_of


def test_r1_a_hundred_clients_over_four_workers_get_exactly_the_limit(scene: Scene) -> None:
    """60 of 100 concurrent calls are admitted and reach the provider, at whichever worker they arrive."""
    answers = scene.cluster.at_once(100, lambda _: scene.cluster.chat(key_of("rated"), max_tokens=5), threads=100)
    assert sorted(answer.status_code for answer in answers) == [200] * 60 + [429] * 40
    scene.written("rated", 60)
    assert len(scene.journal_of("rated")) == 60
