"""`python -m app.settings > .env.example`, `python -m app.settings --markdown > docs/settings.md`."""

import sys

from app.settings.reference import render_env_example, render_markdown

if __name__ == "__main__":
    sys.stdout.write(render_markdown() if "--markdown" in sys.argv[1:] else render_env_example())
