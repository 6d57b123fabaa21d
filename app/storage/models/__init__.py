"""The tables as SQLAlchemy sees them, for Alembic and for the test that compares them with the migrations.

The migrations are the truth: constraints, policies, triggers and partitions stand there. Hot paths don't use these
classes at all but the functions in the `.sql` files.
"""

from typing import Final

from app.storage.models import audit, delivery, members, sign_in, staff, tenants
from app.storage.models.base import Base

AREAS: Final = (tenants, staff, members, sign_in, delivery, audit)
metadata: Final = Base.metadata
