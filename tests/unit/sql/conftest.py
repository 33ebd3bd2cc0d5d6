"""SQLite databases, migrated once and copied for each test."""

import shutil
from pathlib import Path

import pytest

from perpetuo.adapters.sql import migrate


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(migrated_file: Path, tmp_path: Path) -> str:
    """A migrated, empty database of this test's own."""
    copy = tmp_path / "events.db"
    shutil.copy(migrated_file, copy)
    return f"sqlite:///{copy}"
