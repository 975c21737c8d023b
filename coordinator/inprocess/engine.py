"""What a plan's generated code computes: logits, gradients, and a node's own round of training."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from codegen.planner import Plan
from codegen.protocol import Setup
from codegen.weights import weight_bytes
from coordinator.inprocess.library import load

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


class Engine:
    """One plan's code with weights in it. Widths count from the plan's own, 0, to the narrowest tier."""

    def __init__(self, plan: Plan, weights: Sequence[Floats]) -> None:
        """Compile it, with the frozen ones of the global `weights`. Raises CompilerError."""
        self.plan = plan
        self._classes = plan.sub_model.graph.classes
        self._library = load(plan, weights)
        self._library.inprocess_round.restype = ctypes.c_bool
        self._library.training_loss.restype = ctypes.c_float
        self._library.training_saturated.restype = ctypes.c_uint32
        if plan.accumulates:
            self._library.inprocess_gradient.restype = ctypes.c_float
        self._weights = self._array(ctypes.c_char, "model_weights", weight_bytes(plan))

    def _array(self, kind: Any, name: str, count: int) -> Any:
        return (kind * count).in_dll(self._library, name)

    @property
    def weights(self) -> bytes:
        """The weights as they travel."""
        return bytes(self._weights)

    @weights.setter
    def weights(self, packed: bytes) -> None:
        ctypes.memmove(self._weights, packed, len(packed))

    def view(self, name: str) -> Floats:
        """Return model_weights or model_gradients of a float32 plan as an array that is written through."""
        count = self.plan.sub_model.graph.parameters
        return np.frombuffer(self._array(ctypes.c_float, name, count), np.float32)

    def logits(self, x: Bytes, width: int = 0) -> Floats:
        """Return the logits of u8 samples [n, features]: [n, classes]."""
        made = np.empty((len(x), self._classes), np.float32)
        self._library.inprocess_logits(ctypes.c_uint8(width), _at(x), ctypes.c_uint32(len(x)), _at(made))
        return made

    def gradient(self, width: int, x: Bytes, soft: Floats, weights: Floats, scale: float) -> float:
        """Add scale × the gradient of the weighted cross-entropy with `soft` [n, classes] to model_gradients, which the
        plan must have; return the loss."""
        return float(
            self._library.inprocess_gradient(
                ctypes.c_uint8(width), _at(x), ctypes.c_uint32(len(x)), _at(soft), _at(weights), ctypes.c_float(scale)
            )
        )

    def adjust(self, values: Floats) -> None:
        """Have these added to the logits of labelled samples: [classes]."""
        logit = ctypes.c_int16 if self.plan.kernel == "fixed" else ctypes.c_float
        self._library.training_logit_of.restype = logit
        places = self._array(logit, "training_adjustment", len(values))
        places[:] = [self._library.training_logit_of(ctypes.c_float(value)) for value in values]

    def rehearse(self, targets: Bytes) -> None:
        """Give the node the soft targets of the proxy images that it holds: [plan.proxy, classes], in 1/255."""
        ctypes.memmove(self._array(ctypes.c_char, "model_targets", targets.size), targets.tobytes(), targets.size)

    def round(self, setup: Setup, x: Bytes, y: npt.NDArray[np.uint16], proxy: Bytes) -> None:
        """Train as a node does in a round. Raises ArithmeticError if a loss was not finite."""
        if not self._library.inprocess_round(_at(x), _at(y), ctypes.c_uint32(len(x)), _at(proxy), setup.encode()):
            raise ArithmeticError(f"the loss of tier {self.plan.sub_model.tier.name} is not finite")

    @property
    def loss(self) -> float:
        """The mean loss of the last epoch at the plan's own width."""
        return float(self._library.training_loss())

    @property
    def saturated(self) -> int:
        """How often a fixed-point weight or logit was held at the end of 16 bits in the last round."""
        return int(self._library.training_saturated())


def _at(array: npt.NDArray[Any]) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)
