"""A .keras file is opened by Keras only if it is made of layers that a board might know."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from codegen.graph import ModelError
from codegen.keras_archive import MAX_BYTES, check_archive
from codegen.model_file import load_graph


def layer(name: str, module: object = "keras.layers", **config: object) -> dict[str, Any]:
    """What Keras writes of a layer."""
    return {"module": module, "class_name": name, "config": config, "registered_name": None}


def archive(folder: Path, *layers: object, **changes: bytes) -> Path:
    """A .keras file of a Sequential model; `changes` are members' contents instead."""
    config = {"module": "keras", "class_name": "Sequential", "config": {"layers": layers}, "compile_config": layer("X")}
    path = folder / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("config.json", changes.get("config", json.dumps(config).encode()))
        for name, content in changes.items():
            file.writestr(name, content)
    return path


GOOD = (
    layer("InputLayer", batch_shape=[None, 4]),
    layer("Dense", units=3, kernel_initializer=layer("HeNormal", "keras.initializers"), activation="softmax"),
)
HOSTILE = {
    "a program": (layer("Lambda", function={"class_name": "__lambda__", "config": {"code": "4wEAAA"}}), "Lambda"),
    "a program in an activation": (
        layer("Dense", units=2, activation=layer("__lambda__", "builtins", code="4wEAAA")), "builtins.__lambda__",
    ),
    "any function": (layer("Activation", activation=layer("function", "os", config="system")), "os.function"),
    "any class": (layer("Popen", "subprocess", args=["touch", "ran"]), "subprocess.Popen"),
    "a saved model elsewhere": (layer("TFSMLayer", filepath="/tmp/elsewhere"), "TFSMLayer"),
    "a file's words": (layer("StringLookup", vocabulary="/etc/passwd"), "StringLookup"),
    "a function of Keras that loads": (layer("get_file", "keras.utils", origin="http://"), "keras.utils.get_file"),
    "a custom class": (layer("Mine", None), "None.Mine"),
    "a module that is none": (layer("Dense", ["keras.layers"]), "not a .keras file"),
}  # fmt: skip


def test_what_a_board_might_know_is_let_through(tmp_path: Path) -> None:
    check_archive(archive(tmp_path, *GOOD, layer("BatchNormalization"), layer("LSTM")))  # the reader says why not


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_a_program_is_refused_before_keras_sees_it(tmp_path: Path, case: str) -> None:
    hostile, said = HOSTILE[case]
    with pytest.raises(ModelError, match=said):
        load_graph(archive(tmp_path, *GOOD, hostile), None, 1)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (b"[" * 100_000, "not a .keras file"),
        (b"\xff", "not a .keras file"),
        (b'{"class_name": 1', "not a .keras file"),
    ],
)
def test_a_config_that_is_none(tmp_path: Path, config: bytes, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        check_archive(archive(tmp_path, config=config))


def test_what_unpacks_to_too_much_is_not_unpacked(tmp_path: Path) -> None:
    path = archive(tmp_path, *GOOD)
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 24 : at + 28] = (MAX_BYTES + 1).to_bytes(4, "little")  # the size that the directory declares
    path.write_bytes(content)
    with pytest.raises(ModelError, match=f"unpacks to {MAX_BYTES + 1} bytes"):
        check_archive(path)


def test_a_real_program_does_not_run(tmp_path: Path) -> None:
    import keras

    mark = tmp_path / "ran"
    program = keras.layers.Lambda(lambda x, mark=str(mark): (open(mark, "w"), x)[1])  # noqa: PTH123, SIM115
    model = keras.Sequential([keras.Input((4,)), program])
    mark.unlink()  # the model itself has called it
    model.save(tmp_path / "model.keras")
    with pytest.raises(ModelError, match=r"holds keras\.layers\.Lambda"):
        load_graph(tmp_path / "model.keras", None, 1)
    assert not mark.exists()
