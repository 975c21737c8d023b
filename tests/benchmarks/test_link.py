"""The benchmark of the link: its rows are possible, repeat, and no damaged frame is taken for right."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.link import WIRES, Wire, believe, measure
from codegen.protocol import FRAME_OVERHEAD


@pytest.mark.parametrize("wire", [WIRES[2], WIRES[4]], ids=["a 64-byte buffer", "16 ms"])
def test_a_wire_carries_what_its_frames_leave(wire: Wire, tmp_path: Path) -> None:
    for row in measure(wire, 0.0, tmp_path, transfers=2):
        assert row.goodput is not None
        assert 0.92 < row.goodput < row.payload / (row.payload + FRAME_OVERHEAD)
        assert (row.retransmitted, row.overruns, row.silent_corruptions) == (0, 0, 0)


def test_a_bad_wire_carries_less_in_shorter_chunks_and_the_same_each_time(tmp_path: Path) -> None:
    down, up = measure(WIRES[3], 1e-4, tmp_path, transfers=4)
    assert [down, up] == measure(WIRES[3], 1e-4, tmp_path, transfers=4)
    for row in (down, up):
        assert row.goodput is not None
        assert 0.75 < row.goodput < 0.86  # the best that chunks of any length come to is 0.849
        assert 80 < row.payload < 160 and row.retransmitted > 100 and row.silent_corruptions == 0


def test_damaged_frames_are_not_believed(tmp_path: Path) -> None:
    for row in believe(tmp_path, 20_000):
        assert (row.faulty_frames, row.silent_corruptions) == (20_000, 0)
