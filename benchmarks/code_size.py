"""Measure how much flash each kind of layer takes: whole images, as PlatformIO builds them for a board.

`python -m benchmarks.code_size [--board BOARD] [--kernel fixed]` prints each image with the deviation of its plan,
then what codegen/code_size.py holds. The numbers are those that come closest to all images at once: the compiler makes
no two of them alike.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import boards
from boards import PROJECT_ROOT, Board
from codegen.code_size import buffers, kinds
from codegen.graph import Graph, Kind, Layer
from codegen.header import model_header
from codegen.planner import Training, best
from codegen.tiers import Tier

CLASSES = 4
SIZE = {"atmelavr": "avr-size", "nordicnrf52": "arm-none-eabi-size"}
PLAIN = Training(batch=1, encoding="weights")
BUFFERED = (replace(PLAIN, batch=8), Training(batch=8))  # gradients summed; and the weights of before kept as well
LETTERS: dict[str, Kind] = {
    "d": "dense", "c": "conv2d", "w": "depthwise_conv2d", "m": "max_pool", "a": "average_pool",
}  # fmt: skip
TRAINED = ("d", "dd", "ddd", "cd", "ccd", "cccd", "cdd", "wd", "cwd", "cmd", "cad", "ccmd", "ccwd", "cddd", "ccdd")
FROZEN = ("Dd", "DDd", "Cd", "CCd", "CCCd", "CDd", "Wd", "CWd", "CMd", "CAd")  # capitals: frozen, or below


def network(letters: str) -> Graph:
    """Return a small network of these layers over 16×16 pixels; each window halves the image."""
    layers: list[Layer] = []
    shape = (16, 16, 1)
    for index, letter in enumerate(letters):
        kind = LETTERS[letter.lower()]
        if kind == "dense":
            last = index == len(letters) - 1
            out, window = (1, 1, CLASSES if last else 3), (1, 1)
        else:
            out = (shape[0] // 2, shape[1] // 2, 2 if kind == "conv2d" else shape[2])
            window = (2, 2) if kind.endswith("pool") else (3, 3)
        weighted, frozen = not kind.endswith("pool"), letter.isupper()
        slope = 0.1 if weighted and index < len(letters) - 1 else 1.0
        stride = (1, 1) if kind == "dense" else (2, 2)
        layers.append(
            Layer(
                f"l{index}",
                kind,
                shape,
                out,
                window,
                stride,
                slope=slope,
                bias=weighted,
                trainable=weighted and not frozen,
            )
        )
        shape = out
    return Graph(letters, tuple(layers), CLASSES, softmax=True)


@dataclass(frozen=True)
class Built:
    """An image: what is in it besides framework_flash, and the flash of its code, without the model's constants."""

    name: str
    parts: tuple[str, ...]
    flash: int


def images(board: Board, networks: tuple[str, ...], workspace: Path) -> Iterator[Built]:
    """Yield the image of each network, on boards with room for buffers in each way to train it."""
    import numpy as np

    build = workspace / "build" / board.id
    run_pio(board, workspace)  # makes the folder, and model.h for the example
    buffered = () if board.training.env == "atmelavr" or board.training.kernel == "fixed" else BUFFERED
    for name, training in product(networks, (PLAIN, *buffered)):
        graph = network(name)
        plan = best(board, graph, (Tier("only", 1.0),), training)
        zeros = [np.zeros(tensor.shape, np.float32) for tensor in graph.tensors]
        (build / "generated" / "model.h").write_text(model_header(plan, zeros), encoding="utf-8")
        run_pio(board, workspace)
        command = [SIZE[board.training.env], str(build / "program.elf")]
        size = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        text, data = map(int, size.splitlines()[1].split()[:2])
        constants = sum(array.bytes for array in plan.arrays if array.section != "ram")
        yield Built(name, (*kinds(graph), *buffers(plan.accumulates, plan.keeps_origin)), text + data - constants)


def run_pio(board: Board, workspace: Path) -> None:
    """Build a board's image; what fails is shown."""
    command = [sys.executable, "-m", "platformio", "run", "--project-dir", str(PROJECT_ROOT), "-e", board.id]
    env = os.environ | {"PLATFORMIO_WORKSPACE_DIR": str(workspace)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)


def fit(measured: list[Built]) -> dict[str, int]:
    """Return the bytes of each part, of `framework_flash` and of a layer `again`, by least relative squares."""
    import numpy as np

    names = ["framework_flash", *dict.fromkeys(part for image in measured for part in image.parts), "again"]
    names.remove("first dense")  # part of framework_flash
    rows = []
    for image in measured:
        counts = dict.fromkeys(image.parts, 1) | {"framework_flash": 1}
        counts["again"] = len(image.parts) - len(set(image.parts))
        rows.append([counts.get(name, 0) for name in names])
    flash = np.array([image.flash for image in measured], np.float64)
    matrix = np.array(rows, np.float64) / flash[:, None]
    found = np.linalg.lstsq(matrix, np.ones(len(flash)), rcond=None)[0]
    for image, ratio in zip(measured, (matrix @ found).tolist(), strict=True):
        print(f"{image.name:6} {image.flash:6} {ratio - 1:+.1%}")
    return {name: round(value) for name, value in zip(names, found.tolist(), strict=True)}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--board", choices=("megaatmega2560", "nrf52840_dk_bare"), default="megaatmega2560")
    parser.add_argument("--kernel", choices=("f32", "fixed"), default="f32")
    parser.add_argument(
        "--networks", default=",".join(TRAINED + FROZEN), help="d(ense) c(onv2d) w(depthwise) m(ax) a(verage)"
    )
    options = parser.parse_args()
    board = boards.load(options.board)
    board = replace(board, training=replace(board.training, kernel=options.kernel))
    with tempfile.TemporaryDirectory() as folder:
        measured = list(images(board, tuple(options.networks.split(",")), Path(folder)))
    for name, size in fit(measured).items():
        print(f"{name:24} {size:6}")


if __name__ == "__main__":
    main()
