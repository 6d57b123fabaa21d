"""`.env.example` and `docs/settings.md` say what the code says."""

from pathlib import Path

from app.settings import load
from app.settings.loading import documented
from app.settings.reference import render_env_example, render_markdown

ROOT = Path(__file__).parents[2]
AGAIN = "run `python -m app.settings > .env.example; python -m app.settings --markdown > docs/settings.md`"


def test_env_example_is_generated_from_the_code() -> None:
    """A setting that is added, changed or removed shows in `.env.example`."""
    assert (ROOT / ".env.example").read_text(encoding="utf-8") == render_env_example(), AGAIN


def test_settings_page_is_generated_from_the_code() -> None:
    """A setting that is added, changed or removed shows in the documentation."""
    assert (ROOT / "docs/settings.md").read_text(encoding="utf-8") == render_markdown(), AGAIN


def test_env_example_names_every_variable_once() -> None:
    """No variable is missing in the file, none stands there twice."""
    names = [
        line[2:].partition("=")[0]
        for line in render_env_example().splitlines()
        if line.startswith("# ") and "=" in line
    ]
    assert [name for name in names if name.isupper()] == [variable.name for variable in documented()]


def test_env_example_with_every_default_written_out_changes_nothing(tmp_path: Path) -> None:
    """The defaults shown are the ones in force, and `.env.example` can be taken as `.env` as it is."""
    lines = render_env_example().splitlines()
    known = {f"# {variable.name}=" for variable in documented()}
    written_out = [line[2:] if line[: line.find("=") + 1] in known else line for line in lines]
    spelled = tmp_path / ".env"
    spelled.write_text("\n".join(written_out), encoding="utf-8")
    key = {"SECRET_KEY": "any"}
    assert load(key, dotenv=spelled) == load(key, dotenv=None)
    assert load(key, dotenv=ROOT / ".env.example") == load(key, dotenv=None)
