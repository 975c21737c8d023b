"""C for this machine. Its arithmetic is the boards': nothing is contracted."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from coordinator.errors import TierfedError

FLAGS = ("-std=c99", "-fPIC", "-ffp-contract=off")


class CompilerError(TierfedError):
    """There is no C compiler, or it fails; the sentence says what to install."""


def compiler() -> str:
    """Return the C compiler's name or path. Raises CompilerError."""
    found = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if found is None:
        raise CompilerError("no C compiler was found; expected cc, gcc or clang: apt-get install gcc libc6-dev")
    return found


def compiled(what: str, options: Sequence[str | Path], made: Path) -> None:
    """Compile to the file `made`. Raises CompilerError, with `what` in its sentence."""
    command = [compiler(), *FLAGS, *map(str, options), "-o", str(made)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CompilerError(f"{compiler()} cannot compile {what} for this machine:\n{done.stderr}")
