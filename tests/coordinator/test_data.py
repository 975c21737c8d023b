"""Data sets read, refused, dealt out and written as shards."""

import contextlib
import gzip
import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boards import PROJECT_ROOT
from coordinator.data import KEYS, Dataset, load_dataset, write_shard
from coordinator.errors import DataError
from coordinator.federation import Split
from coordinator.idx import FILES, parse_idx
from coordinator.partition import partition

Array = np.ndarray[Any, np.dtype[Any]]


def _arrays(**changes: Array) -> dict[str, Array]:
    good: dict[str, Array] = {
        "x_train": np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2),
        "y_train": np.array([0, 1, 2, 0, 1, 2], np.uint8),
        "x_test": np.zeros((2, 2, 2), np.uint8),
        "y_test": np.array([0, 2], np.int64),
    }
    return good | changes


def _npz(folder: Path, **changes: Array) -> Path:
    path = folder / "set.npz"
    np.savez(path, allow_pickle=True, **_arrays(**changes))
    return path


def _npy(array: Array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _idx(array: Array) -> bytes:
    kinds = {"uint8": 0x08, "int16": 0x0B, "float64": 0x0E}
    header = struct.pack(f">HBB{array.ndim}I", 0, kinds[array.dtype.name], array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def test_the_shipped_images_are_the_known_ones() -> None:
    data = load_dataset(PROJECT_ROOT / "examples" / "mnist" / "mnist-10k.npz")
    assert data.x_train.shape == (10_000, 28, 28)
    assert (data.features, data.classes) == (784, 10)
    assert np.bincount(data.y_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_an_npz_becomes_bytes_and_labels(tmp_path: Path) -> None:
    data = load_dataset(_npz(tmp_path))
    assert data.x_train.dtype == np.uint8
    assert data.y_train.dtype == np.uint16
    assert (data.features, data.classes) == (4, 3)
    assert data.y_test.tolist() == [0, 2]


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
def test_floats_survive_eight_bits_to_half_a_step(tmp_path: Path, value_range: tuple[float, float]) -> None:
    low, high = value_range
    x = np.random.default_rng(0).uniform(low, high, (6, 2, 2))
    data = load_dataset(_npz(tmp_path, x_train=x), value_range)
    assert data.decode(data.x_train).dtype == np.float32
    assert np.abs(data.decode(data.x_train) - x).max() <= (high - low) / 255 * 0.5001


def test_decoding_is_what_the_engine_computes() -> None:
    data = Dataset(*(np.zeros((1, 1), np.uint8),) * 4, classes=1, range=(-1.0, 1.0))
    steps = np.arange(256, dtype=np.uint8)
    expected = [np.float32(np.float32(step) * np.float32(2 / 255)) + np.float32(-1) for step in range(256)]
    assert data.decode(steps).tolist() == [float(value) for value in expected]


BAD: dict[str, tuple[Callable[[dict[str, Array]], object], str]] = {
    "a key missing": (lambda a: a.pop("y_test"), "no array 'y_test', found x_train, y_train, x_test"),
    "lengths differ": (lambda a: a.update(y_train=a["y_train"][:5]), "y_train has 5 labels for 6 samples"),
    "a NaN": (lambda a: a.update(x_train=np.full((6, 2, 2), np.nan)), "x_train has a NaN or infinity in sample 0"),
    "out of range": (lambda a: a.update(x_test=np.full((2, 2, 2), 1.5)), r"x_test goes from 1.5 to 1.5, outside range"),
    "wide integers": (
        lambda a: a.update(x_test=np.full((2, 2, 2), 256)),
        "whole numbers from 256 to 256; expected 0 to",
    ),
    "labels negative": (
        lambda a: a.update(y_train=np.array([0, -1, 0, 0, 0, 0])),
        "label -1 at sample 1; expected 0 to",
    ),
    "labels too large": (lambda a: a.update(y_test=np.array([0, 3])), "label 3 at sample 1; expected 0 to 2"),
    "labels one-hot": (lambda a: a.update(y_test=np.eye(2)), "expected one whole number a sample"),
    "objects": (lambda a: a.update(x_train=np.array([{}], object)), "holds Python objects"),
    "text": (lambda a: a.update(x_train=np.array([["a"]])), "expected numbers"),
    "another shape": (
        lambda a: a.update(x_test=np.zeros((2, 3, 2), np.uint8)),
        "samples of 2×2, x_test of 3×2",
    ),
    "no samples": (lambda a: a.update(x_test=np.zeros((0, 2, 2), np.uint8)), "none of them empty"),
    "a scalar": (lambda a: a.update(x_test=np.array(3)), "expected samples × features"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_npz_is_refused_with_its_reason(tmp_path: Path, case: str) -> None:
    change, said = BAD[case]
    arrays = _arrays()
    change(arrays)
    path = tmp_path / "set.npz"
    np.savez(path, allow_pickle=True, **arrays)
    with pytest.raises(DataError, match=said):
        load_dataset(path, classes=3)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("absent.npz", None, "No such file"),
        ("set.csv", b"1,2", "expected an .npz file or a directory of IDX files"),
        ("set.npz", b"", "expected"),
        ("set.npz", b"PK\x03\x04 and nothing more", "damaged"),
        ("set.npz", b"\x93NUMPY\x01\x00v\x00{", "damaged|no array"),
        ("set.npz", _npy(np.zeros((2, 2), np.uint8)), "damaged .File is not a zip file"),
    ],
)
def test_what_is_no_data_set(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=said):
        load_dataset(path)


def test_an_encrypted_npz_is_refused(tmp_path: Path) -> None:
    content = bytearray(_npz(tmp_path).read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "set.npz").write_bytes(content)
    with pytest.raises(DataError, match="encrypted"):
        load_dataset(tmp_path / "set.npz")


def test_an_npz_of_sizes_beyond_any_integer_is_refused(tmp_path: Path) -> None:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({10**400},)}}\n".encode()
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        for key in KEYS:
            archive.writestr(f"{key}.npy", array)
    with pytest.raises(DataError, match="damaged"):
        load_dataset(tmp_path / "set.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@given(st.data())
def test_a_damaged_npz_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, save: Callable[..., None], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("npz") / "set.npz"
    save(path, **_arrays())
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(DataError):
        assert load_dataset(path).features > 0


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("dotted", [False, True])
def test_a_directory_of_idx_files(tmp_path: Path, packed: bool, dotted: bool) -> None:
    arrays = _arrays(y_test=np.array([0, 2], np.uint8))
    for key, name in FILES.items():
        content = _idx(arrays[key])
        path = tmp_path / ((name.replace("-idx", ".idx") if dotted else name) + (".gz" if packed else ""))
        path.write_bytes(gzip.compress(content) if packed else content)
    data = load_dataset(tmp_path)
    assert data.x_train.tolist() == arrays["x_train"].tolist()
    assert data.y_test.tolist() == [0, 2]


def test_a_directory_without_idx_files_names_the_first_missing_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no train-images-idx3-ubyte or"):
        load_dataset(tmp_path)


def test_an_idx_file_that_only_claims_to_be_gzip(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"not gzip")
    with pytest.raises(DataError, match="expected an IDX file"):
        load_dataset(tmp_path)


GOOD_IDX = _idx(np.arange(6, dtype=np.uint8).reshape(3, 2))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (GOOD_IDX[:3], "3 bytes"),
        (GOOD_IDX[:7], "ends within its header"),
        (GOOD_IDX[:-1], "17 bytes; its header says 3×2 values, which makes 18"),
        (GOOD_IDX + b"x", "more bytes; its header says 3×2 values, which makes 18"),
        (b"\1" + GOOD_IDX[1:], "begins with 01 00 08 02; expected the magic number"),
        (b"\0\0\x07\2" + GOOD_IDX[4:], "expected the magic number"),
        (b"\0\0\x08\0", "expected the magic number"),
        (b"\0\0\x08\2" + b"\xff" * 8, "its header says 4294967295×4294967295 values"),
        (b"\0\0\x08\xff" + b"\0\0\0\1" * 255 + b"x", "maximum supported dimension"),
        (b"\0\0\x08\4" + b"\xff" * 12 + bytes(4), "cannot reshape"),
    ],
)
def test_a_damaged_idx_file_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(DataError, match=said):
        parse_idx(content, "file")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float64])
def test_idx_types(dtype: type) -> None:
    array: Array = np.arange(-3 if dtype is not np.uint8 else 0, 9).astype(dtype)
    assert parse_idx(_idx(array), "file").tolist() == array.tolist()


@given(st.binary(max_size=64))
def test_any_bytes_are_an_idx_file_or_are_refused(content: bytes) -> None:
    try:
        parse_idx(content, "file")
    except DataError as error:
        assert str(error).startswith("file: ")


LABELS = np.random.default_rng(1).integers(0, 10, 3000).astype(np.uint16)


@pytest.mark.parametrize("split", ["iid", "dirichlet", "shards"])
@pytest.mark.parametrize(("nodes", "each"), [(10, 300), (7, 200), (1, 3000), (3000, 1)])
def test_nodes_get_as_many_as_asked_for_and_no_sample_twice(split: Split, nodes: int, each: int) -> None:
    parts = partition(LABELS, nodes, each, split, seed=5)
    assert [len(part) for part in parts] == [each] * nodes
    together = np.concatenate(parts)
    assert len(np.unique(together)) == len(together)
    again = partition(LABELS, nodes, each, split, seed=5)
    assert all((a == b).all() for a, b in zip(parts, again, strict=True))
    other = partition(LABELS, nodes, each, split, seed=6)
    assert not all((a == b).all() for a, b in zip(parts, other, strict=True))


def test_shards_hold_as_many_classes_as_asked_for() -> None:
    for part in partition(LABELS, 10, 200, "shards", seed=1, classes_per_node=3):
        assert len(np.unique(LABELS[part])) == 3


def test_a_smaller_alpha_is_more_uneven() -> None:
    def unevenness(alpha: float) -> float:
        parts = partition(LABELS, 5, 200, "dirichlet", seed=1, alpha=alpha)
        return float(np.mean([np.bincount(LABELS[part], minlength=10).max() for part in parts]))

    assert unevenness(0.1) > unevenness(1) > unevenness(100)


@pytest.mark.parametrize(
    ("nodes", "each", "split", "classes", "said"),
    [
        (10, 301, "iid", 2, "3010, but the data set has 3000 to train on; set samples_per_node to 300 or less"),
        (10, 10, "shards", 11, "classes_per_node is 11, but the data set has 10 classes"),
    ],
)
def test_a_split_that_cannot_be_made(nodes: int, each: int, split: Split, classes: int, said: str) -> None:
    with pytest.raises(DataError, match=said):
        partition(LABELS, nodes, each, split, seed=1, classes_per_node=classes)


def test_a_shard_is_what_the_native_port_maps(tmp_path: Path) -> None:
    path = tmp_path / "shards" / "node.tfs"
    x, y = np.arange(8, dtype=np.uint8).reshape(2, 2, 2), np.array([1, 300], np.uint16)
    write_shard(path, x, y, 301)
    labels = struct.pack("<HH", 1, 300)
    assert path.read_bytes() == b"TFS2" + struct.pack("<IIII", 2, 0, 4, 301) + bytes(range(8)) + labels
    write_shard(path, x, y, 301, x[1:] + 10)
    images = bytes((*range(8), *range(14, 18)))
    assert path.read_bytes() == b"TFS2" + struct.pack("<IIII", 2, 1, 4, 301) + images + labels


def test_an_unchanged_shard_keeps_its_time(tmp_path: Path) -> None:
    path = tmp_path / "node.tfs"
    x, y = np.zeros((1, 4), np.uint8), np.zeros(1, np.uint16)
    write_shard(path, x, y, 2)
    before = path.stat().st_mtime_ns
    write_shard(path, x, y, 2)
    assert path.stat().st_mtime_ns == before
    write_shard(path, x + 1, y, 2)
    assert path.stat().st_mtime_ns != before
