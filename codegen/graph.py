"""A Keras model read into the layers that a board can train, without TensorFlow if it has been read before."""

from __future__ import annotations

import hashlib
import json
import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from codegen.quiet import import_keras

if TYPE_CHECKING:
    import keras
    import numpy as np

Shape = tuple[int, int, int]  # height, width, channels
Kind = Literal["dense", "conv2d", "depthwise_conv2d", "max_pool", "average_pool"]

CACHE = ".tierfed"
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


class ModelError(ValueError):
    """A model that cannot become firmware; the sentence names the layer and what to use."""


@dataclass(frozen=True)
class Layer:
    """One step of the network, with the activation on its output. Shapes are height, width, channels."""

    name: str
    kind: Kind
    in_shape: Shape  # Dense after Flatten keeps the shape before it
    out_shape: Shape
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int] = (0, 0)  # rows above, columns to the left
    slope: float = 1.0  # of the activation below zero: 1 linear, 0 ReLU, alpha LeakyReLU
    bias: bool = False
    trainable: bool = False
    flat_kernel: bool = False  # Conv1D: Keras's kernel has no height axis

    @property
    def weighted(self) -> bool:
        """Whether it has a kernel."""
        return not self.kind.endswith("_pool")

    def tensors(self) -> Iterator[Tensor]:
        """Yield its tensors in Keras's order and shapes."""
        height, width, channels = self.in_shape
        if self.kind == "dense":
            shape: tuple[int, ...] = (height * width * channels, self.out_shape[2])
        elif self.kind == "conv2d":
            shape = (*self.kernel[1 if self.flat_kernel else 0 :], channels, self.out_shape[2])
        else:
            shape = (*self.kernel, channels, 1)
        if self.weighted:
            yield Tensor(self.name, "kernel", shape, self.trainable)
            if self.bias:
                yield Tensor(self.name, "bias", (self.out_shape[2],), self.trainable)


@dataclass(frozen=True)
class Tensor:
    """One weight tensor, in Keras's shape."""

    layer: str
    role: Literal["kernel", "bias"]
    shape: tuple[int, ...]
    trainable: bool

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Graph:
    """The network a board runs: `layers` from the 8-bit sample to the logits."""

    name: str
    layers: tuple[Layer, ...]
    classes: int
    softmax: bool  # the Keras model ends in one; a board always trains on logits
    frozen_crc: int = 0  # CRC-32 of the frozen tensors' bytes, 0 if there are none

    @cached_property
    def tensors(self) -> tuple[Tensor, ...]:
        """Every weight tensor, in the order of keras `model.get_weights()`."""
        return tuple(tensor for layer in self.layers for tensor in layer.tensors())

    @property
    def input_shape(self) -> Shape:
        """Height, width, channels of a sample."""
        return self.layers[0].in_shape

    @property
    def features(self) -> int:
        """Bytes of a sample."""
        return math.prod(self.input_shape)

    @property
    def parameters(self) -> int:
        """Trainable floats."""
        return sum(tensor.size for tensor in self.tensors if tensor.trainable)

    @property
    def first_trainable(self) -> int:
        """Index of the layer at which the backward pass ends."""
        return next(index for index, layer in enumerate(self.layers) if layer.trainable)


def read_model(source: Path | keras.Model, trainable: Sequence[str] | None = None) -> Graph:
    """Return the graph of a Keras model, or of the file that holds one.

    `trainable` names the layers to train and freezes the others; None: those that Keras would train.
    Raises ModelError.
    """
    import numpy as np

    from codegen.keras_reader import read_layers

    model = load_keras(source, seed=0) if isinstance(source, Path) else source
    layers, softmax = read_layers(model, trainable)
    graph = Graph(str(model.name), layers, math.prod(layers[-1].out_shape), softmax)
    weights = model.get_weights()
    if [tensor.shape for tensor in graph.tensors] != [weight.shape for weight in weights]:
        raise ModelError(f"model {graph.name!r}: its weights are not those of its layers; use {SUPPORTED}")
    for tensor, weight in zip(graph.tensors, weights, strict=True):
        if not np.isfinite(weight).all():
            raise ModelError(f"layer {tensor.layer!r}: its {tensor.role} holds NaN or infinity; train the model anew")
    crc = 0
    for tensor, weight in zip(graph.tensors, weights, strict=True):
        if not tensor.trainable:
            crc = zlib.crc32(weight.astype("<f4").tobytes(), crc)
    return Graph(graph.name, layers, graph.classes, softmax, crc)


def load_keras(path: Path, seed: int) -> keras.Model:
    """Return the Keras model of `path`: a Python file with `build()`, initialised from `seed`, or a .keras file.

    Raises ModelError.
    """
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file; [model] path names a model.py or a .keras file")
    import_keras()
    import keras

    if path.suffix == ".keras":
        try:
            return keras.models.load_model(path, compile=False)
        except Exception as error:  # Keras raises whatever the archive provokes
            raise ModelError(f"{path}: Keras cannot open it: {_one_line(error)}") from error
    if path.suffix != ".py":
        raise ModelError(f"{path}: expected a Python file with build(), or a .keras file")
    import runpy

    keras.utils.set_random_seed(seed)
    try:
        build = runpy.run_path(str(path)).get("build")
        model = build() if callable(build) else None
    except Exception as error:  # the user's code may raise anything
        raise ModelError(f"{path}: {_one_line(error)}") from error
    if build is None:
        raise ModelError(f"{path}: has no build(); define `def build() -> keras.Model`")
    if not isinstance(model, keras.Model):
        raise ModelError(f"{path}: build() returned {type(model).__name__}; expected a keras.Model")
    return model


def load_graph(path: Path, trainable: Sequence[str] | None, seed: int) -> tuple[Graph, list[np.ndarray]]:
    """Return the graph of `path` and its weights, float32, in `graph.tensors` order. Raises ModelError.

    Both are kept in .tierfed/ beside the model, under a hash of the file, the arguments, this code and Keras's
    version, so that an unchanged model needs no TensorFlow. What the file imports is not part of the hash.
    """
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file; [model] path names a model.py or a .keras file")
    cache = path.parent / CACHE / f"model-{_cache_key(path, trainable, seed)}.npz"
    cached = _read_cache(cache)
    if cached is not None:
        return cached
    model = load_keras(path, seed)
    graph = read_model(model, trainable)
    weights = [weight.astype("float32") for weight in model.get_weights()]
    _write_cache(cache, graph, weights)
    return graph, weights


def _cache_key(path: Path, trainable: Sequence[str] | None, seed: int) -> str:
    digest = hashlib.sha256()
    here = Path(__file__)
    for source in (path, here, here.with_name("keras_reader.py")):
        digest.update(hashlib.sha256(source.read_bytes()).digest())
    names = None if trainable is None else list(trainable)
    digest.update(json.dumps([path.suffix, names, seed, version("keras")]).encode())
    return digest.hexdigest()[:32]


def _read_cache(cache: Path) -> tuple[Graph, list[np.ndarray]] | None:
    import numpy as np

    try:
        with np.load(cache, allow_pickle=False) as stored:
            graph = _graph_from_json(json.loads(str(stored["graph"])))
            return graph, [stored[f"weight_{index}"] for index in range(len(graph.tensors))]
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None  # absent or damaged: read the model itself


def _write_cache(cache: Path, graph: Graph, weights: list[np.ndarray]) -> None:
    import numpy as np

    temporary = cache.with_name(f"{cache.stem}.{os.getpid()}.tmp.npz")
    arrays = {f"weight_{index}": weight for index, weight in enumerate(weights)}
    try:
        cache.parent.mkdir(exist_ok=True)
        np.savez(temporary, allow_pickle=False, graph=np.array(json.dumps(asdict(graph))), **arrays)
        temporary.replace(cache)
    except OSError:  # a folder that cannot be written costs time, not the run
        temporary.unlink(missing_ok=True)


def _graph_from_json(stored: dict[str, Any]) -> Graph:
    def layer(fields: dict[str, Any]) -> Layer:
        values: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in fields.items()}
        return Layer(**values)

    return Graph(**{**stored, "layers": tuple(layer(fields) for fields in stored["layers"])})


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
