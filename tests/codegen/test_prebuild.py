"""What a build compiles into one node's image: its samples and its id."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from codegen.prebuild import PrebuildError, identity_defines, place_shard, sensor_folder
from coordinator.data import write_shard


def test_a_shard_becomes_rows_of_label_and_bytes(tmp_path: Path) -> None:
    write_shard(tmp_path / "node.tfs", np.array([[1, 2, 255], [0, 7, 9]]), np.array([300, 4]), 301)
    place_shard(tmp_path, str(tmp_path / "node.tfs"))
    text = (tmp_path / "shard.h").read_text()
    assert [line for line in text.splitlines() if line.startswith("SHARD_ROW")] == [
        "SHARD_ROW(300, 1,2,255)",
        "SHARD_ROW(4, 0,7,9)",
    ]
    for name, value in {"SAMPLES": 2, "FEATURES": 3, "CLASSES": 301}.items():
        assert f"#define SHARD_{name} {value}\n" in text
    place_shard(tmp_path, "")
    assert not (tmp_path / "shard.h").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "bad.tfs cannot be read"),
        (b"TFS", "bad.tfs is no shard"),
        (b"TFS2" + bytes(12), "bad.tfs is no shard"),
        (b"TFS1" + b"\1\0\0\0\3\0\0\0\2\0\0\0" + bytes(4), "bad.tfs has 20 bytes; expected 21"),
        (b"TFS1" + b"\1\0\0\0\1\0\0\0\2\0\0\0" + b"\7\2\0", "sample 0 has label 2; expected less than 2"),
    ],
)
def test_a_bad_shard_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "bad.tfs").write_bytes(content)
    with pytest.raises(PrebuildError, match=rf"TIERFED_SHARD: .*{message}"):
        place_shard(tmp_path, str(tmp_path / "bad.tfs"))
    assert not (tmp_path / "shard.h").exists()


def test_an_id_is_16_hexadecimal_digits() -> None:
    assert identity_defines("") == []
    assert identity_defines("00000000000000A1") == [("TIERFED_UID", "0x00000000000000A1")]
    for wrong in ("a1", "00000000000000g1", "0x000000000000a1", "00000000000000a1\n"):
        with pytest.raises(PrebuildError, match="expected 16 hexadecimal digits"):
            identity_defines(wrong)


def test_a_sensors_code_lies_beside_the_federation_file(tmp_path: Path) -> None:
    header, folder, federation = tmp_path / "model.h", tmp_path / "sensor", tmp_path / "federation.toml"
    header.write_text("#define MODEL_SOURCE_SENSOR 0\n")
    assert sensor_folder(tmp_path, federation) is None
    header.write_text("#define MODEL_SOURCE_FLASH 0\n#define MODEL_SOURCE_SENSOR 1\n")
    for name in ("absent", "notes.md", "gestures.h"):
        with pytest.raises(
            PrebuildError, match=r'federation.toml: source = "sensor", but .*sensor has no \.c or \.cpp'
        ):
            sensor_folder(tmp_path, federation)
        folder.mkdir(exist_ok=True)
        (folder / name).touch()
    (folder / "sensor.cpp").touch()
    assert sensor_folder(tmp_path, federation) == folder
