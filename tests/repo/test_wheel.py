"""A built wheel, installed elsewhere, has all it needs: templates, static files, migrations, SQL."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def installed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files, unpacked where no checkout is."""
    built = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(built), str(root)],
        check=True,
        capture_output=True,
    )
    target = built / "site"
    zipfile.ZipFile(next(built.glob("*.whl"))).extractall(target)
    return target


def run(installed: Path, code: str) -> str:
    """Runs Python that sees the unpacked wheel before anything else, outside the checkout."""
    return subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=installed,
        env={**os.environ, "PYTHONPATH": str(installed)},
    ).stdout.strip()


def test_it_brings_every_file_that_is_not_python(installed: Path, root: Path) -> None:
    """Each template, static file, migration and SQL function of the checkout is in the wheel."""
    for folder in ("templates", "static", "migrations"):
        here = {p.relative_to(root / folder) for p in (root / folder).rglob("*") if p.is_file() and p.suffix != ".pyc"}
        there = installed / "app" / "_resources" / folder
        assert {p.relative_to(there) for p in there.rglob("*") if p.is_file()} == here
    scripts = {p.relative_to(root) for p in (root / "app").rglob("*.sql")}
    assert {p.relative_to(installed) for p in installed.glob("app/*/sql/*.sql")} == scripts


def test_it_finds_them(installed: Path) -> None:
    """Run from the wheel, the application reads its own files, not the checkout's."""
    shown = run(
        installed,
        "from app import resources; from app.storage.migrate import functions, head;"
        "from app.cli.main import main; assert len(functions()) > 1000; print(resources.ROOT, head())",
    )
    assert shown.split()[0] == str(installed / "app" / "_resources")


def test_its_command_answers(installed: Path) -> None:
    """`python -m app.cli.main --version` works from the wheel."""
    assert run(installed, "from app.cli.main import main; main(['--version'])").startswith("gatehouse ")
