"""The global model's file: opened as Keras, or as a graph, without TensorFlow if it has been read before."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codegen.graph import Graph, Layer, ModelError
from codegen.keras_archive import check_archive
from codegen.keras_reader import read_model
from codegen.quiet import import_keras

if TYPE_CHECKING:
    import keras
    import numpy as np

CACHE = ".tierfed"


def load_keras(path: Path, seed: int) -> keras.Model:
    """Return the Keras model of `path`: a Python file with `build()`, initialised from `seed`, or a .keras file.

    Raises ModelError.
    """
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file; [model] path names a model.py or a .keras file")
    if path.suffix == ".keras":
        check_archive(path)
    import_keras()
    import keras

    if path.suffix == ".keras":
        try:
            return keras.models.load_model(path, compile=False, safe_mode=True)
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
    for source in (path, here, here.with_name("graph.py"), here.with_name("keras_reader.py")):
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
    except Exception:  # absent, or damaged in any way that numpy and zipfile know: read the model itself
        return None


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
