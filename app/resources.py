"""Where the files that are not Python live: templates, static files, migrations.

In a checkout they stand beside the packages; in an installed wheel they lie inside `app/_resources`.
"""

from pathlib import Path
from typing import Final

_packaged = Path(__file__).parent / "_resources"
ROOT: Final = _packaged if _packaged.is_dir() else Path(__file__).parent.parent

TEMPLATES: Final = ROOT / "templates"
STATIC: Final = ROOT / "static"
MIGRATIONS: Final = ROOT / "migrations"
