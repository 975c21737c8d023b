"""The nodes' keys: a file each in `keys/` beside the federation file, compiled into the node's image, shown to nobody.

A node has a key if its file is there.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from coordinator.errors import KeyFileError, naming
from coordinator.link.authentication import KEY_BYTES

if TYPE_CHECKING:
    from coordinator.federation import Federation

FOLDER = "keys"
DIGITS = 2 * KEY_BYTES
OTHERS = 0o077  # permissions that nobody but the owner may have on a key


@dataclass(frozen=True)
class NodeKey:
    """A node's key, and what to type if a board does not have it."""

    node: str
    secret: bytes = field(repr=False)
    flash: str


def keys_folder(federation: Federation) -> Path:
    """Return where the keys of a federation's nodes are, if there are any."""
    return federation.directory / FOLDER


def key_file(federation: Federation, node: str) -> Path | None:
    """Return the file of a node's key, or None if it has none."""
    path = _path(federation, node)
    return path if os.path.lexists(path) else None


def keyed_nodes(federation: Federation) -> dict[str, Path]:
    """Return the file of each node's key, by the names of the nodes that have one."""
    files = {spec.name: key_file(federation, spec.name) for spec in federation.nodes()}
    return {name: path for name, path in files.items() if path is not None}


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a FIFO would wait for somebody to write


def load_key(path: Path) -> bytes:
    """Return the key in a file, 32 bytes. Raises KeyFileError; what is in the file is in no message."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            text = file.read(DIGITS + 3)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}; expected a key that this user may read") from error
    if mode & OTHERS:
        mend = f"chmod 600 {shlex.quote(str(path))}"
        raise KeyFileError(f"{path}: others may read this key (mode {mode:04o}); expected 0600: `{mend}`")
    if not re.fullmatch(rb"[0-9a-fA-F]{%d}\r?\n?" % DIGITS, text):
        raise KeyFileError(
            f"{path}: is no key; expected {DIGITS} hexadecimal digits and a newline: put it back, or make another with "
            f"`coordinator keys new {path.stem} --force`"
        )
    return bytes.fromhex(text.decode())


def make_keys(federation: Federation, nodes: Iterable[str]) -> dict[str, Path]:
    """Make a random key for each of these nodes, in place of any that it has; return the files. Raises KeyFileError."""
    folder = keys_folder(federation)
    try:
        with naming(folder):
            folder.mkdir(mode=0o700, exist_ok=True)
        _write(folder / ".gitignore", b"*\n", 0o644)
        made = {node: _path(federation, node) for node in nodes}
        for path in made.values():
            _write(path, secrets.token_hex(KEY_BYTES).encode() + b"\n", 0o600)
    except OSError as error:
        raise KeyFileError(f"{error.filename}: {error.strerror}; expected a folder that this user may write") from error
    return made


def fingerprint(key: bytes) -> str:
    """Return what tells two keys apart and nothing else of them: 16 hexadecimal digits."""
    return hashlib.blake2s(b"fingerprint", digest_size=8, key=key).hexdigest()


def _path(federation: Federation, node: str) -> Path:
    return keys_folder(federation) / f"{node}.key"


def _write(path: Path, content: bytes, mode: int) -> None:
    """Replace a file so that nobody else could read it at any moment."""
    temporary = path.with_name(f"{path.name}.tmp")
    with naming(path):
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(descriptor, mode)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
