"""The engine, compiled once for all tests of generated code."""

import subprocess
from pathlib import Path

import pytest

from tests.codegen.support import FIRMWARE, WARNINGS


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Object files of the engine; undefined behaviour traps."""
    folder = tmp_path_factory.mktemp("engine")
    sources = sorted((FIRMWARE / "engine").glob("*.c"))
    traps = ("-fsanitize=undefined", "-fsanitize-undefined-trap-on-error")
    subprocess.run(["gcc", *WARNINGS, *traps, "-O1", "-fPIC", "-c", *sources], cwd=folder, check=True)
    return sorted(folder.glob("*.o"))
