"""What several contracts need."""

from pathlib import Path

import pytest

from tests.certificates import self_signed


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for this machine that nobody has signed but itself, with its key."""
    return self_signed(tmp_path_factory.mktemp("tls"))
