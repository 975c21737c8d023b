"""Measure how much flash each kind of layer takes on AVR: whole images, as PlatformIO builds them for the Mega.

`python -m benchmarks.code_size [--kernel fixed]` prints each image with the deviation of its plan, then what
codegen/code_size.py holds. The numbers are those that come closest to all images at once: link-time optimisation makes
no two of them alike.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import boards
from boards import PROJECT_ROOT, Board
from codegen.code_size import kinds
from codegen.graph import Graph, Kind, Layer
from codegen.header import model_header
from codegen.planner import Training, best
from codegen.tiers import Tier

BOARD = "megaatmega2560"
CLASSES = 4
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


def images(board: Board, networks: tuple[str, ...], workspace: Path) -> Iterator[tuple[Graph, int]]:
    """Yield each network and the flash of its code: the image without the model's constants."""
    import numpy as np

    build = workspace / "build" / BOARD
    run_pio(workspace)  # makes the folder, and model.h for the example
    for name in networks:
        graph = network(name)
        plan = best(board, graph, (Tier("only", 1.0),), Training(batch=1, encoding="weights"))
        zeros = [np.zeros(tensor.shape, np.float32) for tensor in graph.tensors]
        (build / "generated" / "model.h").write_text(model_header(plan, zeros), encoding="utf-8")
        run_pio(workspace)
        size = subprocess.run(["avr-size", build / "program.elf"], capture_output=True, text=True, check=True).stdout
        text, data = map(int, size.splitlines()[1].split()[:2])
        yield graph, text + data - sum(array.bytes for array in plan.arrays if array.section != "ram")


def run_pio(workspace: Path) -> None:
    """Build the Mega's image; what fails is shown."""
    command = [sys.executable, "-m", "platformio", "run", "--project-dir", str(PROJECT_ROOT), "--environment", BOARD]
    env = os.environ | {"PLATFORMIO_WORKSPACE_DIR": str(workspace)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)


def fit(measured: list[tuple[Graph, int]]) -> dict[str, int]:
    """Return the bytes of each kind, of `framework_flash` and of a layer `again`, by least relative squares."""
    import numpy as np

    names = ["framework_flash", *dict.fromkeys(kind for graph, _ in measured for kind in kinds(graph)), "again"]
    names.remove("first dense")  # part of framework_flash
    rows = []
    for graph, _ in measured:
        seen = list(kinds(graph))
        counts = dict.fromkeys(seen, 1) | {"framework_flash": 1, "again": len(seen) - len(set(seen))}
        rows.append([counts.get(name, 0) for name in names])
    flash = np.array([flash for _, flash in measured], np.float64)
    matrix = np.array(rows, np.float64) / flash[:, None]
    found = np.linalg.lstsq(matrix, np.ones(len(flash)), rcond=None)[0]
    for (graph, size), ratio in zip(measured, (matrix @ found).tolist(), strict=True):
        print(f"{graph.name:6} {size:6} {ratio - 1:+.1%}")
    return {name: round(value) for name, value in zip(names, found.tolist(), strict=True)}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kernel", choices=("f32", "fixed"), default="f32")
    parser.add_argument(
        "--networks", default=",".join(TRAINED + FROZEN), help="d(ense) c(onv2d) w(depthwise) m(ax) a(verage)"
    )
    options = parser.parse_args()
    board = boards.load(BOARD)
    board = replace(board, training=replace(board.training, kernel=options.kernel))
    with tempfile.TemporaryDirectory() as folder:
        measured = list(images(board, tuple(options.networks.split(",")), Path(folder)))
    for name, size in fit(measured).items():
        print(f"{name:24} {size:6}")


if __name__ == "__main__":
    main()
