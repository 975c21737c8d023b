"""A graph turned back into Keras: how the host evaluates a sub-model, and the oracle of the generated C."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from codegen.graph import Graph, Layer
from codegen.quiet import import_keras

if TYPE_CHECKING:
    import keras


def keras_model(graph: Graph) -> keras.Model:
    """Return the Keras model that computes `graph`: samples (height, width, channels) to logits.

    Its weights are the graph's tensors, in their order; Conv1D has become Conv2D of height 1, whose kernel has one
    axis more, so give it the tensors through `shaped`.
    """
    import_keras()
    import keras

    model = keras.Sequential([keras.Input(graph.input_shape)], name=graph.name)
    for layer in graph.layers:
        if layer.kind == "dense":
            model.add(keras.layers.Flatten(name=f"{layer.name}_flat"))
        model.add(_keras_layer(keras.layers, layer))
        if layer.slope != 1.0:
            model.add(keras.layers.LeakyReLU(negative_slope=layer.slope, name=f"{layer.name}_activation"))
    model.add(keras.layers.Flatten(name="classes"))
    return model


def shaped(model: keras.Model, weights: Any) -> list[Any]:
    """Return a graph's tensors in the shapes of the model that `keras_model` made of it."""
    return [tensor.reshape(variable.shape) for tensor, variable in zip(weights, model.weights, strict=True)]


def _keras_layer(layers: Any, layer: Layer) -> Any:
    """Return the Keras layer of a graph's layer, without its activation."""
    reach = zip(layer.in_shape[:2], layer.kernel, layer.stride, strict=True)
    valid = tuple((size - kernel) // stride + 1 for size, kernel, stride in reach)
    padding = "valid" if valid == layer.out_shape[:2] else "same"
    window = {"strides": layer.stride, "padding": padding, "name": layer.name}
    if layer.kind == "dense":
        return layers.Dense(layer.out_shape[2], use_bias=layer.bias, name=layer.name)
    if layer.kind == "conv2d":
        return layers.Conv2D(layer.out_shape[2], layer.kernel, use_bias=layer.bias, **window)
    if layer.kind == "depthwise_conv2d":
        return layers.DepthwiseConv2D(layer.kernel, use_bias=layer.bias, **window)
    pool = layers.MaxPooling2D if layer.kind == "max_pool" else layers.AveragePooling2D
    return pool(layer.kernel, **window)
