"""Keras models read into graphs, and the sentence for each that cannot be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from boards import PROJECT_ROOT
from codegen.graph import Layer, ModelError
from codegen.keras_reader import read_model
from codegen.model_file import CACHE, load_graph, load_keras

L = keras.layers
EXAMPLE = PROJECT_ROOT / "examples" / "mnist" / "model.py"


def model(*layers: Any, shape: tuple[int | None, ...] = (8, 8, 1)) -> Any:
    """Return a Sequential model that has a layer to train, whatever else it has."""
    return keras.Sequential([keras.Input(shape), *layers], name="m")


def image(*layers: Any) -> Any:
    """Put layers between a convolution and the logits."""
    return model(L.Conv2D(2, 3, name="conv"), *layers, L.Flatten(), L.Dense(3, name="logits"))


def branched(join: bool) -> Any:
    """Return a functional model with two paths."""
    x = keras.Input((4,), name="x")
    left, right = L.Dense(2, name="left")(x), L.Dense(2, name="right")(x)
    return keras.Model(x, L.Add(name="sum")([left, right]) if join else [left, right], name="m")


def shared() -> Any:
    """Return a functional model that runs one layer twice."""
    x, dense = keras.Input((4,)), L.Dense(4, name="twice")
    return keras.Model(x, L.Dense(2)(dense(dense(x))), name="m")


class Custom(keras.Model):  # type: ignore[misc]
    """A subclassed model; nobody can tell what it does."""


class Mine(keras.layers.Layer):  # type: ignore[misc]
    """A layer of the user's own."""

    def call(self, x: Any) -> Any:
        return x


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "BatchNormalization": (lambda: image(L.BatchNormalization(name="bn")), "layer 'bn' (BatchNormalization) cannot be"),
    "Dropout": (
        lambda: image(L.Dropout(0.5, name="drop")),
        "layer 'drop' (Dropout) cannot be trained on a board; leave",
    ),
    "LSTM": (
        lambda: model(L.LSTM(3, name="r"), shape=(8, 2)),
        "layer 'r' (LSTM) cannot be trained on a board; use Conv1D",
    ),
    "nested": (
        lambda: image(model(L.Conv2D(2, 1), shape=(6, 6, 2))),
        "layer 'm' (Sequential) is a model of its own; put",
    ),
    "own layer": (
        lambda: image(Mine(name="mine")),
        "layer 'mine' (Mine) is not a layer that a board knows; use Dense,",
    ),
    "dilation": (
        lambda: image(L.Conv2D(2, 3, dilation_rate=2, name="c")),
        "layer 'c' (Conv2D) has dilation_rate (2, 2)",
    ),
    "groups": (lambda: image(L.Conv2D(2, 3, groups=2, name="c")), "layer 'c' (Conv2D) has groups=2; use 1"),
    "multiplier": (lambda: image(L.DepthwiseConv2D(3, depth_multiplier=2)), "has depth_multiplier 2; use 1"),
    "causal": (lambda: model(L.Conv1D(2, 3, padding="causal"), shape=(8, 2)), "has padding='causal'; use 'same'"),
    "channels first": (
        lambda: model(L.Conv2D(2, 3, data_format="channels_first", name="c"), shape=(1, 8, 8)),
        "layer 'c' (Conv2D) has its channels first; use data_format='channels_last'",
    ),
    "gelu": (lambda: image(L.Conv2D(2, 1, activation="gelu")), "has the activation 'gelu'; use 'linear', 'relu'"),
    "relu6": (lambda: image(L.ReLU(max_value=6, name="r")), "layer 'r' (ReLU) has a max_value or a threshold"),
    "steep": (lambda: image(L.LeakyReLU(negative_slope=1.5, name="r")), "has negative_slope 1.5; use 0 to 1"),
    "softmax inside": (lambda: image(L.Softmax(name="s")), "comes after the softmax; put the softmax last"),
    "softmax axis": (
        lambda: model(L.Conv2D(2, 3), L.GlobalMaxPooling2D(keepdims=True), L.Softmax(axis=2, name="s")),
        "layer 's' (Softmax) has axis=2; use axis=-1",
    ),
    "map to dense": (
        lambda: model(L.Conv2D(2, 3), L.Dense(3, name="d")),
        "layer 'd' (Dense) reads a map, not a vector",
    ),
    "ends in map": (lambda: model(L.Conv2D(2, 3, name="c")), "layer 'c' is the last and gives a map; end with Flatten"),
    "ends in relu": (
        lambda: model(L.Flatten(), L.Dense(2, activation="relu", name="d")),
        "layer 'd' is the last and has an activation; use 'linear' or 'softmax' there",
    ),
    "one unit": (lambda: model(L.Flatten(), L.Dense(1, name="d")), "layer 'd' is the last and has one unit"),
    "nothing": (lambda: model(L.Flatten()), "model 'm' has no layer to train"),
    "first pool": (lambda: model(L.MaxPooling2D(name="p"), L.Flatten()), "layer 'p' (MaxPooling2D) is the first"),
    "first activation": (lambda: model(L.ReLU(name="r"), L.Flatten()), "layer 'r' (ReLU) acts on the input"),
    "no input": (lambda: keras.Sequential([L.Dense(2)], name="m"), "model 'm' has no input shape; begin it with"),
    "any size": (lambda: model(L.Conv2D(2, 3), shape=(None, 8, 1)), "input shape (None, 8, 1); expected one input"),
    "large kernel": (lambda: model(L.Conv1D(2, 300), shape=(400, 1)), "has a kernel of 300; use at most 255"),
    "large map": (
        lambda: model(L.Conv2D(9, 3, name="c"), shape=(100, 100, 1)),
        "layer 'c' (Conv2D) has an output of 98×98×9 values; use 1 to 65535 of them",
    ),
    "outputs": (lambda: branched(join=False), "model 'm' has several inputs or outputs"),
    "join": (lambda: branched(join=True), "layer 'sum' (Add) joins several paths; use a single path of layers"),
    "shared": (shared, "layer 'twice' (Dense) does not lie on the one path from input to output, once; use a single"),
    "subclass": (lambda: Custom(name="m"), "model 'm' has no input shape"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_say_what_to_use(name: str) -> None:
    build, sentence = REFUSED[name]
    with pytest.raises(ModelError) as error:
        read_model(build())
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_weights_that_are_not_finite_are_refused() -> None:
    broken = image()
    broken.set_weights([np.full_like(weight, np.nan) for weight in broken.get_weights()])
    with pytest.raises(ModelError, match="layer 'conv': its kernel holds NaN or infinity"):
        read_model(broken)


def test_example_reads_as_four_layers() -> None:
    graph = read_model(load_keras(EXAMPLE, seed=0))
    assert graph.layers[2] == Layer(
        "conv3", "conv2d", (7, 7, 32), (4, 4, 32), (3, 3), (2, 2), (1, 1), 0.1, bias=True, trainable=True
    )
    assert [layer.slope for layer in graph.layers] == [0.1, 0.1, 0.1, 1.0]
    assert (graph.parameters, graph.features, graph.classes, graph.softmax) == (19178, 784, 10, True)


@pytest.mark.parametrize(
    ("layers", "slope"),
    [
        ([L.Activation("linear")], 1.0),
        ([L.Activation("relu")], 0.0),
        ([L.Activation("leaky_relu")], 0.2),
        ([L.ReLU(negative_slope=0.25)], 0.25),
        ([L.LeakyReLU()], 0.3),
        ([L.LeakyReLU(negative_slope=0.5), L.LeakyReLU(negative_slope=0.25)], 0.125),
        ([L.MaxPooling2D(2), L.LeakyReLU(negative_slope=0.5), L.ReLU()], 0.0),
    ],
)
def test_activations_compose(layers: list[Any], slope: float) -> None:
    assert read_model(image(*layers)).layers[-2].slope == slope


@pytest.mark.parametrize(
    ("layer", "shape", "kind", "out", "kernel", "pad"),
    [
        (lambda: L.Conv1D(3, 5, strides=2, padding="same"), (9, 2), "conv2d", (1, 5, 3), (1, 5), (0, 2)),
        (lambda: L.Conv2D(3, (2, 4), padding="same"), (6, 5, 2), "conv2d", (6, 5, 3), (2, 4), (0, 1)),
        (lambda: L.DepthwiseConv2D(3, strides=2), (7, 7, 2), "depthwise_conv2d", (3, 3, 2), (3, 3), (0, 0)),
    ],
)
def test_windows_are_tensorflows(layer: Any, shape: Any, kind: str, out: Any, kernel: Any, pad: Any) -> None:
    read = read_model(model(layer(), L.Flatten(), L.Dense(2), shape=shape)).layers[0]
    assert (read.kind, read.out_shape, read.kernel, read.pad) == (kind, out, kernel, pad)


@pytest.mark.parametrize("keep", [False, True])
def test_global_pooling_is_a_window_as_large_as_its_input(keep: bool) -> None:
    layers = (L.Conv1D(3, 1), L.GlobalAveragePooling1D(keepdims=keep), *([L.Flatten()] if keep else []), L.Softmax())
    graph = read_model(model(*layers, shape=(7, 2)))
    assert (graph.layers[1].kind, graph.layers[1].kernel, graph.classes) == ("average_pool", (1, 7), 3)


def test_functional_and_sequential_read_the_same() -> None:
    sequential = image(L.MaxPooling2D(), L.ReLU())
    x = keras.Input((8, 8, 1))
    y = x
    for layer in sequential.layers:
        y = type(layer).from_config(layer.get_config())(y)
    assert read_model(keras.Model(x, y)).layers == read_model(sequential).layers


def test_trainable_freezes_the_rest() -> None:
    graph = read_model(image(L.Conv2D(2, 1, name="second")), ["second"])
    assert [layer.trainable for layer in graph.layers] == [False, True, False]
    assert graph.first_trainable == 1
    assert graph.frozen_crc != 0
    assert read_model(image()).frozen_crc == 0


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["convolution"], "trainable: there is no layer 'convolution' with weights; the model has conv, logits"),
        ([], "trainable: no layer is left to train; name some of conv, logits"),
    ],
)
def test_unknown_trainable_names_are_refused(names: list[str], sentence: str) -> None:
    with pytest.raises(ModelError) as error:
        read_model(image(), names)
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("absent.py", None, "there is no such file; [model] path names a model.py or a .keras file"),
        ("model.h5", "", "expected a Python file with build(), or a .keras file"),
        ("model.keras", "not a zip", "not a .keras file: File is not a zip file"),
        ("empty.py", "", "has no build(); define `def build() -> keras.Model`"),
        ("five.py", "def build(): return 5", "build() returned int; expected a keras.Model"),
        ("broken.py", "def build(): return nothing", "NameError: name 'nothing' is not defined"),
        ("syntax.py", "def", "SyntaxError"),
    ],
)
def test_files_that_hold_no_model_are_refused(tmp_path: Path, name: str, text: str | None, sentence: str) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(ModelError) as error:
        load_graph(path, None, 1)
    assert str(error.value).startswith(str(path))
    assert sentence in str(error.value)


def test_cache_gives_the_same_and_heals(tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text(EXAMPLE.read_text())
    graph, weights = load_graph(path, ["conv3", "logits"], 7)
    for damage in (None, b"", b"PK\x03\x04 cut off"):
        (cached,) = (tmp_path / CACHE).iterdir()
        if damage is not None:
            cached.write_bytes(damage)
        again, stored = load_graph(path, ["conv3", "logits"], 7)
        assert again == graph
        assert all(np.array_equal(a, b) for a, b in zip(weights, stored, strict=True))
    other = load_graph(path, None, 8)
    assert not np.array_equal(other[1][0], weights[0])
    assert len(list((tmp_path / CACHE).iterdir())) == 2


def test_keras_archives_keep_their_weights(tmp_path: Path) -> None:
    original = image()
    original.save(tmp_path / "model.keras")
    graph, weights = load_graph(tmp_path / "model.keras", None, 1)
    assert [tensor.shape for tensor in graph.tensors] == [weight.shape for weight in weights]
    assert all(np.array_equal(a, b) for a, b in zip(original.get_weights(), weights, strict=True))
    assert np.array_equal(load_keras(tmp_path / "model.keras", 2).get_weights()[0], weights[0])
