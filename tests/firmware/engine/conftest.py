"""The engine, compiled and loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.firmware.conftest import FIRMWARE, CompileShared
from tests.firmware.engine.layers import Kernels

SOURCES = tuple(sorted((FIRMWARE / "engine").glob("*.c")))
INCLUDE = f"-I{FIRMWARE / 'engine'}"
SWEEP = Path(__file__).parent / "sweep.c"


@pytest.fixture(scope="session")
def kernels(compile_shared: CompileShared) -> Kernels:
    """The engine as native twins have it."""
    return Kernels(compile_shared([*SOURCES, SWEEP], ("-O2", INCLUDE)))
