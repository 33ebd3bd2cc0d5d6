"""Events, refusals and what can be asked of them, in PostgreSQL or SQLite."""

from perpetuo.adapters.sql.database import Database
from perpetuo.adapters.sql.store import SqlEventStore

__all__ = ["Database", "SqlEventStore"]
