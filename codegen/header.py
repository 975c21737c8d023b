"""The C header of a plan: every array and one training step, in straight lines."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from codegen.graph import Layer, Tensor
from codegen.memory import Role, buffers, needs_scratch, place
from codegen.names import c_names, float_literal
from codegen.planner import Plan

if TYPE_CHECKING:
    import numpy as np

TEMPLATES = Path(__file__).with_name("templates")
KERNELS = {
    "dense": "engine_dense",
    "conv2d": "engine_conv2d",
    "depthwise_conv2d": "engine_depthwise",
    "max_pool": "engine_max_pool",
    "average_pool": "engine_average_pool",
}
FLOATS_A_LINE = 8


@dataclass(frozen=True)
class Place:
    """A name for a place in one of the arrays."""

    name: str
    where: str
    comment: str


@dataclass(frozen=True)
class Constant:
    """A frozen tensor."""

    name: str
    size: int
    comment: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class ShapeTable:
    """A layer's sizes: initialiser and comment for each width."""

    name: str
    struct: str
    rows: tuple[tuple[str, str], ...]


def model_header(plan: Plan, weights: Sequence[np.ndarray]) -> str:
    """Return model.h of the plan. Of the global `weights` only the frozen ones are used."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    writer = _Writer(plan)
    return environment.get_template("model.h.j2").render(
        plan=plan,
        graph=plan.sub_model.graph,
        tier=plan.sub_model.tier.name,
        input_scale=float_literal(plan.training.input_scale),
        input_offset=float_literal(plan.training.input_range[0]),
        arena=writer.arena,
        logits=writer.logits,
        summary=list(writer.summary()),
        has_scratch=any(role == "gradient" for _, role in writer.arena.offsets),
        places=list(writer.places()),
        constants=list(writer.constants(weights)),
        shapes=list(writer.shapes()),
        forward=[_wrap(statement) for statement in writer.forward()],
        backward=[_wrap(statement) for statement in writer.backward()],
    )


class _Writer:
    """Writes the declarations and statements of one plan. A layer's things are called model_<thing>_<layer>."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.graph = plan.sub_model.graph
        self.names = c_names(self.graph)
        self.arena = place(buffers(self.graph, plan.accumulates))
        self.logits = self.arena.offsets[len(self.names) - 1, "out"] // 4

    # Declarations

    def summary(self) -> Iterator[str]:
        """Describe each layer on a line."""
        for name, layer in zip(self.names, self.graph.layers, strict=True):
            inputs, outputs = "×".join(map(str, layer.in_shape)), "×".join(map(str, layer.out_shape))
            words = [f"{name:<16} {layer.kind:<16} {inputs:>14} -> {outputs:<14}"]
            if layer.slope != 1.0:
                words.append(f"LeakyReLU({layer.slope:g})" if layer.slope else "ReLU")
            if layer.weighted and not layer.trainable:
                words.append("frozen")
            yield " ".join(words).rstrip()

    def places(self) -> Iterator[Place]:
        """Name what lies in the arena, and every trainable tensor."""
        at = 0
        for index, (name, layer) in enumerate(zip(self.names, self.graph.layers, strict=True)):
            if index < len(self.names) - 1:
                yield self._in_arena(index, "out", f"model_out_{name}", _times(layer.out_shape))
            if layer.kind == "max_pool":
                yield self._in_arena(index, "argmax", f"model_argmax_{name}", _times(layer.out_shape))
            for tensor in layer.tensors() if layer.trainable else ():
                shape = _brackets(tensor)
                yield Place(f"model_{tensor.role}_{name}", f"model_weights + {at}", shape)
                if self.plan.accumulates:
                    yield Place(f"model_d{tensor.role}_{name}", f"model_gradients + {at}", shape)
                elif tensor.role == "kernel" and needs_scratch(self.graph, index, accumulates=False):
                    yield self._in_arena(index, "gradient", f"model_dkernel_{name}", shape)
                at += tensor.size

    def _in_arena(self, index: int, role: Role, name: str, shape: str) -> Place:
        where = f"model_arena + {self.arena.offsets[index, role] // 4}"
        return Place(name, f"(uint8_t *)({where})" if role == "argmax" else where, shape)

    def constants(self, weights: Sequence[np.ndarray]) -> Iterator[Constant]:
        """Write out the frozen tensors."""
        names = dict(zip((layer.name for layer in self.graph.layers), self.names, strict=True))
        for tensor, weight in zip(self.graph.tensors, self.plan.sub_model.cut(weights), strict=True):
            if not tensor.trainable:
                literals = [float_literal(value) for value in weight.ravel().tolist()]
                lines = (literals[at : at + FLOATS_A_LINE] for at in range(0, len(literals), FLOATS_A_LINE))
                rows = tuple(", ".join(line) + "," for line in lines)
                yield Constant(f"model_{tensor.role}_{names[tensor.layer]}", tensor.size, _brackets(tensor), rows)

    def shapes(self) -> Iterator[ShapeTable]:
        """Write each layer's sizes at each width."""
        for index, (name, own) in enumerate(zip(self.names, self.graph.layers, strict=True)):
            initialiser = self._dense_sizes if own.kind == "dense" else _window_sizes
            rows = []
            for tier, graph in zip(self.plan.widths, self.plan.graphs, strict=True):
                layer = graph.layers[index]
                comment = f"{tier.name}: {_times(layer.in_shape)} -> {_times(layer.out_shape)}"
                rows.append((initialiser(own, layer), comment))
            yield ShapeTable(f"model_shape_{name}", _struct(own), tuple(rows))

    def _dense_sizes(self, own: Layer, layer: Layer) -> str:
        height, width, channels = layer.in_shape
        before = self.graph.layers[: self.graph.layers.index(own)]
        groups, stored = height * width, own.in_shape[2]
        if not any(other.kind in ("dense", "conv2d") for other in before):  # whole at every width: one long group
            groups, channels, stored = 1, groups * channels, groups * stored
        return ", ".join(map(str, (groups, channels, layer.out_shape[2], stored, own.out_shape[2])))

    # Statements

    def forward(self) -> Iterator[str]:
        """Run every layer."""
        for index, layer in enumerate(self.graph.layers):
            arguments = [self._out(index)]
            if layer.kind == "max_pool":
                arguments.append(self._thing("argmax", index))
            arguments.append("sample" if index == 0 else self._out(index - 1))
            if layer.weighted:
                arguments.append(self._thing("kernel", index))
                arguments.append(self._thing("bias", index) if layer.bias else "NULL")
            suffix = "_sample" if index == 0 else ""
            yield f"{KERNELS[layer.kind]}_forward{suffix}({', '.join(arguments)}, {self._shape(index)});"
            if layer.slope != 1.0:
                field = "out" if layer.kind == "dense" else "out_channels"
                channels = f"ENGINE_FLASH_U16(model_shape_{self.names[index]}[width].{field})"
                pixels = layer.out_shape[0] * layer.out_shape[1]
                count = channels if pixels == 1 else f"(uint16_t)({pixels}U * {channels})"
                yield f"engine_activate({self._out(index)}, {count}, {float_literal(layer.slope)});"

    def backward(self) -> Iterator[str]:
        """Run the layers backwards, down to the first trainable one."""
        first = self.graph.first_trainable
        for index in reversed(range(first, len(self.graph.layers))):
            layer = self.graph.layers[index]
            reads = "sample" if index == 0 else self._out(index - 1)
            kernel = f"{KERNELS[layer.kind]}_backward"
            tail = f"{self._out(index)}, {'scale' if self.plan.accumulates else '-scale'}, {self._shape(index)}"
            if index == first:
                suffix = "_sample" if index == 0 else "_weights"
                yield f"{kernel}{suffix}({reads}, {self._gradients(index)}, {tail});"
                return
            slope = float_literal(self.graph.layers[index - 1].slope)
            if layer.kind == "max_pool":
                argmax = self._thing("argmax", index)
                yield f"{kernel}({reads}, {slope}, {argmax}, {self._out(index)}, {self._shape(index)});"
            elif layer.kind == "average_pool":
                yield f"{kernel}({reads}, {slope}, {self._out(index)}, {self._shape(index)});"
            else:
                weight = self._thing("kernel", index)
                call = f"{kernel}({reads}, {slope}, {weight}, {self._gradients(index)}, {tail});"
                yield from self._through_scratch(index, call)

    def _through_scratch(self, index: int, call: str) -> Iterator[str]:
        """Wrap a call that must not change its kernel while it runs."""
        if not needs_scratch(self.graph, index, self.plan.accumulates):
            yield call
            return
        scratch, size = self._thing("dkernel", index), next(self.graph.layers[index].tensors()).size
        yield f"model_clear({scratch}, {size});"
        yield call
        yield f"engine_update({self._thing('kernel', index)}, {scratch}, {size}UL, -1.0f, 0.0f);"

    def _gradients(self, index: int) -> str:
        """Where a layer's gradients go: the buffer, a scratch, the weights at once, or nowhere."""
        layer = self.graph.layers[index]
        if not layer.trainable:
            return "NULL, NULL"
        sums = self.plan.accumulates
        kernel = "dkernel" if sums or needs_scratch(self.graph, index, accumulates=False) else "kernel"
        bias = self._thing("dbias" if sums else "bias", index) if layer.bias else "NULL"
        return f"{self._thing(kernel, index)}, {bias}"

    def _out(self, index: int) -> str:
        return "model_logits" if index == len(self.names) - 1 else self._thing("out", index)

    def _shape(self, index: int) -> str:
        return f"MODEL_SHAPE({_struct(self.graph.layers[index])}, {self.names[index]})"

    def _thing(self, thing: str, index: int) -> str:
        return f"model_{thing}_{self.names[index]}"


def _struct(layer: Layer) -> str:
    return "dense" if layer.kind == "dense" else "window"


def _window_sizes(own: Layer, layer: Layer) -> str:
    inputs, outputs = layer.in_shape, layer.out_shape
    sizes = (*inputs[:2], *outputs[:2], *layer.kernel, *layer.stride, *layer.pad)
    return ", ".join(map(str, (*sizes, inputs[2], outputs[2], own.in_shape[2], own.out_shape[2])))


def _wrap(statement: str) -> str:
    return textwrap.fill(statement, 120, initial_indent=" " * 4, subsequent_indent=" " * 8, break_long_words=False)


def _times(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) if math.prod(shape[:2]) > 1 else str(shape[2])


def _brackets(tensor: Tensor) -> str:
    return "".join(f"[{size}]" for size in tensor.shape)
