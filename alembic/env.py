"""Where does Alembic find the database? All else is in `perpetuo.adapters.sql.migrate`."""

from alembic import context
from perpetuo.adapters.environment import Variables
from perpetuo.adapters.sql import migrate

migrate.run(context, Variables().get("DATABASE_URL"))
