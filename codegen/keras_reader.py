"""A Keras model read into the layers that a board can train. Only this file looks inside a Keras layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from codegen.graph import Graph, Layer, ModelError, Shape, frozen_crc

if TYPE_CHECKING:
    import keras

U8_MAX, U16_MAX = 255, 65535  # fields of struct engine_window and engine_dense
SUPPORTED = (
    "Dense, Conv1D, Conv2D, DepthwiseConv2D, max, average and global pooling, Flatten, ReLU, LeakyReLU and Softmax"
)
ADVICE = {
    "Activation": "use 'linear', 'relu', 'leaky_relu', or 'softmax' at the end",
    "Add": "use a single path of layers",
    "BatchNormalization": "leave it out, or fold it into the layer before it once it is trained",
    "Concatenate": "use a single path of layers",
    "Conv2DTranspose": "use Conv2D",
    "DepthwiseConv1D": "use DepthwiseConv2D on an input of height 1",
    "Dropout": "leave it out: a node's few samples an epoch do not overfit as a data centre's do",
    "ELU": "use LeakyReLU",
    "GRU": "use Conv1D over time",
    "LSTM": "use Conv1D over time",
    "PReLU": "use LeakyReLU",
    "Rescaling": "give the range of the pixels as [data] range in the federation file",
    "Reshape": "give keras.Input the shape that the layers after it need",
    "SeparableConv2D": "use DepthwiseConv2D and then Conv2D with a 1×1 kernel",
    "SimpleRNN": "use Conv1D over time",
    "ZeroPadding2D": "use padding='same' in the layer after it",
}
WEIGHTED = {"Dense": 1, "Conv1D": 2, "Conv2D": 3, "DepthwiseConv2D": 3}  # name: rank of its input without the batch
POOLS = {
    f"{reach}{how}Pooling{dimensions}D": dimensions + 1
    for reach in ("", "Global")
    for how in ("Max", "Average")
    for dimensions in (1, 2)
}
ACTIVATIONS = ("ReLU", "LeakyReLU", "Softmax", "Activation")


def read_model(model: keras.Model, trainable: Sequence[str] | None = None) -> Graph:
    """Return the graph of a Keras model.

    `trainable` names the layers to train and freezes the others; None: those that Keras would train.
    Raises ModelError.
    """
    import numpy as np

    reader = _Reader(*_input_shape(model))
    for layer in _single_path(model):
        reader.add(layer)
    reader.check_end(str(model.name))
    layers = tuple(_freeze(reader.layers, trainable))
    graph = Graph(str(model.name), layers, math.prod(layers[-1].out_shape), reader.softmax)
    weights = model.get_weights()
    if [tensor.shape for tensor in graph.tensors] != [weight.shape for weight in weights]:
        raise ModelError(f"model {graph.name!r}: its weights are not those of its layers; use {SUPPORTED}")
    for tensor, weight in zip(graph.tensors, weights, strict=True):
        if not np.isfinite(weight).all():
            raise ModelError(f"layer {tensor.layer!r}: its {tensor.role} holds NaN or infinity; train the model anew")
    return replace(graph, frozen_crc=frozen_crc(graph, weights))


def _input_shape(model: Any) -> tuple[Shape, int]:
    """Return height, width, channels of a sample, and how many axes it has."""
    try:
        axes = model.input_shape[1:]
    except (AttributeError, ValueError):
        axes = None
    if axes is None:
        raise ModelError(
            f"model {model.name!r} has no input shape; begin it with keras.Input((height, width, channels))"
        )
    if any(not isinstance(axis, int) for axis in axes) or not 1 <= len(axes) <= 3:
        raise ModelError(
            f"model {model.name!r}: input shape {tuple(axes)}; expected one input of (features,), (length, channels) "
            "or (height, width, channels), all of them numbers"
        )
    height, width, channels = (1,) * (3 - len(axes)) + tuple(axes)
    return (height, width, channels), len(axes)


def _single_path(model: Any) -> list[Any]:
    """Return the layers from input to output; refuses anything else than one path through all of them."""
    import keras

    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    for layer in layers:
        if isinstance(layer, keras.Model):
            _refuse(layer, "is a model of its own", "put its layers into the model itself")
    if isinstance(model, keras.Sequential):
        return layers
    if type(model).__name__ != "Functional":
        raise ModelError(
            f"model {model.name!r} is a {type(model).__name__}; use keras.Sequential or keras.Model(in, out)"
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ModelError(f"model {model.name!r} has several inputs or outputs; use one of each")
    by_output = {id(layer.output): layer for layer in layers}
    path: list[Any] = []
    tensor = model.outputs[0]
    while tensor is not model.inputs[0] and id(tensor) in by_output:
        path.insert(0, by_output[id(tensor)])
        tensor = path[0].input
        if isinstance(tensor, list | tuple | dict):
            _refuse(path[0], "joins several paths", "use a single path of layers")
    for layer in layers:
        if layer not in path:
            _refuse(layer, "does not lie on the one path from input to output, once", "use a single path of layers")
    return path


def _freeze(layers: list[Layer], trainable: Sequence[str] | None) -> list[Layer]:
    known = [layer.name for layer in layers if layer.weighted]
    for name in trainable or ():
        if name not in known:
            raise ModelError(f"trainable: there is no layer {name!r} with weights; the model has {', '.join(known)}")
    if trainable is not None:
        layers = [replace(layer, trainable=layer.name in trainable) for layer in layers]
    if not any(layer.trainable for layer in layers):
        raise ModelError(f"trainable: no layer is left to train; name some of {', '.join(known)}")
    return layers


def _refuse(layer: Any, what: str, advice: str) -> None:
    raise ModelError(f"layer {layer.name!r} ({type(layer).__name__}) {what}; {advice}")


@dataclass
class _Reader:
    """What has been read so far, and the shape of what comes out of it."""

    shape: Shape
    rank: int  # axes of that shape in Keras: 1 flat, 2 (width, channels), 3
    layers: list[Layer] = field(default_factory=list)
    softmax: bool = False

    def add(self, layer: Any) -> None:
        """Read one Keras layer. Raises ModelError."""
        import keras

        name = type(layer).__name__
        if type(layer) is not getattr(keras.layers, name, None):
            _refuse(layer, "is not a layer that a board knows", f"use {SUPPORTED}")
        if self.softmax:
            _refuse(layer, "comes after the softmax", "put the softmax last")
        if getattr(layer, "data_format", None) == "channels_first":
            _refuse(layer, "has its channels first", "use data_format='channels_last'")
        if name == "Flatten":
            self.rank = 1
        elif name in ACTIVATIONS:
            self.activate(layer, layer.activation if name == "Activation" else layer)
        elif name in WEIGHTED:
            self.append(layer, self.weighted(layer))
            self.activate(layer, layer.activation)
        elif name in POOLS:
            self.append(layer, self.pool(layer))
            self.rank = 1 if "Global" in name and not layer.keepdims else self.rank
        else:
            _refuse(layer, "cannot be trained on a board", ADVICE.get(name, f"use {SUPPORTED}"))

    def append(self, layer: Any, read: Layer) -> None:
        """Take the layer, if its sizes fit the engine's fields."""
        sizes = {"kernel": read.kernel, "stride": read.stride, "padding": read.pad}
        for what, size in sizes.items():
            if read.kind != "dense" and max(size) > U8_MAX:
                _refuse(layer, f"has a {what} of {max(size)}", f"use at most {U8_MAX}")
        for what, shape in (("input", read.in_shape), ("output", read.out_shape)):
            if min(shape) < 1 or math.prod(shape) > U16_MAX:
                sizes_text = "×".join(map(str, shape))
                _refuse(layer, f"has an {what} of {sizes_text} values", f"use 1 to {U16_MAX} of them")
        self.layers.append(read)
        self.shape = read.out_shape

    def weighted(self, layer: Any) -> Layer:
        """Read Dense, Conv1D, Conv2D or DepthwiseConv2D."""
        name = type(layer).__name__
        if name == "Dense":
            if self.rank != 1:
                _refuse(layer, "reads a map, not a vector", "put Flatten or global pooling before it")
            return Layer(
                str(layer.name), "dense", self.shape, (1, 1, layer.units), bias=layer.use_bias,
                trainable=bool(layer.trainable),
            )  # fmt: skip
        if any(dilation != 1 for dilation in layer.dilation_rate):
            _refuse(layer, f"has dilation_rate {tuple(layer.dilation_rate)}", "use 1, and strides or pooling for reach")
        if name == "DepthwiseConv2D":
            if layer.depth_multiplier != 1:
                _refuse(layer, f"has depth_multiplier {layer.depth_multiplier}", "use 1, and a 1×1 Conv2D for more")
            channels = self.shape[2]
        else:
            if layer.groups != 1:
                _refuse(layer, f"has groups={layer.groups}", "use 1, or DepthwiseConv2D")
            channels = layer.filters
        kernel, stride = _square(layer.kernel_size), _square(layer.strides)
        return self.window(
            layer, "depthwise_conv2d" if name == "DepthwiseConv2D" else "conv2d", kernel, stride, channels,
            bias=layer.use_bias, trainable=bool(layer.trainable), flat_kernel=name == "Conv1D",
        )  # fmt: skip

    def pool(self, layer: Any) -> Layer:
        """Read a pooling layer; a global one is a window as large as its input."""
        name = type(layer).__name__
        if not self.layers:
            _refuse(layer, "is the first layer", "shrink the samples beforehand, or use a convolution with strides")
        whole = self.shape[:2]
        kernel, stride = (whole, whole) if "Global" in name else (_square(layer.pool_size), _square(layer.strides))
        return self.window(layer, "max_pool" if "Max" in name else "average_pool", kernel, stride, self.shape[2])

    def window(self, layer: Any, kind: Any, kernel: Any, stride: Any, channels: int, **rest: Any) -> Layer:
        """Return the layer with its output size and padding, as TensorFlow counts them."""
        padding = getattr(layer, "padding", "valid")
        if padding not in ("same", "valid"):
            _refuse(layer, f"has padding={padding!r}", "use 'same' or 'valid'")
        out, pad = [], []
        for size, reach, step in zip(self.shape[:2], kernel, stride, strict=True):
            count = -(-size // step) if padding == "same" else (size - reach) // step + 1
            out.append(count)
            pad.append(max(0, (count - 1) * step + reach - size) // 2 if padding == "same" else 0)
        shape = (out[0], out[1], channels)
        return Layer(str(layer.name), kind, self.shape, shape, kernel, stride, (pad[0], pad[1]), **rest)

    def activate(self, layer: Any, activation: Any) -> None:
        """Put an activation on the output of the last layer; two of them compose."""
        slope = _slope(layer, activation)
        if slope is None:
            self.softmax = True
        elif slope != 1.0:
            if not self.layers:
                _refuse(layer, "acts on the input itself", "put it after a layer with weights")
            self.layers[-1] = replace(self.layers[-1], slope=self.layers[-1].slope * slope)

    def check_end(self, model: str) -> None:
        """Raise ModelError unless the last layer gives logits."""
        if not self.layers or not any(layer.weighted for layer in self.layers):
            raise ModelError(f"model {model!r} has no layer to train; use {SUPPORTED}")
        last = self.layers[-1]
        if self.rank != 1:
            raise ModelError(
                f"layer {last.name!r} is the last and gives a map; end with Flatten and Dense, one unit a class"
            )
        if last.slope != 1.0:
            raise ModelError(f"layer {last.name!r} is the last and has an activation; use 'linear' or 'softmax' there")
        if math.prod(last.out_shape) < 2:
            raise ModelError(
                f"layer {last.name!r} is the last and has one unit; use one unit a class, two for yes or no"
            )


def _square(size: Any) -> tuple[int, int]:
    """Return Keras's sizes as height and width; what has one dimension gets height 1."""
    values = tuple(int(value) for value in size)
    return (1, values[0]) if len(values) == 1 else (values[0], values[1])


def _slope(layer: Any, activation: Any) -> float | None:
    """Return the activation's slope below zero, 1 if it is linear, None if it is a softmax."""
    import keras

    named = {
        keras.activations.linear: 1.0,
        keras.activations.relu: 0.0,
        keras.activations.leaky_relu: 0.2,  # Keras's default
        keras.activations.softmax: None,
    }
    if not isinstance(activation, keras.layers.Layer):
        if activation not in named:
            name = getattr(activation, "__name__", str(activation))
            _refuse(layer, f"has the activation {name!r}", str(ADVICE["Activation"]))
        return named[activation]
    if type(activation) is keras.layers.Softmax:
        if activation.axis not in (-1, 1):
            _refuse(layer, f"has axis={activation.axis}", "use axis=-1")
        return None
    if type(activation) not in (keras.layers.ReLU, keras.layers.LeakyReLU):
        _refuse(layer, f"has the activation {type(activation).__name__}", str(ADVICE["Activation"]))
    if getattr(activation, "max_value", None) is not None or getattr(activation, "threshold", False):
        _refuse(layer, "has a max_value or a threshold", "use a plain ReLU or LeakyReLU")
    slope = float(activation.negative_slope)
    if not 0.0 <= slope <= 1.0:
        _refuse(layer, f"has negative_slope {slope:g}", "use 0 to 1")
    return slope
