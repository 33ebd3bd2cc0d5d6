"""One cluster for all tests of this folder: see `scene`."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import servers
from tests.cluster import Cluster
from tests.integration.cluster.scene import BEHAVIOURS, Scene, config
from tests.journal_upstream import JournalUpstream

FAIL_POINTS = Path(__file__).parents[2] / "failpoints"


@pytest.fixture(scope="package")
def shared_scene(_shared_postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    redis = servers.RedisServer("--maxmemory", "256mb")
    database = servers.new_database(_shared_postgres)
    upstream = JournalUpstream(BEHAVIOURS)
    environ = {"PYTHONPATH": str(FAIL_POINTS), "FAIL_POINTS": str(tmp_path_factory.mktemp("marks"))}
    try:
        try:
            redis.start()
        except servers.NoServerError as missing:
            pytest.skip(f"SERVER MISSING: {missing}")
        upstream.start()
        with Cluster(config(upstream), redis_url=redis.url, database_url=database, environ=environ) as cluster:
            yield Scene(cluster, upstream, redis, database)
    finally:
        upstream.close()
        redis.close()
        servers.drop_database(_shared_postgres, database)


@pytest.fixture
def scene(shared_scene: Scene) -> Iterator[Scene]:
    """The cluster, whole before and after every test; not across midnight, when budgets begin anew."""
    to_midnight = 86_400 - time.time() % 86_400
    time.sleep(to_midnight + 1 if to_midnight < 20 else 0)
    shared_scene.cluster.wait_whole()
    yield shared_scene
    shared_scene.cluster.wait_whole()
