"""The float32 half of the header."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from codegen.header_writer import Place, Writer, brackets, times
from codegen.memory import Role, buffers, needs_scratch, place
from codegen.names import float_literal
from codegen.planner import Plan

if TYPE_CHECKING:
    import numpy as np


SUMMED = "Gradients are summed over a batch."
FUSED = "Each sample updates the weights at once: there is no room for a gradient buffer, or no use for one."


class FloatWriter(Writer):
    """Calls of firmware/engine/engine.h."""

    template, prefix, number = "model.h.j2", "engine", "float"

    def __init__(self, plan: Plan, weights: Sequence[np.ndarray]) -> None:
        super().__init__(plan, place(buffers(plan.sub_model.graph, plan.accumulates)), weights)

    def context(self) -> dict[str, Any]:
        """Return what the template shows."""
        return {
            **super().context(),
            "header": "engine.h",
            "method": SUMMED if self.plan.accumulates else FUSED,
            "input_scale": float_literal(self.plan.training.input_scale),
            "input_offset": float_literal(self.plan.training.input_range[0]),
            "logits": self.arena.offsets[len(self.names) - 1, "out"] // 4,
            "has_scratch": any(role == "gradient" for _, role in self.arena.offsets),
        }

    def literals(self, values: np.ndarray) -> tuple[list[str], str]:
        """Return a frozen tensor's elements, and what to say of their scale."""
        return [float_literal(value) for value in values.ravel().tolist()], ""

    def places(self) -> Iterator[Place]:
        """Name what lies in the arena, and every trainable tensor."""
        at = 0
        for index, (name, layer) in enumerate(zip(self.names, self.graph.layers, strict=True)):
            if index < len(self.names) - 1:
                yield self._in_arena(index, "out", f"model_out_{name}", times(layer.out_shape))
            if layer.kind == "max_pool":
                yield self._in_arena(index, "argmax", f"model_argmax_{name}", times(layer.out_shape))
            for tensor in layer.tensors() if layer.trainable else ():
                shape = brackets(tensor)
                yield Place(f"model_{tensor.role}_{name}", f"model_weights + {at}", shape)
                if self.plan.accumulates:
                    yield Place(f"model_d{tensor.role}_{name}", f"model_gradients + {at}", shape)
                elif tensor.role == "kernel" and needs_scratch(self.graph, index, accumulates=False):
                    yield self._in_arena(index, "gradient", f"model_dkernel_{name}", shape)
                at += tensor.size

    def _in_arena(self, index: int, role: Role, name: str, shape: str) -> Place:
        where = f"model_arena + {self.arena.offsets[index, role] // 4}"
        return Place(name, f"(uint8_t *)({where})" if role == "argmax" else where, shape)

    def forward(self) -> Iterator[str]:
        """Run every layer."""
        for index, layer in enumerate(self.graph.layers):
            arguments = [self._out(index)]
            if layer.kind == "max_pool":
                arguments.append(self.thing("argmax", index))
            arguments.append("sample" if index == 0 else self._out(index - 1))
            if layer.weighted:
                arguments.append(self.thing("kernel", index))
                arguments.append(self.thing("bias", index) if layer.bias else "NULL")
            kernel = self.kernel(index, "forward_sample" if index == 0 else "forward")
            if self.thing("kernel", index) in self.in_flash:
                kernel = f"ENGINE_FROZEN({kernel})"
            yield f"{kernel}({', '.join(arguments)}, {self.shape(index)});"
            if layer.slope != 1.0:
                yield f"engine_activate({self._out(index)}, {self.out_count(index)}, {float_literal(layer.slope)});"

    def backward(self) -> Iterator[str]:
        """Run the layers backwards, down to the first trainable one."""
        first = self.graph.first_trainable
        for index in reversed(range(first, len(self.graph.layers))):
            layer = self.graph.layers[index]
            reads = "sample" if index == 0 else self._out(index - 1)
            kernel = self.kernel(index, "backward")
            tail = f"{self._out(index)}, {'scale' if self.plan.accumulates else '-scale'}, {self.shape(index)}"
            if index == first:
                suffix = "_sample" if index == 0 else "_weights"
                yield f"{kernel}{suffix}({reads}, {self._gradients(index)}, {tail});"
                return
            slope = float_literal(self.graph.layers[index - 1].slope)
            if layer.kind == "max_pool":
                argmax = self.thing("argmax", index)
                yield f"{kernel}({reads}, {slope}, {argmax}, {self._out(index)}, {self.shape(index)});"
            elif layer.kind == "average_pool":
                yield f"{kernel}({reads}, {slope}, {self._out(index)}, {self.shape(index)});"
            else:
                weight = self.thing("kernel", index)
                call = f"{kernel}({reads}, {slope}, {weight}, {self._gradients(index)}, {tail});"
                yield from self._through_scratch(index, call)

    def _through_scratch(self, index: int, call: str) -> Iterator[str]:
        """Wrap a call that must not change its kernel while it runs."""
        if not needs_scratch(self.graph, index, self.plan.accumulates):
            yield call
            return
        scratch, size = self.thing("dkernel", index), next(self.graph.layers[index].tensors()).size
        yield f"model_clear({scratch}, {size});"
        yield call
        yield f"engine_update({self.thing('kernel', index)}, {scratch}, {size}UL, -1.0f, 0.0f);"

    def _gradients(self, index: int) -> str:
        """Where a layer's gradients go: the buffer, a scratch, the weights at once, or nowhere."""
        layer = self.graph.layers[index]
        if not layer.trainable:
            return "NULL, NULL"
        sums = self.plan.accumulates
        kernel = "dkernel" if sums or needs_scratch(self.graph, index, accumulates=False) else "kernel"
        bias = self.thing("dbias" if sums else "bias", index) if layer.bias else "NULL"
        return f"{self.thing(kernel, index)}, {bias}"

    def _out(self, index: int) -> str:
        return "model_logits" if index == len(self.names) - 1 else self.thing("out", index)
