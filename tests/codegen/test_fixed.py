"""The fixed-point header: its mean update is Keras's gradient, it learns as f32 does, it compiles for each chip."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from codegen.header import model_header
from codegen.keras_reader import read_model
from codegen.planner import Plan, Training, plan
from codegen.tiers import Tier, sub_model
from codegen.weights import pack, unpack
from tests.codegen.support import (
    WARNINGS,
    Array,
    Compiled,
    FixedCompiled,
    Sample,
    Step,
    board,
    build_keras,
    random_weights,
    small_graph,
    step,
)
from tests.codegen.test_gradients import RANGE, Case, reference, within
from tests.firmware.conftest import require

SEEDS, RATE = 150, 0.05
CONVOLUTIONS = (
    step("Conv2D", filters=4, kernel_size=3, padding="same", activation="leaky_relu"),
    step("Conv2D", filters=6, kernel_size=(2, 1), strides=2, activation="leaky_relu", use_bias=False),
    step("Flatten"),
    step("Dense", units=5, activation="leaky_relu"),
    step("Dense", units=3),
)
POOLS = (
    step("Conv2D", filters=4, kernel_size=3, padding="same", activation="leaky_relu"),
    step("MaxPooling2D", pool_size=2, strides=1),
    step("DepthwiseConv2D", kernel_size=3, padding="same", activation="leaky_relu"),
    step("AveragePooling2D", pool_size=2, strides=2, padding="same"),
    step("LeakyReLU", negative_slope=0.3),
    step("Flatten"),
    step("Dense", units=3),
)
MAPS = (
    step("DepthwiseConv2D", kernel_size=3, strides=2, activation="leaky_relu"),
    step("Conv2D", filters=3, kernel_size=1),
    step("GlobalAveragePooling2D"),
)
PERCEPTRON = (
    step("Dense", units=6, activation="relu"),
    step("Dense", units=4, use_bias=False),
    step("Softmax"),
)


class Trainer:
    """A model in fixed point that starts every step from the same weights."""

    def __init__(self, planned: Plan, weights: Sequence[Array], engine: list[Path], folder: Path) -> None:
        self.plan = planned
        self.compiled = FixedCompiled(model_header(planned, weights), engine, folder)
        self.blob = pack(planned, planned.sub_model.cut(weights))
        self.held = self.compiled.bytes("model_weights", len(self.blob))

    def step(self, width: int, sample: Sample, label: int, seed: int) -> tuple[float, list[Array]]:
        """Return the loss and what one step took off the weights."""
        self.held[:] = self.blob
        self.compiled.begin(seed)
        loss = self.compiled.backprop(width, sample, label, RATE)
        pairs = zip(unpack(self.plan, self.blob), unpack(self.plan, bytes(self.held)), strict=True)
        return loss, [before - after for before, after in pairs]


@pytest.mark.parametrize(
    ("steps", "shape", "frozen"),
    [
        (CONVOLUTIONS, (6, 6, 1), 0),
        (CONVOLUTIONS, (6, 6, 2), 1),  # the first layer in flash
        (CONVOLUTIONS, (6, 6, 1), 2),  # one in the middle
        (CONVOLUTIONS, (6, 6, 1), 7),
        (POOLS, (6, 6, 1), 0),
        (POOLS, (6, 6, 1), 2),
        (MAPS, (6, 6, 2), 0),
        (PERCEPTRON, (12,), 0),
        (PERCEPTRON, (12,), 1),
    ],
)
def test_the_mean_update_is_the_gradient(
    steps: tuple[Step, ...], shape: tuple[int, ...], frozen: int, engine: list[Path], tmp_path: Path
) -> None:
    case = Case(shape, steps, frozen, (1.0, 0.5), 0, 3)
    model = build_keras(case.shape, case.steps)
    weights = random_weights(model, np.random.default_rng(case.seed))
    names = [layer.name for layer in model.layers if layer.get_weights()]
    graph = read_model(model, [name for index, name in enumerate(names) if not frozen >> index & 1])
    tiers = [Tier("wide", 1.0), Tier("narrow", 0.5)]
    planned = plan(board(kernel="fixed"), graph, tiers, tiers[0], Training(batch=1, input_range=RANGE))
    trainer = Trainer(planned, weights, engine, tmp_path / "c")
    generator = np.random.default_rng(7)  # no activation so near to zero that 8 bits lose its sign
    own, sample_bytes = planned.sub_model, generator.integers(0, 256, graph.features, dtype=np.uint8)
    x = (sample_bytes * planned.training.input_scale + RANGE[0]).reshape(1, *shape)
    for width, tier in enumerate(planned.widths):
        sub = sub_model(graph, tier)
        output, loss, gradients = reference(case, sub, weights, x, 1)
        sample = Sample(sample_bytes.tobytes(), 0.0, 0.0)
        trainer.compiled.forget()
        trainer.step(width, sample, 1, 1)  # until the scales have settled
        trainer.held[:] = trainer.blob
        logits = trainer.compiled.forward(width, sample, graph.classes)
        logits = np.exp(logits) / np.exp(logits).sum() if graph.softmax else logits
        assert np.abs(logits - output).max() < 0.03
        taken = [trainer.step(width, sample, 1, 7919 * seed + 1) for seed in range(SEEDS)]
        assert all(abs(found - loss) < 0.03 for found, _ in taken)
        means = [np.mean(steps, axis=0) / RATE for steps in zip(*(updates for _, updates in taken), strict=True)]
        largest = max(float(np.linalg.norm(gradient)) for gradient in gradients)
        for mean, expected in zip(means, within(own, sub, gradients), strict=True):
            assert np.linalg.norm(mean - expected) < 0.1 * np.linalg.norm(expected) + 0.01 * largest
            assert not mean[expected == 0].any() or width == 0


def batches(count: int) -> list[tuple[Array, int]]:
    """Return pixels and a label each: a bright row tells it."""
    generator, found = np.random.default_rng(5), []
    for _ in range(count):
        label = int(generator.integers(0, 3))
        pixels = generator.integers(0, 100, (6, 6, 1))
        pixels[2 * label] += 150
        found.append((pixels.astype(np.uint8), label))
    return found


def test_the_loss_falls_as_in_f32(engine: list[Path], tmp_path: Path) -> None:
    model = build_keras((6, 6, 1), CONVOLUTIONS)
    weights = random_weights(model, np.random.default_rng(3))
    tier, graph = Tier("wide", 1.0), read_model(model)
    curves = {}
    for kernel, kind in (("f32", Compiled), ("fixed", FixedCompiled)):
        planned = plan(board(kernel=kernel), graph, [tier], tier, Training(batch=1, nested=False))
        compiled = kind(model_header(planned, weights), engine, tmp_path / kernel)
        blob = pack(planned, planned.sub_model.cut(weights))
        compiled.bytes("model_weights", len(blob))[:] = blob
        curves[kernel] = [
            compiled.backprop(0, Sample(pixels.tobytes(), 1 / 255, 0.0), label, RATE) for pixels, label in batches(400)
        ]
        if isinstance(compiled, FixedCompiled):
            assert compiled.saturated == 0
    before, f32, fixed = (
        float(np.mean(part)) for part in (curves["f32"][:40], curves["f32"][-100:], curves["fixed"][-100:])
    )
    assert f32 < before / 3
    assert fixed == pytest.approx(f32, abs=before / 20)


@pytest.mark.parametrize("compiler", ["gcc", "avr-gcc -mmcu=atmega328p", "arm-none-eabi-gcc -mcpu=cortex-m0 -mthumb"])
@pytest.mark.parametrize("frozen", [(), ("conv",)])
def test_it_compiles_everywhere(compiler: str, frozen: tuple[str, ...], tmp_path: Path) -> None:
    require(compiler.split()[0])
    graph, tier = small_graph(frozen), Tier("t", 1.0)
    weights = [np.zeros(tensor.shape, np.float32) for tensor in graph.tensors]
    planned = plan(board(kernel="fixed"), graph, [tier], tier, Training())
    (tmp_path / "model.h").write_text(model_header(planned, weights))
    (tmp_path / "model.c").write_text('#define MODEL_IMPLEMENTATION\n#include "model.h"\n')
    subprocess.run([*compiler.split(), *WARNINGS, "-I.", "-c", "model.c"], cwd=tmp_path, check=True)
