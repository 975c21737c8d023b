"""A whole round on an ESP32-C3's instructions: engine, link and node, spoken to as a coordinator does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import boards
from benchmarks.images import ToolError
from benchmarks.workloads import EXAMPLE, TIERS, with_kernel
from codegen.build import generate
from codegen.model_file import load_graph
from codegen.planner import Training
from codegen.prebuild import shard_header
from coordinator.data import write_shard
from coordinator.link.session import Session
from simulation.clock import run_virtually
from tests.firmware.chip import Chip, EmulatedChip, NativeChip, Wire
from tests.firmware.conftest import FIRMWARE, CompileShared
from tests.firmware.node.harness import Build, fixed_weights, weights
from tests.firmware.rounds import hold_round

SAMPLES = 3


async def one_round(chip: Chip, classes: int, blob: bytes) -> bytes:
    """Hold a round and return the update."""
    session = Session(Wire(chip))
    try:
        hello = await session.hello()
        assert (hello.board, hello.uid, hello.samples) == ("esp32-c3-devkitm-1", b"bare c3!", SAMPLES)
        return await hold_round(session, hello, classes, blob)
    finally:
        await session.close()


@pytest.mark.parametrize("kernel", boards.KERNELS)
def test_an_esp32_c3_trains_to_its_twins_bits(kernel: str, tmp_path: Path, compile_shared: CompileShared) -> None:
    graph, _ = load_graph(EXAMPLE, None, 1)
    board = with_kernel(boards.load("esp32-c3-devkitm-1"), kernel)
    board = replace(board, training=replace(board.training, framework_ram=250_000))  # a narrow tier: steps are short
    random = np.random.default_rng(5)
    nothing = [np.zeros(tensor.shape, np.float32) for tensor in graph.tensors]
    plan = generate(board, graph, nothing, TIERS, Training(batch=1), tmp_path)
    images = random.integers(0, 256, (SAMPLES, graph.features), dtype=np.uint8)
    write_shard(tmp_path / "shard.tfs", images, np.arange(SAMPLES, dtype=np.uint16), graph.classes)
    (tmp_path / "shard.h").write_text(shard_header((tmp_path / "shard.tfs").read_bytes(), "shard"))
    link = board.training
    defines = (f"-DLINK_MTU={link.mtu}", f"-DLINK_WINDOW={link.window}", "-DLINK_BAUD=115200", "-DFIRMWARE_HASH=1UL")
    built = Build(plan, tmp_path)
    blob = fixed_weights(plan) if kernel == "fixed" else weights(plan.sub_model.graph.parameters)
    try:
        chip = EmulatedChip(built, defines, tmp_path)
    except ToolError as error:
        pytest.fail(str(error), pytrace=False)
    twin = NativeChip(built, (f"-I{FIRMWARE}", *defines), compile_shared)
    update = run_virtually(lambda: one_round(chip, graph.classes, blob))
    assert update == run_virtually(lambda: one_round(twin, graph.classes, blob)) != blob
