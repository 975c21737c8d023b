"""Nodes of the small model: one with gradient buffer and origin, one without either."""

from __future__ import annotations

import pytest

from tests.firmware.conftest import CompileShared
from tests.firmware.node.harness import MEMORY, TRAININGS, Build, MemoryNode, build


@pytest.fixture(scope="session")
def builds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Build]:
    """The small model's headers, by name of the way to train."""
    return {name: build(training, tmp_path_factory.mktemp(name)) for name, training in TRAININGS.items()}


@pytest.fixture
def accumulating(builds: dict[str, Build], compile_shared: CompileShared) -> MemoryNode:
    """A node just booted, with a gradient buffer and a copy of the round's weights."""
    return MemoryNode(compile_shared(MEMORY, ("-O2", *builds["accumulating"].flags)), builds["accumulating"])


@pytest.fixture
def fused(builds: dict[str, Build], compile_shared: CompileShared) -> MemoryNode:
    """A node just booted, without them."""
    return MemoryNode(compile_shared(MEMORY, ("-O2", *builds["fused"].flags)), builds["fused"])
