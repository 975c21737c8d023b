"""The training step of a workload as TensorFlow and PyTorch take it, on one thread; each step returns its loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from benchmarks.workloads import Workload

if TYPE_CHECKING:
    import numpy as np

    from codegen.graph import Layer

Step = Callable[[], Any]


def tensorflow_steps(workload: Workload) -> Iterator[Step]:
    """Yield TensorFlow's graph of a step over all examples, and what XLA makes of it.

    Raises RuntimeError if TensorFlow has made tensors in this process before: its threads are settled then.
    """
    from codegen.quiet import import_keras

    import_keras()
    import numpy as np
    import tensorflow as tf

    from codegen.keras_model import keras_model

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    sub_model = workload.plan.sub_model
    model = keras_model(sub_model.graph)
    model.set_weights(sub_model.cut(workload.weights))
    inputs = tf.constant(_inputs(workload))
    labels = tf.constant(np.arange(len(workload.samples)) % sub_model.graph.classes)

    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = model(inputs, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(losses)
        variables = model.trainable_variables
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            variable.assign_sub(workload.rate * gradient)
        return loss

    for jit in (False, True):
        yield tf.function(step, jit_compile=jit)


def pytorch_steps(workload: Workload) -> Iterator[Step]:
    """Yield PyTorch's eager step over all examples, and what torch.compile makes of its model. Raises ImportError."""
    import numpy as np
    import torch

    torch.set_num_threads(1)
    graph = workload.plan.sub_model.graph
    modules = [module for layer in graph.layers for module in _modules(layer)]
    model = torch.nn.Sequential(*modules)
    with torch.no_grad():
        for parameter, weight in zip(model.parameters(), _pytorch_weights(workload), strict=True):
            parameter.copy_(torch.from_numpy(weight))
    inputs = torch.from_numpy(np.ascontiguousarray(_inputs(workload).transpose(0, 3, 1, 2)))
    labels = torch.arange(len(workload.samples)) % graph.classes
    optimizer = torch.optim.SGD(model.parameters(), lr=workload.rate)

    def step_of(forward: Callable[[Any], Any]) -> Step:
        def step() -> torch.Tensor:
            optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(forward(inputs), labels)
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step

    yield step_of(model)
    compiled = step_of(torch.compile(model))
    try:
        compiled()
    except RuntimeError:  # it wants a C++ compiler, and is not made for every platform
        return
    yield compiled


def _inputs(workload: Workload) -> np.ndarray:
    import numpy as np

    return workload.samples.reshape(-1, *workload.plan.sub_model.graph.input_shape).astype(np.float32) / 255


def _modules(layer: Layer) -> Iterator[Any]:
    """Yield a convolution or dense layer, what pads its input, and its activation."""
    from torch import nn

    if layer.kind == "conv2d":
        sizes = zip(layer.in_shape, layer.out_shape, layer.kernel, layer.stride, layer.pad, strict=False)
        after = [max((out - 1) * step + kernel - size - before, 0) for size, out, kernel, step, before in sizes]
        padding = layer.pad
        if after != list(padding):
            yield nn.ZeroPad2d((padding[1], after[1], padding[0], after[0]))
            padding = (0, 0)
        yield nn.Conv2d(layer.in_shape[2], layer.out_shape[2], layer.kernel, layer.stride, padding, bias=layer.bias)
    elif layer.kind == "dense":
        height, width, channels = layer.in_shape
        if height * width > 1:
            yield nn.Flatten()
        yield nn.Linear(height * width * channels, layer.out_shape[2], bias=layer.bias)
    else:
        raise ValueError(f"{layer.name} is of kind {layer.kind}; expected conv2d or dense")
    if layer.slope != 1.0:
        yield nn.LeakyReLU(layer.slope)


def _pytorch_weights(workload: Workload) -> Iterator[np.ndarray]:
    """Yield the weights channels first, which Flatten and PyTorch's kernels count in."""
    import numpy as np

    sub_model = workload.plan.sub_model
    shapes = {layer.name: layer.in_shape for layer in sub_model.graph.layers}
    for tensor, weight in zip(sub_model.graph.tensors, sub_model.cut(workload.weights), strict=True):
        if tensor.role == "kernel" and weight.ndim == 4:
            weight = weight.transpose(3, 2, 0, 1)
        elif tensor.role == "kernel":
            weight = weight.reshape(*shapes[tensor.layer], -1).transpose(3, 2, 0, 1).reshape(weight.shape[1], -1)
        yield np.ascontiguousarray(weight)
