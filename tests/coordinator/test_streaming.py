"""A node that is streamed its share, and what it rehearses, as LinkNode does it, gives the bits of one that has both in
flash."""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable
from typing import cast

import pytest

from codegen.planner import SampleSource
from codegen.protocol import Hello
from coordinator.connection import Found
from coordinator.events import Event, NodeProgress
from coordinator.link.channel import Port
from coordinator.link.session import Session
from coordinator.nodes import LinkNode
from coordinator.rounds import Order, Update
from coordinator.shares import Share
from coordinator.streaming import training_order
from simulation.clock import run_virtually
from simulation.wire import Faults, Peer, WirePort
from tests.firmware.conftest import CompileShared, compile_program, compile_shared
from tests.firmware.node.harness import (
    CLASSES,
    MEMORY,
    PROXY,
    SAMPLES,
    Build,
    MemoryNode,
    build,
    fixed_weights,
    samples,
    soft_targets,
    weights,
)

__all__ = ["compile_program", "compile_shared"]

X, Y = samples(SAMPLES + PROXY)
SHARE = Share(X[:SAMPLES], Y[:SAMPLES], CLASSES, X[SAMPLES:])
EPOCHS = 2
PERFECT = Faults()
MakeNode = Callable[[str, SampleSource], MemoryNode]


class NodePeer:
    """A whole node at the other end of a wire."""

    def __init__(self, node: MemoryNode) -> None:
        self.node = node

    def exchange(self, data: bytes) -> bytes:
        """Feed what arrived; return what the node sends."""
        library, out = self.node.library, (ctypes.c_uint8 * 65536)()
        library.memory_push(data, len(data))
        while library.node_poll():
            pass
        count = library.memory_pull(out, len(out))
        return bytes(out)[:count]


class Wired:
    """The way to a node that is always there. Satisfies contact.Connection."""

    def __init__(self, open_port: Callable[[], Port]) -> None:
        self._open_port = open_port

    async def find(self) -> Found:
        session = Session(self._open_port())
        return Found("wire", session, await session.hello())

    async def greet(self, session: Session) -> Hello:
        return await session.hello()

    def check(self, found: Found) -> None:
        """It is the only one."""

    def trouble(self) -> str:
        return ""


@pytest.fixture(scope="module")
def make_node(compile_shared: CompileShared, tmp_path_factory: pytest.TempPathFactory) -> MakeNode:
    """Return a function of (way, source) that makes a node which has just booted."""
    builds: dict[tuple[str, SampleSource], Build] = {}

    def make(way: str, source: SampleSource) -> MemoryNode:
        if (way, source) not in builds:
            builds[way, source] = build(way, tmp_path_factory.mktemp(way), source=source, proxy=PROXY)
        built = builds[way, source]
        return MemoryNode(compile_shared(MEMORY, ("-O2", *built.flags)), built)

    return make


def order_for(node: MemoryNode) -> Order:
    """Return a round's order."""
    plan = node.built.plan
    blob = fixed_weights(plan) if plan.kernel == "fixed" else weights(299)
    return Order(3, 77, 0.05, 0.0, EPOCHS, 4, True, "auto", None, blob, 1, soft_targets())


def link(node: MemoryNode, faults: Faults, observer: Callable[[Event], None], seed: int = 1) -> LinkNode:
    """Return the host's end of a wire with these faults."""

    plan, wired = node.built.plan, Wired(lambda: WirePort(cast(Peer, NodePeer(node)), faults=faults, seed=seed))
    return LinkNode("node", plan, wired, observer, share=SHARE if plan.source == "stream" else None)


def train(node: MemoryNode, faults: Faults = PERFECT, seed: int = 1) -> tuple[Update, tuple[int, ...]]:
    """Hold a round; return the update and the labels."""

    async def main() -> tuple[Update, tuple[int, ...]]:
        linked = link(node, faults, lambda _: None, seed)
        await linked.open()
        try:
            order = order_for(node)
            await linked.settle(order)
            return await linked.train(order), linked.label_counts
        finally:
            await linked.close()

    return run_virtually(main)


def bits(update: Update) -> tuple[bytes, float, int]:
    return b"".join(tensor.tobytes() for tensor in update.delta), update.loss, update.samples


@pytest.mark.parametrize("source", ["flash", "stream"])
@pytest.mark.parametrize("way", ["accumulating", "fixed"])
@pytest.mark.parametrize(
    "faults", [PERFECT, Faults(flip=3e-4), Faults(drop=3e-4), Faults(double=3e-4), Faults(1e-4, 1e-4, 1e-4)], ids=str
)
def test_a_stream_is_as_good_as_flash_whatever_the_wire(
    make_node: MakeNode, way: str, faults: Faults, source: SampleSource
) -> None:
    expected, counts = train(make_node(way, "flash"))
    update, labels = train(make_node(way, source), faults)
    assert bits(update) == bits(expected) and labels == counts
    assert any(tensor.any() for tensor in update.delta)


@pytest.mark.parametrize("done", [0, 1, 51, 52, 103])
def test_a_host_that_comes_back_in_the_middle_goes_on(make_node: MakeNode, done: int) -> None:
    expected, _ = train(make_node("accumulating", "flash"))
    node = make_node("accumulating", "stream")

    async def main() -> tuple[Update, list[int]]:
        order, seen = order_for(node), list[int]()

        def observe(event: Event) -> None:
            if isinstance(event, NodeProgress) and event.stage == "training":
                seen.append(event.done)

        async def keep(_: Session) -> None: ...

        first = link(node, PERFECT, observe)
        await first.open()
        task = asyncio.ensure_future(first.train(order))
        while not seen or node.library.training_done() < done:
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait([task])
        await first.close()
        seen.clear()
        second = link(node, PERFECT, observe)
        await second._contact.open(keep)  # not second.open(), which makes it drop the round
        await second.settle(order)
        update = await second.train(order)
        await second.close()
        return update, seen

    update, seen = run_virtually(main)
    assert bits(update) == bits(expected)
    assert seen[0] >= done


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 16, 17, 64, 65, 1000])
def test_the_order_is_the_firmwares(make_node: MakeNode, count: int) -> None:
    library = make_node("fused", "flash").library
    library.training_order.restype = ctypes.c_uint32
    for seed, epoch in ((1, 0), (1, 1), (0xFFFFFFFF, 255)):
        theirs = [library.training_order(ctypes.c_uint32(seed), epoch, at, count) for at in range(count)]
        assert [training_order(seed, epoch, at, count) for at in range(count)] == theirs
