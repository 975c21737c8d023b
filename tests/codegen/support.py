"""What the tests of codegen share: a board of any size, Keras models from a description, and the header compiled."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boards import PROJECT_ROOT, Board, Training
from codegen.graph import Graph, Layer

FIRMWARE = PROJECT_ROOT / "firmware"
WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-ffp-contract=off", f"-I{FIRMWARE}")
SOURCE = """#define MODEL_IMPLEMENTATION
#include "model.h"
#if MODEL_FIXED
typedef int16_t logit;
#else
typedef float logit;
#endif
logit *test_logits(void);
logit *test_logits(void) { return model_logits; }
"""

Array = np.ndarray[Any, np.dtype[Any]]


def board(ram: int = 1 << 24, flash: int = 1 << 24, **training: Any) -> Board:
    """Return a board that takes nothing for itself."""
    facts: dict[str, Any] = {
        "kernel": "f32", "bauds": (115200, 500000), "mtu": 120, "window": 8, "framework_ram": 0, "framework_flash": 0,
        "static_ram": ram, "stack": 0, "cycles_per_mac": 10.0, "cycles_per_sample": 1000, "usb": (),
        "emulation": ("native",), "env": "native",
    }  # fmt: skip
    return Board("bench", "Bench", "none", 1_000_000, ram, flash, Training(**{**facts, **training}))


def small_graph(frozen: Sequence[str] = ()) -> Graph:
    """Return a convolution with a bias and a dense layer without one."""
    layers = (
        Layer(
            "conv", "conv2d", (6, 6, 1), (3, 3, 4), (3, 3), (2, 2), slope=0.1, bias=True, trainable="conv" not in frozen
        ),
        Layer("logits", "dense", (3, 3, 4), (1, 1, 3), trainable="logits" not in frozen),
    )
    return Graph("small", layers, 3, softmax=True)


@dataclass(frozen=True)
class Step:
    """One Keras layer; `cut` tells which argument, if any, a tier makes smaller."""

    kind: str
    arguments: tuple[tuple[str, Any], ...] = ()

    @property
    def cut(self) -> str | None:
        """The argument that counts output channels."""
        return {"Dense": "units", "Conv1D": "filters", "Conv2D": "filters"}.get(self.kind)


def step(kind: str, **arguments: Any) -> Step:
    """Describe a layer."""
    return Step(kind, tuple(arguments.items()))


def build_keras(shape: Sequence[int], steps: Sequence[Step], hidden: Sequence[int] | None = None) -> Any:
    """Return the Keras model in float64, with `hidden` channel counts instead of its own, if they are given."""
    import keras

    counts = list(hidden or ())
    makers = [index for index, described in enumerate(steps) if described.cut]
    layers = [keras.Input(tuple(shape), dtype="float64")]
    for index, described in enumerate(steps):
        arguments = dict(described.arguments)
        if described.cut and hidden is not None and index != makers[-1]:
            arguments[described.cut] = counts.pop(0)
        layers.append(getattr(keras.layers, described.kind)(**arguments, dtype="float64", name=f"l{index}"))
    return keras.Sequential(layers)


def random_weights(model: Any, generator: np.random.Generator) -> list[Array]:
    """Give the model weights that float32 holds exactly, large enough that no layer dies out; return them."""
    weights = []
    for weight in model.get_weights():
        fan_in = max(1, int(np.prod(weight.shape[:-1]))) if weight.ndim > 1 else 4
        weights.append((generator.standard_normal(weight.shape) / np.sqrt(fan_in)).astype(np.float32))
    model.set_weights(weights)
    return weights


class Sample(ctypes.Structure):
    """struct engine_sample."""

    _fields_ = (("bytes", ctypes.c_char_p), ("scale", ctypes.c_float), ("offset", ctypes.c_float))


class Target(ctypes.Structure):
    """struct engine_target."""

    _fields_ = (
        ("label", ctypes.c_uint16),
        ("soft", ctypes.c_void_p),
        ("adjustment", ctypes.c_void_p),
        ("weight", ctypes.c_float),
        ("temperature", ctypes.c_float),
    )


class FixedTarget(ctypes.Structure):
    """struct fixed_target."""

    _fields_ = (
        ("label", ctypes.c_uint16),
        ("soft", ctypes.c_void_p),
        ("adjustment", ctypes.c_void_p),
        ("temperature", ctypes.c_uint16),
    )


class Compiled:
    """The generated header as a shared library."""

    logit: type[ctypes.c_float] | type[ctypes.c_int16] = ctypes.c_float
    logit_one = 1.0

    def __init__(self, header: str, engine: Sequence[Path], folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "model.h").write_text(header)
        (folder / "model.c").write_text(SOURCE)
        library = folder / "model.so"
        objects = [str(path) for path in engine]
        include = ["-I", str(folder), "-Wl,-Bsymbolic", str(folder / "model.c")]
        subprocess.run(["gcc", *WARNINGS, "-O1", "-fPIC", "-shared", "-o", library, *include, *objects], check=True)
        self._library = ctypes.CDLL(str(library))
        self._library.model_backprop.restype = ctypes.c_float
        self._library.test_logits.restype = ctypes.POINTER(self.logit)

    def floats(self, name: str, count: int) -> Array:
        """Return an array of the header, not a copy."""
        return np.ctypeslib.as_array((ctypes.c_float * count).in_dll(self._library, name))

    def bytes(self, name: str, count: int) -> Any:
        """Return the bytes of an array of the header, not a copy."""
        return (ctypes.c_char * count).in_dll(self._library, name)

    def forward(self, width: int, sample: Sample, classes: int) -> Array:
        """Return the logits."""
        self._library.model_forward(width, ctypes.byref(sample))
        return np.ctypeslib.as_array(self._library.test_logits(), (classes,)).astype(np.float64) / self.logit_one

    def backprop(self, width: int, sample: Sample, label: int, scale: float) -> float:
        """Return the loss, with the gradients taken."""
        target = self.target(label)
        return float(
            self._library.model_backprop(width, ctypes.byref(sample), ctypes.byref(target), ctypes.c_float(scale))
        )

    def target(self, label: int) -> ctypes.Structure:
        """Return a hard target."""
        return Target(label, None, None, 1.0, 1.0)

    def update(self, learning_rate: float, momentum: float) -> None:
        """Take a step with the gradients summed so far."""
        self._library.model_update(ctypes.c_float(learning_rate), ctypes.c_float(momentum))


class FixedCompiled(Compiled):
    """The same in fixed point."""

    logit = ctypes.c_int16
    logit_one = 256.0

    def target(self, label: int) -> ctypes.Structure:
        """Return a hard target."""
        return FixedTarget(label, None, None, 256)

    @property
    def saturated(self) -> int:
        """How often a weight or a logit was held."""
        return ctypes.c_uint32.in_dll(self._library, "fixed_saturated").value

    def begin(self, seed: int) -> None:
        """Start a round, or a sample, with the generator at a seed."""
        self._library.fixed_seed(ctypes.c_uint32(seed))

    def forget(self) -> None:
        """Start a round."""
        self._library.model_begin()
