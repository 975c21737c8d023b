"""The C header that only infers: one readable file, which needs nothing of the engine and computes to its bits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from codegen.graph import Layer, Tensor
from codegen.header_fixed import rows, slope_literal
from codegen.header_writer import Constant, brackets, dense_groups, lines_of, summary, wrap
from codegen.memory import Arena, inference_buffers, place
from codegen.names import c_names, float_literal
from codegen.planner import Training
from codegen.tiers import SubModel
from codegen.weights import roomy_exponent, tight_exponent, to_fixed

if TYPE_CHECKING:
    import numpy as np

SHAPE_BYTES = 28  # sizeof(struct model_shape)
MOST_SHIFT = 31
BIAS_SHIFT = 14  # FIXED_BIAS_SHIFT in firmware/engine/fixed_inner.h


@dataclass(frozen=True)
class FixedTensor:
    """A tensor's integers and what one is worth: 2^exponent."""

    at: np.ndarray
    exponent: int


class InferenceWriter:
    """Writes one sub-model. A layer's things are called model_<thing>_<layer>."""

    def __init__(
        self,
        sub_model: SubModel,
        weights: Sequence[np.ndarray],
        kernel: str,
        training: Training,
        peaks: Sequence[float] | None = None,
    ) -> None:
        """Take the global `weights`, and of each layer the largest magnitude that its output is expected to have (None:
        unknown), from which fixed point takes where its shifts begin."""
        self.sub_model, self.graph, self.training = sub_model, sub_model.graph, training
        self.fixed = kernel == "fixed"
        self.names = c_names(self.graph)
        self.arena: Arena = place(inference_buffers(self.graph, kernel))
        tensors = zip(self.graph.tensors, sub_model.cut(weights), strict=True)
        self.tensors = {(tensor.layer, tensor.role): (tensor, values) for tensor, values in tensors}
        self.peaks = peaks

    def context(self) -> dict[str, Any]:
        """Return what the template shows."""
        low, _ = self.training.input_range
        constants, table = list(self.constants()), self.training.fixed_input
        kinds = [layer.kind for layer in self.graph.layers]
        weight_bytes = (2 if self.fixed else 4) * sum(constant.size for constant in constants)
        flash = [("weights", weight_bytes), ("sizes of the layers", SHAPE_BYTES * len(kinds))]
        return {
            "graph": self.graph,
            "tier": self.sub_model.tier.name,
            "fixed": self.fixed,
            "number": "int16_t" if self.fixed else "float",
            "summary": list(summary(self.graph)),
            "shape": "×".join(map(str, self.graph.input_shape)),
            "low": f"{low:g}",
            "step": f"{self.training.input_scale:.6g}",
            "arena": self.arena,
            "flash": [*flash, *([("value of a byte", len(table.table))] if self.fixed else [])],
            "constants": constants,
            "shapes": [(self._thing("shape", index), self._sizes(index)) for index in range(len(kinds))],
            "kinds": set(kinds[:-1] if kinds[-1] == "dense" else kinds),
            "pools": [kind for kind in ("max_pool", "average_pool") if kind in kinds],
            "ends_dense": kinds[-1] == "dense",
            "input_scale": float_literal(self.training.input_scale),
            "input_offset": float_literal(low),
            "input_exponent": table.exponent,
            "input_table": rows(table.table),
            "logits": self._logits(),
            "forward": [wrap(statement) for statement in (self.fixed_forward() if self.fixed else self.forward())],
        }

    def constants(self) -> Iterator[Constant]:
        """Write out every tensor."""
        for index, layer in enumerate(self.graph.layers):
            for tensor in layer.tensors():
                _, values = self.tensors[tensor.layer, tensor.role]
                if self.fixed:
                    held = self._fixed(tensor)
                    literals, scale = [str(value) for value in held.at.ravel().tolist()], f" times 2^{held.exponent}"
                else:
                    literals, scale = [float_literal(value) for value in values.ravel().tolist()], ""
                name = self._thing(tensor.role, index)
                yield Constant(name, tensor.size, True, brackets(tensor) + scale, lines_of(literals))

    def forward(self) -> Iterator[str]:
        """Run every layer, in float32."""
        for index, layer in enumerate(self.graph.layers):
            arguments = [self._out(index), self._reads(index)]
            if layer.weighted:
                arguments += [self._thing("kernel", index), self._thing("bias", index) if layer.bias else "NULL"]
            arguments += [float_literal(layer.slope), f"&{self._thing('shape', index)}"]
            yield f"model_{'weighted' if layer.weighted else layer.kind}({', '.join(arguments)});"

    def fixed_forward(self) -> Iterator[str]:
        """Run every layer, in fixed point."""
        shifts, last = self.shifts(), len(self.graph.layers) - 1
        for index, layer in enumerate(self.graph.layers):
            out, reads, shape = self._out(index), self._reads(index), f"&{self._thing('shape', index)}"
            slope = slope_literal(layer, "MODEL_LINEAR")
            if not layer.weighted:
                yield f"model_{layer.kind}({out}, {reads}, {slope}, {shape});"
                continue
            tensors = [reads, "exponent"]
            for tensor in layer.tensors():
                tensors += [self._thing(tensor.role, index), str(self._fixed(tensor).exponent)]
            tensors += [] if layer.bias else ["NULL", "0"]
            if index == last and layer.kind == "dense":
                yield f"model_dense_logits(logits, {', '.join(tensors)}, {shape});"
                return
            kernel = "dense" if layer.kind == "dense" else "conv"
            yield f"exponent = model_{kernel}({out}, {', '.join(tensors)}, {slope}, {shifts[index]}, {shape});"
        yield f"model_logits_of(logits, {self._out(last)}, exponent);"

    def shifts(self) -> list[int]:
        """Return where each layer's shift begins: where the largest output expected just fits its 8 bits."""
        exponent, found = self.training.fixed_input.exponent, []
        for index, layer in enumerate(self.graph.layers):
            if not layer.weighted:
                found.append(0)
                continue
            sums = exponent + self._sums_exponent(layer, exponent)
            peak = self.peaks[index] if self.peaks is not None else 0.0
            wanted = math.ceil(math.log2(peak / 127)) if peak > 0 else sums
            found.append(min(max(wanted - sums, 0), MOST_SHIFT))
            exponent = sums + found[-1]
        return found

    def _sums_exponent(self, layer: Layer, in_exponent: int) -> int:
        """Return what a layer's sums are worth beside its input, as fixed_sums in firmware/engine/fixed.c has it."""
        exponents = [self._fixed(tensor).exponent for tensor in layer.tensors()]
        terms, lost = math.prod(layer.kernel) * layer.in_shape[2], 0
        if layer.kind == "dense":
            terms = math.prod(layer.in_shape)
        elif layer.kind == "depthwise_conv2d":
            terms = math.prod(layer.kernel)
        while terms > 256:
            terms, lost = (terms + 1) // 2, lost + 1
        if layer.bias:
            lost = max(lost, exponents[1] - BIAS_SHIFT - in_exponent - exponents[0])
        return exponents[0] + lost

    def _fixed(self, tensor: Tensor) -> FixedTensor:
        """Return a tensor as a node holds it."""
        _, values = self.tensors[tensor.layer, tensor.role]
        exponent = roomy_exponent(values) if tensor.trainable else tight_exponent(values)
        return FixedTensor(to_fixed(values, exponent), exponent)

    def _thing(self, thing: str, index: int) -> str:
        return f"model_{thing}_{self.names[index]}"

    def _reads(self, index: int) -> str:
        return "NULL" if index == 0 else self._out(index - 1)

    def _out(self, index: int) -> str:
        if (index, "out") not in self.arena.offsets:
            return "logits"
        offset = self.arena.offsets[index, "out"]
        return f"(int8_t *)model_arena + {offset}" if self.fixed else f"model_arena + {offset // 4}"

    def _logits(self) -> str:
        last = len(self.graph.layers) - 1
        return f"model_arena + {self.arena.offsets[last, 'logits'] // 2}" if self.fixed else self._out(last)

    def _sizes(self, index: int) -> str:
        """Return the fields of a layer's struct model_shape: a dense one is a column of pixels, under a kernel as
        high."""
        layer = self.graph.layers[index]
        inputs, outputs = layer.in_shape, layer.out_shape
        if layer.kind == "dense":
            groups, reads = dense_groups(self.graph, layer)
            return ", ".join(map(str, (groups, 1, reads, 1, 1, outputs[2], groups, 1, 1, 1, 0, 0, reads, 0)))
        depthwise = layer.kind == "depthwise_conv2d"
        reads, multiplier = (1, outputs[2] // inputs[2]) if depthwise else (inputs[2], 0)
        return ", ".join(map(str, (*inputs, *outputs, *layer.kernel, *layer.stride, *layer.pad, reads, multiplier)))
