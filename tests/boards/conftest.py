"""A directory for PlatformIO, filled where its registry cannot be reached."""

from pathlib import Path

import pytest

from boards import seed

NOWHERE = ("registry.invalid",)  # RFC 2606: never resolves


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that was seeded once."""
    root = tmp_path_factory.mktemp("a project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(root / "home"))
        patch.delenv("PLATFORMIO_CORE_DIR", raising=False)
        assert seed.seed(root, NOWHERE)
    return root
