"""The firmware's link, compiled for a payload and window; undefined behaviour traps."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.firmware.conftest import CompileShared
from tests.firmware.link.clink import SOURCES, Link

MakeLink = Callable[[int, int], Link]


@pytest.fixture(scope="session")
def make_link(compile_shared: CompileShared) -> MakeLink:
    """Return a function of (mtu, window)."""

    def make(mtu: int = 248, window: int = 8) -> Link:
        traps = ("-O1", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error")
        return Link(compile_shared(SOURCES, (*traps, f"-DLINK_MTU={mtu}", f"-DLINK_WINDOW={window}")), mtu, window)

    return make


@pytest.fixture(scope="session")
def link(make_link: MakeLink) -> Link:
    """The largest frames."""
    return make_link(248, 8)
