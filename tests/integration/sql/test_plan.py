"""``perpetuo plan`` over PostgreSQL."""

import pytest

from tests.contract.plan_contract import PlanContract


class TestPostgres(PlanContract):
    @pytest.fixture
    def plan_url(self, emptied_url: str) -> str:
        return emptied_url
