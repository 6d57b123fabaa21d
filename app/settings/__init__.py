"""Typed settings from the environment and `.env`. Nothing is read at import: call `load`."""

from app.settings.loading import load
from app.settings.model import Environment, LogFormat, LogLevel, Settings

__all__ = ["Environment", "LogFormat", "LogLevel", "Settings", "load"]
