"""What is trained: networks, their plans on a board, and examples that leave no multiply-accumulate out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from boards import PROJECT_ROOT, Board
from codegen.graph import Graph, Layer
from codegen.header import model_header
from codegen.model_file import load_graph
from codegen.planner import Plan, Training, plan
from codegen.tiers import DEFAULT_TIERS, Tier, tiers_from
from codegen.weights import pack

if TYPE_CHECKING:
    import numpy as np

EXAMPLE = PROJECT_ROOT / "examples" / "mnist" / "model.py"
TIERS = tiers_from({**DEFAULT_TIERS, "nano": 1 / 16})
SEED = 1
RATE = 0.05


@dataclass(frozen=True)
class Workload:
    """A plan, the global weights it starts from, and the examples; example i has label i mod classes."""

    plan: Plan
    weights: Sequence[np.ndarray]
    samples: np.ndarray  # u8 [count, features]
    rate: float

    @property
    def packed(self) -> bytes:
        """The trainable weights as `model_weights` holds them."""
        return pack(self.plan, self.plan.sub_model.cut(self.weights))

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a step, forward and backward, at the own width."""
        return self.plan.macs

    @property
    def files(self) -> dict[str, str]:
        """model.h and samples.h."""
        rows = ",\n".join("{" + ",".join(map(str, sample)) + "}" for sample in self.samples.tolist())
        labels = ",".join(str(at % self.plan.sub_model.graph.classes) for at in range(len(self.samples)))
        samples = (
            f"#define STEP_SAMPLES {len(self.samples)}\n"
            f"#define STEP_RATE {self.rate!r}f\n"
            f"static const uint8_t step_samples[STEP_SAMPLES][MODEL_FEATURES] IN_FLASH = {{\n{rows}\n}};\n"
            f"static const uint8_t step_labels[STEP_SAMPLES] IN_FLASH = {{{labels}}};\n"
        )
        return {"model.h": model_header(self.plan, self.weights), "samples.h": samples}


def perceptron(inputs: int, hidden: int, classes: int) -> Graph:
    """Return Dense, ReLU, Dense, softmax."""
    layers = (
        Layer("hidden", "dense", (1, 1, inputs), (1, 1, hidden), slope=0.0, bias=True, trainable=True),
        Layer("logits", "dense", (1, 1, hidden), (1, 1, classes), bias=True, trainable=True),
    )
    return Graph(f"{inputs}-{hidden}-{classes}", layers, classes, softmax=True)


def network(name: str) -> tuple[Graph, tuple[Tier, ...], Tier]:
    """Return graph, tiers and tier by the name in the results: "784-32-10", or "mnist_" and a tier of the example."""
    if name.startswith("mnist_"):
        graph, _ = load_graph(EXAMPLE, None, SEED)
        return graph, TIERS, next(tier for tier in TIERS if tier.name == name.removeprefix("mnist_"))
    inputs, hidden, classes = map(int, name.split("-"))
    only = Tier("expanded", 1.0)
    return perceptron(inputs, hidden, classes), (only,), only


def with_kernel(board: Board, kernel: str) -> Board:
    """Return the board with another arithmetic."""
    return replace(board, training=replace(board.training, kernel=kernel))


def dense_workload(name: str, board: Board, count: int = 1, batch: int = 1) -> Workload:
    """Return a workload in which the engine has nothing to skip: no input is zero and no ReLU is dead.

    Biases are one and the magnitudes of a unit's weights sum to less than one half, so that each activation lies
    between 0 and 2 whatever the example: in fixed point a large part of the largest.
    """
    import numpy as np

    graph, tiers, tier = network(name)
    generator = np.random.default_rng(SEED)
    weights: list[np.ndarray] = []
    for tensor in graph.tensors:
        if tensor.role == "bias":
            weights.append(np.ones(tensor.shape, np.float32))
        else:
            fan_in = int(np.prod(tensor.shape[:-1]))
            weights.append((generator.uniform(-0.5, 0.5, tensor.shape) / fan_in).astype(np.float32))
    samples = generator.integers(1, 256, (count, graph.features))
    return Workload(_plan(graph, tiers, tier, board, batch), weights, samples.astype(np.uint8), RATE)


def ordinary_workload(name: str, board: Board, count: int) -> Workload:
    """Return a workload like the real one: most pixels are zero, and half of the ReLUs are dead at any one time."""
    import numpy as np

    graph, tiers, tier = network(name)
    generator = np.random.default_rng(SEED)
    weights = []
    for tensor in graph.tensors:
        deviation = 0.1 if tensor.role == "bias" else (2.0 / np.prod(tensor.shape[:-1])) ** 0.5
        weights.append((deviation * generator.standard_normal(tensor.shape)).astype(np.float32))
    shape = (count, graph.features)
    samples = generator.integers(0, 256, shape) * (generator.random(shape) < 0.4)
    return Workload(_plan(graph, tiers, tier, board, 1), weights, samples.astype(np.uint8), RATE)


def _plan(graph: Graph, tiers: Sequence[Tier], tier: Tier, board: Board, batch: int) -> Plan:
    settings = Training(batch=batch, nested=False, encoding="weights")
    return plan(board, graph, tiers, tier, settings)
