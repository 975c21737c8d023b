"""The fixed-point half of the header."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from codegen.graph import Layer
from codegen.header_writer import Place, Writer, times
from codegen.memory import fixed_buffers, place
from codegen.planner import Plan
from codegen.weights import exponent_count, tight_exponent, to_fixed

if TYPE_CHECKING:
    import numpy as np

INT16 = ("filter", "filter_back", "step", "logits")
VALUES = ("out", "input")
BYTES = ("line", "line_back")
LINEAR = 65535  # FIXED_LINEAR in firmware/engine/fixed.h


class FixedWriter(Writer):
    """Calls of firmware/engine/fixed.h."""

    template, prefix, number = "model_fixed.h.j2", "fixed", "int16_t"

    def __init__(self, plan: Plan, weights: Sequence[np.ndarray]) -> None:
        super().__init__(plan, place(fixed_buffers(plan.sub_model.graph)), weights)

    def context(self) -> dict[str, Any]:
        """Return what the template shows."""
        last = len(self.names) - 1
        return {
            **super().context(),
            "header": "fixed.h",
            "method": "Each sample updates the weights at once.",
            "exponents": exponent_count(self.graph),
            "input_exponent": self.plan.training.fixed_input.exponent,
            "input_table": rows(self.plan.training.fixed_input.table),
            "logits": self.arena.offsets[last, "logits"] // 2,
            "gradient": self.thing("out", last),
            "layer_weights": list(self.weights()),
        }

    def literals(self, values: np.ndarray) -> tuple[list[str], str]:
        """Return a frozen tensor's elements, and what to say of their scale."""
        exponent = tight_exponent(values)
        return [str(value) for value in to_fixed(values, exponent).ravel().tolist()], f" times 2^{exponent}"

    def places(self) -> Iterator[Place]:
        """Name what lies in the arena."""
        for (index, role), offset in sorted(self.arena.offsets.items()):
            if role == "logits":
                continue
            shape = times(self.graph.layers[index].out_shape) if role in ("out", "argmax") else "while the layer runs"
            yield Place(self.thing(role, index), _pointer(role, offset), shape)

    def weights(self) -> Iterator[tuple[str, str]]:
        """Name every layer's weights, and list the fields of their struct fixed_weights."""
        at = tensors = 0
        for index, layer in enumerate(self.graph.layers):
            if not layer.weighted:
                continue
            fields = self._trained(layer, at, tensors) if layer.trainable else self._constant(index, layer)
            if layer.trainable:
                at += sum(tensor.size for tensor in layer.tensors())
                tensors += 1 + layer.bias
            yield self.thing("weights", index), fields

    def _trained(self, layer: Layer, at: int, tensors: int) -> str:
        kernel = next(layer.tensors())
        bias = f"model_weights.at + {at + kernel.size}" if layer.bias else "NULL"
        exponents = f"model_weights.exponents[{tensors}], "
        exponents += f"model_weights.exponents[{tensors + 1}]" if layer.bias else "0"
        return f"model_weights.at + {at}, {bias}, {exponents}, false"

    def _constant(self, index: int, layer: Layer) -> str:
        roles = [tensor.role for tensor in layer.tensors()]
        exponents = [str(tight_exponent(self.frozen[layer.name, role][1])) for role in roles]
        names = [self.thing(role, index) for role in roles]
        none = ["NULL"] * (2 - len(roles)), ["0"] * (2 - len(roles))
        return ", ".join([*names, *none[0], *exponents, *none[1], "true"])

    def forward(self) -> Iterator[str]:
        """Run every layer."""
        last = len(self.names) - 1
        for index, layer in enumerate(self.graph.layers):
            kernel, reads = self.kernel(index, "forward"), self._reads(index)
            if index == 0 and layer.kind == "dense":
                reads = self.thing("input", index)
                yield f"fixed_values_of({reads}, &input, MODEL_FEATURES);"
            if layer.weighted:
                yield f"weights = {self.thing('weights', index)};"
            if index == last and layer.kind == "dense":
                yield f"fixed_dense_logits(model_logits, {reads}, &weights, {self.shape(index)});"
                return
            arguments = [self.thing("out", index)]
            if layer.kind == "max_pool":
                arguments.append(self.thing("argmax", index))
            arguments += [reads, "&weights"] if layer.weighted else [reads]
            arguments += self._scratch("filter", "line", index=index)
            if layer.weighted:
                arguments += [slope_literal(layer), f"&model_shift[width][{index}][0]"]
            if index == 0 and layer.kind != "dense":
                kernel += "_sample"
            if self.thing("kernel", index) in self.in_flash:
                kernel = f"ENGINE_FROZEN({kernel})"
            yield f"{kernel}({', '.join(arguments)}, {self.shape(index)});"
            if layer.slope != 1.0 and not layer.weighted:
                yield f"fixed_activate({self.thing('out', index)}, {self.out_count(index)}, {slope_literal(layer)});"
        yield f"fixed_logits(model_logits, {self.thing('out', last)}, MODEL_CLASSES);"

    def backward(self) -> Iterator[str]:
        """Run the layers backwards, down to the first trainable one."""
        first = self.graph.first_trainable
        for index in reversed(range(first, len(self.graph.layers))):
            layer, kernel = self.graph.layers[index], self.kernel(index, "backward")
            reads, gradient = self._reads(index), self.thing("out", index)
            tail = f"{gradient}, {self.shape(index)}"
            if layer.weighted:
                yield f"weights = {self.thing('weights', index)};"
            if index == first:
                yield from self._first_backward(index, kernel, reads, tail)
                return
            arguments = [reads, slope_literal(self.graph.layers[index - 1])]
            if layer.kind == "max_pool":
                arguments.append(self.thing("argmax", index))
            if layer.weighted:
                arguments += ["&weights", *(self._scratch("step", "filter_back", index=index) or ["NULL"])]
            arguments += [gradient, f"&model_shift[width][{index}][1]", self.shape(index)]
            yield f"{kernel}({', '.join(arguments)});"

    def _first_backward(self, index: int, kernel: str, reads: str, tail: str) -> Iterator[str]:
        """Run the layer whose input needs no gradient."""
        layer = self.graph.layers[index]
        if index == 0 and layer.kind == "dense":
            reads = self.thing("input", index)
        suffix = "_sample" if index == 0 and layer.kind != "dense" else "_weights"
        arguments = [reads, "&weights", *self._scratch("step", "sum", "line_back", index=index)]
        yield f"{kernel}{suffix}({', '.join(arguments)}, {tail});"

    def _scratch(self, *roles: str, index: int) -> list[str]:
        return [self.thing(role, index) for role in roles if (index, role) in self.arena.offsets]

    def _reads(self, index: int) -> str:
        return "&input" if index == 0 else self.thing("out", index - 1)


def rows(table: Sequence[int]) -> list[str]:
    """Return the lines of a table of 256 bytes."""
    return [", ".join(map(str, table[at : at + 16])) + "," for at in range(0, len(table), 16)]


def slope_literal(layer: Layer, linear: str = "FIXED_LINEAR") -> str:
    """Return a layer's slope in 1/65536, or the name of none."""
    return linear if layer.slope == 1.0 else str(min(round(layer.slope * 65536), LINEAR - 1))


def _pointer(role: str, offset: int) -> str:
    if role in INT16:
        return f"(int16_t *)model_arena + {offset // 2}"
    if role == "sum":
        return f"(fixed_sum *)model_arena + {offset // 4}"
    bytes_at = f"(int8_t *)model_arena + {offset}"
    if role in VALUES:
        return f"(struct fixed_values *)({bytes_at})"
    return bytes_at if role in BYTES else f"(uint8_t *)model_arena + {offset}"
