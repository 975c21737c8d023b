"""Generated code, the engine and the node's training, compiled for this machine into a shared library."""

from __future__ import annotations

import ctypes
import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from boards import PROJECT_ROOT
from codegen.header import model_header
from codegen.planner import Plan
from codegen.protocol_header import protocol_header
from coordinator.compiler import FLAGS, compiled, compiler

if TYPE_CHECKING:
    import numpy as np

FIRMWARE = PROJECT_ROOT / "firmware"
SOURCES = ("node/training.c", "node/samples.c", "ports/inprocess/inprocess.c")
CACHE = PROJECT_ROOT / ".tierfed" / "inprocess"
OPTIONS = ("-O2",)


def load(plan: Plan, weights: Sequence[np.ndarray]) -> ctypes.CDLL:
    """Return a plan's code, compiled with the frozen ones of the global `weights`; a copy of its own each time, because
    its state is static. Raises CompilerError."""
    with tempfile.TemporaryDirectory(prefix="tierfed-") as folder:
        path = Path(folder) / "library.so"
        path.write_bytes(_compiled(model_header(plan, weights)))
        return ctypes.CDLL(str(path))


@cache
def _compiled(header: str) -> bytes:
    """Return the library, from the cache if nothing that it is made of has changed: compiling takes seconds."""
    files = {"model.h": header, "protocol.h": protocol_header()}
    engine = _made("engine", ("-r",), sorted((FIRMWARE / "engine").glob("*.c")), {})
    library = _made("library", ("-shared",), [*(FIRMWARE / name for name in SOURCES), engine], files)
    return library.read_bytes()


def _made(kind: str, link: Sequence[str], sources: Sequence[Path], files: Mapping[str, str]) -> Path:
    """Return what the compiler makes of sources and generated `files`, from the cache if it is there."""
    digest = hashlib.sha256(repr((compiler(), FLAGS, OPTIONS, sorted(files.items()))).encode())
    headers = FIRMWARE.rglob("*.h") if files else (FIRMWARE / "engine").glob("*.h")
    for path in (*sources, *sorted(headers)):
        digest.update(path.name.encode() + path.read_bytes())
    cached = CACHE / f"{kind}-{digest.hexdigest()[:32]}.o"
    if not cached.is_file():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as name:
            _compile([*OPTIONS, *link, *sources], files, Path(name)).replace(cached)
    return cached


def _compile(options: Sequence[str | Path], files: Mapping[str, str], folder: Path) -> Path:
    for file, text in files.items():
        (folder / file).write_text(text, encoding="utf-8")
    made = folder / "made.o"
    compiled("the engine", [*options, f"-I{folder}", f"-I{FIRMWARE}"], made)
    return made
