"""A node in this process: the generated code and firmware/node/training.c as a shared library."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.images import FIRMWARE, TARGETS, compile_library, engine
from codegen.header import model_header
from codegen.planner import Plan
from codegen.protocol_header import protocol_header
from codegen.weights import pack, unpack, weight_bytes

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Rate:
    """How a round trains: steps of `learning_rate` on the mean gradient of `batch` samples."""

    learning_rate: float
    epochs: int = 1
    batch: int = 8
    nested: bool = False


class Node:
    """Trains what a plan's board would train, to the same bits. One round at a time."""

    def __init__(self, plan: Plan, weights: Sequence[np.ndarray], folder: Path) -> None:
        """Compile in `folder`, which is made; of the global `weights` the frozen ones are compiled in. ToolError."""
        self.plan = plan
        files = {"model.h": model_header(plan, weights), "protocol.h": protocol_header()}
        sources = [*engine(), *(FIRMWARE / "node" / name for name in ("training.c", "samples.c")), TARGETS / "node.c"]
        self.library = ctypes.CDLL(str(compile_library(files, sources, folder)))
        self.library.node_round.restype = ctypes.c_bool
        count = weight_bytes(plan)
        self._weights = (ctypes.c_char * count).in_dll(self.library, "model_weights")

    @property
    def saturated(self) -> int:
        """How often a weight or logit was held at the end of 16 bits in the last round."""
        return int(ctypes.c_uint32(self.library.training_saturated()).value)

    def round(
        self, tensors: Sequence[np.ndarray], x: np.ndarray, y: np.ndarray, seed: int, rate: Rate
    ) -> list[np.ndarray]:
        """Return the sub-model's trainable tensors after a round on x: u8 [n, features], y: u16 [n].

        ArithmeticError if a loss was not finite.
        """
        return unpack(self.plan, self.train(pack(self.plan, tensors), x, y, seed, rate))

    def train(self, packed: bytes, x: np.ndarray, y: np.ndarray, seed: int, rate: Rate) -> bytes:
        """The same with weights as they travel."""
        self.load(packed)
        going = self.library.node_round(
            ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data), ctypes.c_uint32(len(x)),
            ctypes.c_uint32(seed), ctypes.c_float(rate.learning_rate), ctypes.c_uint8(rate.epochs),
            ctypes.c_uint8(rate.batch), ctypes.c_uint8(rate.nested),
        )  # fmt: skip
        if not going:
            raise ArithmeticError(f"the loss of tier {self.plan.sub_model.tier.name} is not finite")
        return bytes(self._weights)

    def load(self, packed: bytes) -> None:
        """Put weights in their place, as they travel."""
        ctypes.memmove(self._weights, packed, len(packed))

    def adjust(self, values: np.ndarray) -> None:
        """Have these added to the logits in the loss: float32 [classes]."""
        logit = ctypes.c_int16 if self.plan.kernel == "fixed" else ctypes.c_float
        self.library.training_logit_of.restype = logit
        places = (logit * len(values)).in_dll(self.library, "training_adjustment")
        places[:] = [self.library.training_logit_of(ctypes.c_float(value)) for value in values]

    @property
    def loss(self) -> float:
        """The mean loss of the last epoch at the node's own width."""
        self.library.training_loss.restype = ctypes.c_float
        return float(self.library.training_loss())

    def accuracy(self, x: np.ndarray, y: np.ndarray, width: int = 0) -> float:
        """Return the share of samples whose largest logit is the label's, with the weights as they are."""
        import numpy as np

        classes = np.zeros(len(x), np.uint16)
        self.library.node_classify(
            ctypes.c_uint8(width), ctypes.c_void_p(x.ctypes.data), ctypes.c_uint32(len(x)),
            ctypes.c_void_p(classes.ctypes.data),
        )  # fmt: skip
        return float((classes == y).mean())
