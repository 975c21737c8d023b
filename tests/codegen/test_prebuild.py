"""What a build compiles into one node's image: its samples and its id."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from codegen.prebuild import PrebuildError, identity_defines, place_key, place_shard, sensor_folder
from coordinator.data import write_shard


def test_a_shard_becomes_rows_of_label_and_bytes(tmp_path: Path) -> None:
    samples, proxy = np.array([[1, 2, 255], [0, 7, 9]]), np.array([[5, 6, 7]])
    write_shard(tmp_path / "node.tfs", samples, np.array([300, 4]), 301, proxy)
    place_shard(tmp_path, str(tmp_path / "node.tfs"))
    text = (tmp_path / "shard.h").read_text()
    assert [line for line in text.splitlines() if line.startswith("SHARD_ROW")] == [
        "SHARD_ROW(300, 1,2,255)",
        "SHARD_ROW(4, 0,7,9)",
        "SHARD_ROW(65535, 5,6,7)",
    ]
    for name, value in {"SAMPLES": 2, "PROXY": 1, "FEATURES": 3, "CLASSES": 301}.items():
        assert f"#define SHARD_{name} {value}\n" in text
    place_shard(tmp_path, "")
    assert not (tmp_path / "shard.h").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "bad.tfs cannot be read"),
        (b"TFS", "bad.tfs is no shard"),
        (b"TFS1" + bytes(16), "bad.tfs is no shard"),
        (b"TFS2" + b"\1\0\0\0\1\0\0\0\3\0\0\0\2\0\0\0" + bytes(7), "bad.tfs has 27 bytes; expected 28"),
        (b"TFS2" + b"\1\0\0\0\0\0\0\0\1\0\0\0\2\0\0\0" + b"\7\2\0", "sample 0 has label 2; expected less than 2"),
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


KEY = "00ff" * 16


def test_a_key_becomes_bytes_that_only_their_owner_may_read(tmp_path: Path) -> None:
    (tmp_path / "node.key").write_text(KEY + "\n")
    header = tmp_path / "node_key.h"
    place_key(tmp_path, str(tmp_path / "node.key"))
    assert header.read_text().splitlines()[-1] == "#define NODE_KEY " + ",".join(["0x00", "0xff"] * 16)
    assert header.stat().st_mode & 0o777 == 0o600
    made = header.stat()
    place_key(tmp_path, str(tmp_path / "node.key"))
    assert header.stat().st_mtime_ns == made.st_mtime_ns
    (tmp_path / "node.key").write_text(KEY.replace("00", "01"))
    place_key(tmp_path, str(tmp_path / "node.key"))
    assert "0x01,0xff" in header.read_text() and header.stat().st_mode & 0o777 == 0o600
    place_key(tmp_path, "")
    assert not header.exists()


@pytest.mark.parametrize("content", [None, b"", b"ff" * 31, b"ff" * 33, b"fg" * 32, b"ff" * 32 + b"\n\n", b"\0" * 64])
def test_a_bad_key_is_refused_and_shown_to_nobody(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "bad.key").write_bytes(content)
    with pytest.raises(PrebuildError, match=r"TIERFED_KEY: .*bad.key (cannot be read|is no key)") as caught:
        place_key(tmp_path, str(tmp_path / "bad.key"))
    assert "ff" not in str(caught.value).replace(str(tmp_path), "")
    assert not (tmp_path / "node_key.h").exists()
