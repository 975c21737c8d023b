"""The deepest chain of calls below node_poll leaves of a board's reserve what a port and its interrupts need.

An AVR's image is another after link-time optimisation: test_image.py measures its stack."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

import boards
from codegen.build import generate
from codegen.model_file import load_graph
from codegen.planner import Training
from codegen.prebuild import C_FLAGS, CC_FLAGS
from codegen.tiers import DEFAULT_TIERS, tiers_from
from tests.firmware.conftest import require
from tests.firmware.node.harness import FIRMWARE, NODE

ARM = ("arm-none-eabi-gcc", "-O2", "-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16")
PORTS_SHARE = 128  # main, the port's own functions, soft float, one interrupt
CALL = re.compile(r"R_(?:ARM_THM_CALL|ARM_THM_JUMP24)\s+(?:\.text\.)?([\w.]+)$")


@pytest.mark.parametrize(("board_id", "compiler"), [("nrf52_dk", ARM)])
def test_the_deepest_chain_fits_the_reserve(board_id: str, compiler: tuple[str, ...], tmp_path: Path) -> None:
    board = boards.load(board_id)
    graph, weights = load_graph(boards.PROJECT_ROOT / "examples" / "mnist" / "model.py", None, 1)
    generate(board, graph, weights, tiers_from(DEFAULT_TIERS), Training(), tmp_path)
    flags = [*C_FLAGS, *CC_FLAGS, f"-I{tmp_path}", f"-I{FIRMWARE}", "-DFIRMWARE_HASH=1UL"]
    flags += [f"-DLINK_MTU={board.training.mtu}", f"-DLINK_WINDOW={board.training.window}"]
    gcc = [require(compiler[0]), *compiler[1:], *flags, "-ffunction-sections", "-fstack-usage"]
    subprocess.run([*gcc, "-c", *map(str, NODE)], cwd=tmp_path, check=True)
    depth, chain = deepest("node_poll", frames(tmp_path), calls(compiler[0], tmp_path))
    assert chain[-1].startswith("engine_"), "training, and nothing else, is what the reserve is for"
    assert depth <= board.training.stack - PORTS_SHARE, chain


def frames(folder: Path) -> dict[str, int]:
    """Return the bytes of stack that each function takes, the return address included."""
    rows = [line.split("\t") for path in folder.glob("*.su") for line in path.read_text().splitlines()]
    assert all(kind != "dynamic" for _, _, kind in rows), "a frame whose size is not known before it runs"
    return {where.rsplit(":", 1)[1]: int(size) for where, size, _ in rows}


def calls(compiler: str, folder: Path) -> dict[str, set[str]]:
    """Return which functions each function calls, or jumps to at its end."""
    objdump = compiler.replace("gcc", "objdump")
    objects = [str(path) for path in folder.glob("*.o")]
    listing = subprocess.run([objdump, "-dr", *objects], capture_output=True, text=True, check=True).stdout
    found: dict[str, set[str]] = defaultdict(set)
    caller = ""
    for line in listing.splitlines():
        if head := re.match(r"[0-9a-f]+ <(.+)>:$", line):
            caller = head[1]
        elif call := CALL.search(line):
            found[caller].add(call[1])
    return found


def deepest(
    function: str, frames: dict[str, int], calls: dict[str, set[str]], above: tuple[str, ...] = ()
) -> tuple[int, tuple[str, ...]]:
    """Return the bytes of the deepest chain from `function` down, and the chain."""
    assert function not in above, f"recursion: {(*above, function)}"
    below = [deepest(callee, frames, calls, (*above, function)) for callee in calls[function] & frames.keys()]
    depth, chain = max(below, default=(0, ()))
    return frames[function] + depth, (function, *chain)
