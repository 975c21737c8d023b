"""Nodes of the small model: with gradient buffer and origin, without either, and in fixed point."""

from __future__ import annotations

import pytest

from tests.firmware.conftest import CompileShared
from tests.firmware.node.harness import MEMORY, WAYS, Build, MemoryNode, build


@pytest.fixture(scope="session")
def builds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Build]:
    """The small model's headers, by name of the way to train."""
    return {name: build(name, tmp_path_factory.mktemp(name)) for name in WAYS}


@pytest.fixture(scope="session")
def stream_builds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Build]:
    """The same for a board whose samples are streamed."""
    return {name: build(name, tmp_path_factory.mktemp(name), source="stream") for name in WAYS}


@pytest.fixture
def accumulating(builds: dict[str, Build], compile_shared: CompileShared) -> MemoryNode:
    """A node just booted, with a gradient buffer and a copy of the round's weights."""
    return MemoryNode(compile_shared(MEMORY, ("-O2", *builds["accumulating"].flags)), builds["accumulating"])


@pytest.fixture
def fused(builds: dict[str, Build], compile_shared: CompileShared) -> MemoryNode:
    """A node just booted, without them."""
    return MemoryNode(compile_shared(MEMORY, ("-O2", *builds["fused"].flags)), builds["fused"])


@pytest.fixture
def fixed(builds: dict[str, Build], compile_shared: CompileShared) -> MemoryNode:
    """A node just booted, in fixed point."""
    return MemoryNode(compile_shared(MEMORY, ("-O2", *builds["fixed"].flags)), builds["fixed"])
