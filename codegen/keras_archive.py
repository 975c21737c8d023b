"""What a .keras file may hold, decided before Keras makes anything of it: its own safe mode has had holes."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from codegen.graph import ModelError
from codegen.keras_reader import ACTIVATIONS, ADVICE, POOLS, SUPPORTED, WEIGHTED

MAX_BYTES = 1 << 30  # of all members, unpacked
LAYERS = {"Flatten", "InputLayer", *ACTIVATIONS, *ADVICE, *POOLS, *WEIGHTED}  # what keras_reader has a sentence for
HARMLESS = ("keras.activations", "keras.constraints", "keras.initializers", "keras.regularizers")  # modules
OTHERS = {
    ("keras", "DTypePolicy"),
    ("keras", "Functional"),
    ("keras", "Sequential"),
    ("keras.models", "Functional"),
    ("keras.models", "Sequential"),
    ("keras.src.models.functional", "Functional"),
    ("keras.src.models.sequential", "Sequential"),
    ("builtins", "function"),  # of an activation's name
    (None, "__keras_tensor__"),
}


def check_archive(path: Path) -> None:
    """Raise ModelError unless the .keras file is made of layers that a board might know: a Lambda is a program, other
    layers open files."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
            if size > MAX_BYTES:
                raise ModelError(f"{path}: unpacks to {size} bytes; expected at most {MAX_BYTES}")
            config = json.loads(archive.read("config.json"))
        for module, name in _classes(config):
            known = name in LAYERS if module == "keras.layers" else module in HARMLESS or (module, name) in OTHERS
            if not known:
                raise ModelError(f"{path}: holds {module}.{name}, which no board knows; use {SUPPORTED}")
    except ModelError:
        raise
    except Exception as error:  # zipfile and json raise whatever the file provokes
        said = " ".join(str(error).split())[:200]
        raise ModelError(f"{path}: not a .keras file: {said or type(error).__name__}") from error


def _classes(config: Any) -> Iterator[tuple[str | None, str]]:
    """Yield module and class of everything that Keras would make; how the model was compiled is not read."""
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            if "class_name" in value:
                yield value.get("module"), str(value["class_name"])
            waiting += [inner for key, inner in value.items() if key != "compile_config"]
