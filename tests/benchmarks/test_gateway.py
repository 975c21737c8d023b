"""The benchmark of many wires: what it says of two, and that none carries more than its rate."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields

import boards
from benchmarks.gateway import BOARD, Figures
from codegen.protocol import FRAME_OVERHEAD


def test_two_wires_are_served_and_carry_no_more_than_their_rate() -> None:
    command = [sys.executable, "-m", "benchmarks.gateway", "--json", "--nodes", "2", "--seconds", "0.2"]
    done = subprocess.run(command, cwd=boards.PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found) == [field.name for field in fields(Figures)]
    shares, mtu = found["down"] + found["up"], BOARD.training.mtu
    assert (found["nodes"], len(found["down"]), len(found["up"])) == (2, 2, 2)
    assert 0 < found["worst"] == min(shares) <= found["median"] <= max(shares) < mtu / (mtu + FRAME_OVERHEAD)
    assert found["host_cpu"] > 0 and found["wires_cpu"] > 0
