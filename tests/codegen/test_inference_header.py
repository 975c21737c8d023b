"""The inference header: the engine's bits, without the engine, on this machine and compiled for each chip."""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from codegen.header import inference_header, model_header
from codegen.header_inference import InferenceWriter
from codegen.keras_reader import read_model
from codegen.planner import Plan, Training, plan
from codegen.tiers import Tier
from codegen.weights import pack
from tests.codegen.support import (
    Array,
    Compiled,
    FixedCompiled,
    Sample,
    Step,
    board,
    build_keras,
    random_weights,
    step,
)
from tests.codegen.test_fixed import CONVOLUTIONS, MAPS, PERCEPTRON, POOLS
from tests.firmware.conftest import BARE, STRICT, STRICT_CXX, require, undefined

RANGE = (-0.5, 1.25)
SETTINGS = Training(batch=1, input_range=RANGE)
WIDE = (  # more than 256 products in a sum, whose pieces lose bits
    step("Conv2D", filters=40, kernel_size=3, activation="leaky_relu"),
    step("Conv2D", filters=5, kernel_size=4, strides=2, padding="same"),
    step("Flatten"),
    step("Dense", units=3),
)
NETWORKS: dict[str, tuple[tuple[int, ...], tuple[Step, ...]]] = {
    "convolutions": ((7, 6, 2), CONVOLUTIONS),
    "pools": ((6, 6, 2), POOLS),
    "maps": ((7, 7, 4), MAPS),
    "perceptron": ((24,), PERCEPTRON),
    "wide": ((9, 9, 1), WIDE),
}
SOURCE = '#include "model_inference.h"\nconst {number} *logits_of(const uint8_t *sample);\n' + (
    "const {number} *logits_of(const uint8_t *sample)\n{{\n    return model_logits(sample);\n}}\n"
    "uint16_t class_of(const uint8_t *sample);\n"
    "uint16_t class_of(const uint8_t *sample)\n{{\n    return model_class(sample);\n}}\n"
)
MAIN = '#include <stdio.h>\n#include "model_inference.c"\n' + (
    "int main(void)\n{\n    static uint8_t sample[MODEL_FEATURES];\n"
    "    while (fread(sample, sizeof sample, 1, stdin) == 1) {\n"
    "        fwrite(logits_of(sample), sizeof *logits_of(sample), MODEL_CLASSES, stdout);\n    }\n    return 0;\n}\n"
)
SANITIZERS = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def network(name: str, kernel: str, frozen: Sequence[str] = (), width: float = 1.0) -> tuple[Plan, list[Array]]:
    """Return the plan of a network with random weights, and these weights."""
    shape, steps = NETWORKS[name]
    model = build_keras(shape, steps)
    weights = random_weights(model, np.random.default_rng(len(name)))
    trainable = [layer.name for layer in model.layers if layer.get_weights() and layer.name not in frozen]
    graph = read_model(model, trainable)
    tier = Tier("half" if width < 1 else "whole", width)
    return plan(board(kernel=kernel), graph, (tier,), tier, SETTINGS), weights


def samples(made: Plan, count: int = 40) -> Array:
    """Return samples, some of them dark, some with little in them: shifts must move."""
    generator = np.random.default_rng(7)
    x = generator.integers(0, 256, (count, made.sub_model.graph.features)).astype(np.uint8)
    x[::4] //= 16
    x[1::4] = np.where(x[1::4] > 200, x[1::4], 0)
    return x


def written(folder: Path, made: Plan, weights: Sequence[Array], peaks: Sequence[float] | None) -> Path:
    """Write the header, and C that makes functions of it; return the latter."""
    header = inference_header(made.sub_model, weights, made.kernel, SETTINGS, peaks)
    (folder / "model_inference.h").write_text(header)
    source = folder / "model_inference.c"
    source.write_text(SOURCE.format(number="int16_t" if made.kernel == "fixed" else "float"))
    return source


def header_logits(folder: Path, made: Plan, x: Array) -> Array:
    """Return what a program says of samples, in which undefined behaviour and reading astray are errors."""
    (folder / "main.c").write_text(MAIN)
    program = folder / "main"
    subprocess.run([require("gcc"), *STRICT, *SANITIZERS, folder / "main.c", "-o", program], check=True)
    done = subprocess.run([program], input=x.tobytes(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    number = np.int16 if made.kernel == "fixed" else np.float32
    return np.frombuffer(done.stdout, number).reshape(len(x), -1)


def engine_logits(
    folder: Path, engine: Sequence[Path], made: Plan, weights: Sequence[Array], x: Array, shifts: Sequence[int]
) -> Array:
    """Return the engine's logits of each sample, begun with these shifts; of fixed point in 1/256."""
    fixed = made.kernel == "fixed"
    library = (FixedCompiled if fixed else Compiled)(model_header(made, weights), engine, folder / "engine")
    packed = pack(made, made.sub_model.cut(weights))
    ctypes.memmove(library.bytes("model_weights", len(packed)), packed, len(packed))
    logits = []
    for sample in x:
        if isinstance(library, FixedCompiled):
            library.begin(1)
            library.bytes("model_shift", 2 * len(shifts))[::2] = bytes(shifts)
        of = Sample(sample.tobytes(), SETTINGS.input_scale, RANGE[0])
        logits.append(library.forward(0, of, made.sub_model.graph.classes) * library.logit_one)
    return np.array(logits)


CASES = [  # network, arithmetic, width, frozen layers, largest output expected
    ("convolutions", "f32", 1.0, (), None),
    ("pools", "f32", 0.5, (), None),
    ("maps", "f32", 1.0, ("l0",), None),
    ("perceptron", "f32", 0.5, (), None),
    ("convolutions", "fixed", 1.0, (), None),
    ("convolutions", "fixed", 0.5, ("l0",), 0.05),
    ("pools", "fixed", 1.0, (), 3.0),
    ("maps", "fixed", 1.0, ("l0",), 3.0),
    ("perceptron", "fixed", 0.5, (), 3.0),
    ("wide", "fixed", 1.0, (), 3.0),
]


@pytest.mark.parametrize("name, kernel, width, frozen, peak", CASES)
def test_the_header_gives_the_bits_of_the_engine(
    name: str, kernel: str, width: float, frozen: Sequence[str], peak: float | None, engine: list[Path], tmp_path: Path
) -> None:
    made, weights = network(name, kernel, frozen, width)
    peaks = None if peak is None else [peak] * len(made.sub_model.graph.layers)
    written(tmp_path, made, weights, peaks)
    shifts = InferenceWriter(made.sub_model, weights, kernel, SETTINGS, peaks).shifts() if kernel == "fixed" else []
    x = samples(made)
    logits = header_logits(tmp_path, made, x)
    assert len(np.unique(logits)) > 20
    np.testing.assert_array_equal(logits, engine_logits(tmp_path, engine, made, weights, x, shifts))


CHIPS = [  # with flags that leave no warning out, as C and as C++
    ("avr-gcc", ("-Os", "-mmcu=atmega328p", *STRICT)),
    ("avr-g++", ("-Os", "-mmcu=atmega328p", *STRICT_CXX)),
    ("arm-none-eabi-gcc", ("-Os", "-mcpu=cortex-m4", "-mthumb", *STRICT)),
    ("arm-none-eabi-g++", ("-Os", "-mcpu=cortex-m4", "-mthumb", *STRICT_CXX)),
    *((compiler, (*flags, *STRICT)) for compiler, flags in BARE.items()),
]


@pytest.mark.parametrize("compiler, flags", CHIPS)
@pytest.mark.parametrize("kernel", ["f32", "fixed"])
def test_the_header_compiles_for_each_chip_and_asks_for_nothing_else(
    compiler: str, flags: Sequence[str], kernel: str, tmp_path: Path
) -> None:
    made, weights = network("pools", kernel)
    source = written(tmp_path, made, weights, None)
    language = "c++" if compiler.endswith("++") else "c"
    command = [require(compiler), *flags, "-x", language, "-c", str(source), "-o", str(tmp_path / "model.o")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert undefined(compiler, tmp_path / "model.o") <= {"memcpy", "memcpy_P"}


def test_the_ram_in_the_head_is_what_an_avr_links(tmp_path: Path) -> None:
    for kernel, beside in (("f32", 2), ("fixed", 2 + 3)):
        made, weights = network("pools", kernel)
        source = written(tmp_path, made, weights, None)
        flags = ("-Os", "-mmcu=atmega328p", *STRICT, "-c")
        subprocess.run([require("avr-gcc"), *flags, source, "-o", tmp_path / "model.o"], check=True)
        sizes = subprocess.run(["avr-size", tmp_path / "model.o"], capture_output=True, text=True, check=True).stdout
        data, bss = map(int, sizes.splitlines()[1].split()[1:3])
        found = re.search(r"(\d+)  model_arena", (tmp_path / "model_inference.h").read_text())
        assert found and data + bss == int(found[1]) + beside
