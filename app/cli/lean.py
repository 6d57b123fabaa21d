"""Keeps SQLAlchemy out of the web process: 30 MB and half a second of start-up that nothing there uses.

Litestar's pagination imports advanced-alchemy, and SQLAlchemy with it, wherever the two are installed; they are, for
the migrations. To be imported before Litestar.
"""

import sys
from typing import Any, cast

if "sqlalchemy" not in sys.modules:
    # The import system's own way to say "not here" (docs of sys.modules).
    cast("dict[str, Any]", sys.modules)["advanced_alchemy"] = None
