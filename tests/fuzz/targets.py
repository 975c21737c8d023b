"""What is fuzzed: the link alone, and whole nodes, one a way to train; built by clang, whose libFuzzer drives them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from codegen.planner import SampleSource
from codegen.protocol import ErrorCode
from tests.firmware.node.harness import FIRMWARE, KEYED, MEMORY, PROXY, Build, build

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
NODES: dict[str, tuple[str, SampleSource, tuple[str, ...], int]] = {  # the last one: proxy images
    "f32": ("accumulating", "flash", (), 0),
    "fixed": ("fixed", "flash", (), PROXY),
    "stream": ("fused", "stream", (), PROXY),
    "keyed": ("fused", "flash", (KEYED,), PROXY),
}
TARGETS = ("decoder", *NODES)
INSTALL = "clang and its libFuzzer are missing: apt-get install clang libclang-rt-dev"
FLAGS = (
    "-std=c99", "-Wall", "-Wextra", "-Werror", "-O0", "-g", "-ffp-contract=off",
    "-fsanitize=fuzzer,address,undefined,float-cast-overflow", "-fno-sanitize-recover=all",
)  # fmt: skip


class MissingCompiler(Exception):  # noqa: N818 - it says what is missing
    """libFuzzer is clang's alone; the message says how to get it."""


def headers(target: str, folder: Path) -> Build:
    """Generate the headers of a node's model in `folder`."""
    way, source, _, proxy = NODES[target]
    return build(way, folder, source=source, proxy=proxy)


def compiled(target: str, folder: Path) -> Path:
    """Build a target in `folder` and return the program. Raises MissingCompiler."""
    compiler = shutil.which("clang")
    if compiler is None:
        raise MissingCompiler(INSTALL)
    folder.mkdir(parents=True, exist_ok=True)
    if target == "decoder":
        sources: Sequence[Path] = (HERE / "decoder.c", *sorted((FIRMWARE / "link").glob("*.c")))
        flags: Sequence[str] = (f"-I{FIRMWARE}", "-DLINK_MTU=74", "-DLINK_WINDOW=5")
    else:
        sources = (HERE / "node.c", *(path for path in MEMORY if path.suffix == ".c"))
        flags = (*headers(target, folder).flags, *NODES[target][2], f"-DERROR_LAST={max(ErrorCode)}")
    program = folder / target
    done = subprocess.run(
        [compiler, *FLAGS, *flags, *map(str, sources), "-o", str(program)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise MissingCompiler(INSTALL) if "libclang_rt" in done.stderr else RuntimeError(done.stderr)
    return program
