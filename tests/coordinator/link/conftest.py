"""The firmware's link, compiled for each payload and window that a test asks for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from codegen.protocol_header import protocol_header
from simulation.wire import SOURCES, Peer, peer_flags
from tests.firmware.conftest import CompileShared, compile_program, compile_shared

__all__ = ["compile_program", "compile_shared", "make_peer"]

MakePeer = Callable[[int, int], Peer]


@pytest.fixture(scope="session")
def make_peer(compile_shared: CompileShared, tmp_path_factory: pytest.TempPathFactory) -> MakePeer:
    """Return a function of (mtu, window) that makes a node."""
    folder = tmp_path_factory.mktemp("generated")
    (folder / "protocol.h").write_text(protocol_header())

    def make(mtu: int = 120, window: int = 8) -> Peer:
        return Peer(compile_shared(SOURCES, ("-O2", *peer_flags(folder, mtu, window))))

    return make


@pytest.fixture
def peer(make_peer: MakePeer) -> Peer:
    return make_peer(120, 8)
