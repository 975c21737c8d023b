"""A node whose samples a sensor captures: a ring that grows and turns between rounds, and stands still during one."""

from __future__ import annotations

import numpy as np
import pytest

from codegen.protocol import Abort, Encoding, Hello, HelloRequest, Labels, LabelsRequest, Source, State, Train
from tests.firmware.conftest import CompileShared
from tests.firmware.node.harness import CLASSES, MEMORY, SAMPLES, MemoryNode, build, refusal, samples, setup, weights

WEIGHTS = weights(299)
LABELS = samples()[1]


@pytest.fixture(scope="module")
def library(compile_shared: CompileShared, tmp_path_factory: pytest.TempPathFactory) -> MemoryNode:
    """A node with a ring of SAMPLES."""
    built = build("fused", tmp_path_factory.mktemp("sensor"), source="sensor")
    return MemoryNode(compile_shared(MEMORY, ("-O2", *built.flags)), built)


@pytest.fixture
def sensing(library: MemoryNode) -> MemoryNode:
    """The same, just booted: its sensor has captured nothing."""
    library.boot()
    return library


def record(node: MemoryNode, count: int) -> None:
    """Let the sensor have given so many samples since the boot."""
    node.library.memory_record(count)
    node.finish()


def held(node: MemoryNode) -> int:
    hello = node.ask(HelloRequest())
    assert isinstance(hello, Hello) and hello.source == Source.SENSOR
    labels = node.ask(LabelsRequest(0))
    assert isinstance(labels, Labels) and sum(labels.counts) == hello.samples
    return hello.samples


def test_it_keeps_the_latest(sensing: MemoryNode) -> None:
    for count, expected in ((0, 0), (1, 1), (SAMPLES - 1, SAMPLES - 1), (SAMPLES, SAMPLES), (SAMPLES + 7, SAMPLES)):
        record(sensing, count)
        assert held(sensing) == expected
    counts = np.bincount(LABELS, minlength=CLASSES)
    assert sensing.ask(LabelsRequest(0)) == Labels(0, tuple(int(count) for count in counts))


@pytest.mark.parametrize("state", [State.READY, State.LOADED, State.DONE], ids=lambda state: state.name)
def test_nothing_is_captured_during_a_round(sensing: MemoryNode, state: State) -> None:
    record(sensing, 5)
    sensing.bring(state, WEIGHTS)
    record(sensing, 9)
    assert (sensing.state(), held(sensing)) == (state, 5)
    if state == State.DONE:
        assert sensing.fetch(Encoding.WEIGHTS)[0].samples == 5
    sensing.ask(Abort())
    sensing.finish()
    assert held(sensing) == 9


def test_without_samples_it_does_not_train(sensing: MemoryNode) -> None:
    sensing.bring(State.LOADED, WEIGHTS, setup())
    assert refusal(sensing.ask(Train(5))).name == "NO_SAMPLES"


def test_a_full_ring_trains_to_the_bits_of_flash(sensing: MemoryNode, fused: MemoryNode) -> None:
    record(sensing, SAMPLES)
    for node in (sensing, fused):
        node.bring(State.DONE, WEIGHTS)
    assert sensing.fetch(Encoding.WEIGHTS) == fused.fetch(Encoding.WEIGHTS)
