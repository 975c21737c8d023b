"""Archives of plain arrays (.npz) from outside. numpy reads each array; what may be one is decided here."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

MAX_BYTES = 1 << 32  # of all arrays together, unpacked: a small file must not fill the memory
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # Python unpacks the others in pieces of any size


class NpzError(ValueError):
    """An archive that is damaged, or made to do damage; the message says why and fits behind the file's name."""


def read_npz(
    file: Path | IO[bytes], names: Sequence[str], optional: Sequence[str] = (), most: int = MAX_BYTES
) -> dict[str, Array]:
    """Return the arrays of these names, and those of the optional ones that are there; nothing else is looked at.

    Raises OSError if the file cannot be read, and NpzError if it is no regular file, if a name is missing or there
    twice, if what it names is no plain array, or if all of them are more than `most` bytes.
    """
    if isinstance(file, Path) and file.exists() and not file.is_file():
        raise NpzError("no regular file")  # a device has no end
    try:
        with zipfile.ZipFile(file) as archive:
            members = _members(archive, names, optional)
            size = sum(member.file_size for member in members.values())  # more than it says is not unpacked
            if size > most:
                raise NpzError(f"unpacks to {size} bytes; expected at most {most}")
            return {name: _array(archive, member) for name, member in members.items()}
    except NpzError:
        raise
    except Exception as error:  # zipfile, its decompressors and numpy raise whatever the archive provokes
        if isinstance(error, OSError) and error.errno is not None:
            raise
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise NpzError("holds Python objects" if "allow_pickle" in said else f"damaged ({said})") from error


def _members(archive: zipfile.ZipFile, names: Sequence[str], optional: Sequence[str]) -> dict[str, zipfile.ZipInfo]:
    found: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        if name in found:
            raise NpzError(f"holds two arrays {name!r}")
        found[name] = member
    for name in names:
        if name not in found:
            known = ", ".join(other if other.isprintable() else repr(other) for other in found)
            raise NpzError(f"no array {name!r}, found {known[:200] or 'none'}")
    return {name: found[name] for name in (*names, *optional) if name in found}


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    if member.compress_type not in METHODS:
        raise NpzError(f"packed by method {member.compress_type}; expected one of numpy's, stored or deflated")
    with archive.open(member) as content:
        array: Array = np.lib.format.read_array(content, allow_pickle=False)
        if content.read(1):
            raise NpzError(f"damaged ({member.filename} goes on behind its array)")
        return array
