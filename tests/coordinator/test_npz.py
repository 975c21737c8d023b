"""Archives that are damaged, or made to do damage: refused in words, whoever reads them."""

import contextlib
import io
import os
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.data import KEYS, load_dataset
from coordinator.errors import DataError
from coordinator.npz import NpzError, read_npz
from coordinator.state import Shapes, read_state

NAMES = ("tensor000", "tensor001")
MEMBERS = ("tensor000.npy", "tensor001.npy")
SHAPES = Shapes([(2, 3), (2, 3)])
FIELDS = {"descr": "'<f4'", "fortran_order": "False", "shape": "(2, 3)"}


def npy(header: str | bytes = "", body: bytes = bytes(24), version: int = 1, **fields: str) -> bytes:
    """An array's member: this header, or a good one with other fields."""
    good = "{" + ", ".join(f"'{key}': {value}" for key, value in (FIELDS | fields).items()) + "}"
    text = header or good
    content = text if isinstance(text, bytes) else text.encode("latin1")
    return (
        b"\x93NUMPY" + bytes((version, 0)) + len(content).to_bytes(2 if version == 1 else 4, "little") + content + body
    )


def archive(member: bytes = b"", names: Sequence[str] = MEMBERS, method: int = zipfile.ZIP_STORED) -> bytes:
    """An archive whose members all are this one."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as made:
        for name in names:
            made.writestr(name, member or npy())
    return file.getvalue()


def smeared(content: bytes) -> bytes:
    """Change the bytes of the first member, not the directory."""
    return content[:60] + bytes(byte ^ 0x55 for byte in content[60:120]) + content[120:]


def patched(content: bytes, place: int, value: bytes) -> bytes:
    """Change a field of the directory's first entry."""
    at = content.index(b"PK\x01\x02") + place
    return content[:at] + value + content[at + len(value) :]


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str, int], int], tuple[str, int]]:
        return os.open, (str(self.mark), os.O_CREAT | os.O_WRONLY)


HOSTILE = {
    "no archive": b"\x93NUMPY",
    "a header that does not end": archive(npy("{'descr': '|u1', ((((")),
    "text that does not end": archive(npy("{'a': '''")),
    "a header too deep": archive(npy("-" * 9000 + "1")),
    "a name in a header": archive(npy(descr="__import__('os')")),
    "objects within records": archive(npy(descr="[('a', [('b', 'O')])]")),
    "a shape of truths": archive(npy(shape="(True, 3)")),
    "a shape below zero": archive(npy(shape="(-2, 3)")),
    "more axes than there can be": archive(npy(shape=str((1,) * 100))),
    "more than any memory": archive(npy(shape=f"({10**14}, 3)")),
    "more than any integer": archive(npy(shape=f"({10**400}, 3)")),
    "another shape": archive(npy(shape="(3, 2)")),
    "another type": archive(npy(descr="'<f8'", body=bytes(48))),
    "an array cut short": archive(npy(body=bytes(23))),
    "an array that goes on": archive(npy(body=bytes(25))),
    "no array": archive(b"words"),
    "no array's name": archive(b"words", NAMES),
    "a version to come": archive(npy(version=9)),
    "a header of gigabytes": archive(b"\x93NUMPY\x02\x00\xff\xff\xff\xff"),
    "not UTF-8": archive(npy(b"\xff\xfe", version=3)),
    "two of a name": archive(names=("tensor000.npy", "tensor001.npy", "tensor000")),
    "a name missing": archive(names=("tensor000.npy", "../tensor001.npy")),
    "LZMA": archive(method=zipfile.ZIP_LZMA),
    "bzip2": archive(method=zipfile.ZIP_BZIP2),
    "damaged deflate": smeared(archive(method=zipfile.ZIP_DEFLATED)),
    "a method that is none": patched(archive(), 10, b"\x63"),
    "encrypted": patched(archive(), 8, b"\x01"),
    "another CRC": patched(archive(), 16, bytes(4)),
    "more than it says": patched(archive(), 24, b"\x10\0\0\0"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_hostile_is_refused_in_words(tmp_path: Path, case: str) -> None:
    assert read_state(HOSTILE[case], SHAPES) is None
    renamed = HOSTILE[case]
    for old, new in zip(NAMES, ("x_train", "x_tests"), strict=True):
        renamed = renamed.replace(old.encode(), new.encode().ljust(len(old), b"_"))
    (tmp_path / "set.npz").write_bytes(renamed)
    with pytest.raises(DataError, match=r"set\.npz: \S.*; expected an \.npz of plain arrays"):
        load_dataset(tmp_path / "set.npz")


def test_what_has_no_end_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "set.npz").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.npz")
    for name in ("set.npz", "pipe.npz"):
        with pytest.raises(DataError, match=rf"{name}: no regular file; expected an \.npz"):
            load_dataset(tmp_path / name)


def test_the_good_one_among_them_is_read() -> None:
    state = read_state(archive(), SHAPES)
    assert state is not None and [tensor.tolist() for tensor in state.weights] == [[[0.0] * 3] * 2] * 2


@pytest.mark.parametrize("names", [NAMES, KEYS])
def test_a_pickle_is_refused_and_does_not_run(tmp_path: Path, names: Sequence[str]) -> None:
    mark, path = tmp_path / "ran", tmp_path / "set.npz"
    objects = np.array([[Payload(mark)]], object)
    np.savez(path, allow_pickle=True, **dict.fromkeys(names, objects))
    with pytest.raises(NpzError, match="holds Python objects"):
        read_npz(path, names)
    for member in (pickle.dumps(Payload(mark)), npy(descr="'O'", body=pickle.dumps(objects))):
        with pytest.raises(NpzError):
            read_npz(io.BytesIO(archive(member)), NAMES)
    assert not mark.exists()
    os.close(pickle.loads(pickle.dumps(Payload(mark))))
    assert mark.exists()  # it would have


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_bomb_is_not_unpacked(method: int) -> None:
    bomb = archive(npy(shape=f"({50 << 20},)", descr="'|u1'", body=bytes(50 << 20)), ("tensor000.npy",), method)
    lying = patched(bomb, 24, (200).to_bytes(4, "little"))
    assert len(bomb) < 1 << 20
    tracemalloc.start()
    for content in (bomb, lying):
        with pytest.raises(NpzError):
            read_npz(io.BytesIO(content), NAMES[:1], most=1 << 20)
        assert read_state(content, Shapes([(2, 3)])) is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60 << 20  # the array that the header promises, and nothing that fills it


@given(st.data())
def test_any_header_is_read_or_refused(data: st.DataObject) -> None:
    good = npy()[10:-24].decode()
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, min(len(good), start + 12)))
    middle = data.draw(st.text(alphabet="0123456789'\"()[]{},:<>|=fuiOVSU -+.*_#\n\0eLTrue", max_size=12))
    content = archive(npy(good[:start] + middle + good[end:]))
    with contextlib.suppress(NpzError):
        assert set(read_npz(io.BytesIO(content), NAMES)) == set(NAMES)


@given(st.data())
def test_any_damage_to_a_checkpoint_is_seen_or_without_effect(data: st.DataObject) -> None:
    content = bytearray(archive(method=data.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    state = read_state(bytes(content[: data.draw(st.integers(0, len(content)))]), SHAPES)
    assert state is None or [tensor.shape for tensor in state.weights] == [(2, 3), (2, 3)]
