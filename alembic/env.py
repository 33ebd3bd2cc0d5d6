"""Where does Alembic find the database? All else is in `perpetuo.adapters.sql.migrate`."""

from alembic import context
from perpetuo.adapters.sql import migrate
from perpetuo.adapters.environment import Variables

migrate.run(context, Variables().get("DATABASE_URL"))
