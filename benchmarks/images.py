"""A workload compiled for a target: the generated code, the engine, and the function that takes a step."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.workloads import Workload
from boards import PROJECT_ROOT

FIRMWARE = PROJECT_ROOT / "firmware"
TARGETS = Path(__file__).with_name("targets")
WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror")
SECTIONS = ("-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections")
PACKAGES = {
    "gcc": "gcc libc6-dev",
    "arm-none-eabi-": "gcc-arm-none-eabi libnewlib-arm-none-eabi",
    "avr-": "gcc-avr avr-libc binutils-avr",
    "riscv64-unknown-elf-": "gcc-riscv64-unknown-elf",
}
PAINT = 0xA5


class ToolError(Exception):
    """A tool that is missing or fails; the sentence says what to install."""


@dataclass(frozen=True)
class Target:
    """A compiler and what it is told; `board` is the one that the plan is made for; `mcu` is simavr's name for it."""

    name: str
    prefix: str
    flags: tuple[str, ...]
    board: str
    sources: tuple[Path, ...] = ()
    mcu: str = ""


@dataclass(frozen=True)
class Image:
    """A linked program. Bytes."""

    target: Target
    path: Path
    symbols: dict[str, int]
    static_ram: int
    flash: int  # code, constants and initial data, without the examples


@dataclass(frozen=True)
class Run:
    """Steps taken on a target."""

    weights: bytes  # after the last step
    stack: int  # bytes, of the deepest
    instructions: int = 0  # of the last step
    cycles: int = 0  # of the last step: exact on AVR, estimated on Cortex-M4F


BARE = ("-nostartfiles", f"-T{TARGETS / 'bare.ld'}")
CORTEX_M4F = Target(
    "Cortex-M4F",
    "arm-none-eabi-",
    ("-O2", "-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard", *BARE),
    "nrf52840_dk",
)
RV32IMC = Target(
    "rv32imc",
    "riscv64-unknown-elf-",
    ("-O2", "-march=rv32imc", "-mabi=ilp32", "-ffreestanding", "-nostdlib", f"-I{TARGETS / 'freestanding'}", *BARE),
    "esp32-c3-devkitm-1",
    (TARGETS / "freestanding" / "string.c",),
)
AVR = ("-Os", "-flto", "-DENGINE_SAMPLES_IN_FLASH")  # as boards/platforms/atmelavr compiles the real images
ATMEGA2560 = Target("ATmega2560", "avr-", (*AVR, "-mmcu=atmega2560"), "megaatmega2560", mcu="atmega2560")
ATMEGA328P = Target("ATmega328P", "avr-", (*AVR, "-mmcu=atmega328p"), "uno", mcu="atmega328p")


def build(workload: Workload, target: Target, folder: Path) -> Image:
    """Compile and link the workload in `folder`. Raises ToolError."""
    _write(workload.files, folder)
    return link((*engine(), TARGETS / "step.c", *target.sources), target, folder)


def link(sources: Sequence[Path], target: Target, folder: Path) -> Image:
    """Compile and link a program in `folder`. Raises ToolError."""
    path = folder / "step.elf"
    libraries = ("-lgcc",) if "-nostdlib" in target.flags else ()
    _tool(target, "gcc", *_flags(folder), *SECTIONS, *target.flags, *map(str, sources), *libraries, "-o", str(path))
    symbols, sizes = {}, {}
    for line in _tool(target, "nm", "-S", str(path)).splitlines():
        words = line.split()
        if len(words) < 3:
            continue  # a weak symbol that nobody defines
        symbols[words[-1]] = int(words[0], 16)
        if len(words) == 4:
            sizes[words[-1]] = int(words[1], 16)
    text, data, bss = map(int, _tool(target, "size", str(path)).splitlines()[1].split()[:3])
    examples = sizes.get("step_samples", 0) + sizes.get("step_labels", 0)
    return Image(target, path, symbols, data + bss, text + data - examples)


def build_library(workload: Workload, folder: Path) -> Path:
    """Compile the workload for this machine as the native twin is compiled. Raises ToolError."""
    return compile_library(workload.files, [*engine(), TARGETS / "step.c"], folder)


def compile_library(files: Mapping[str, str], sources: Sequence[Path], folder: Path) -> Path:
    """Compile generated `files` and `sources` for this machine, in `folder`. Raises ToolError."""
    path = folder / "library.so"
    _write(files, folder)
    host = Target("host", "", ("-O2", "-shared", "-fPIC"), "")
    _tool(host, "gcc", *_flags(folder), *host.flags, *map(str, sources), "-o", str(path))
    return path


def _write(files: Mapping[str, str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


def engine() -> list[Path]:
    """Return the engine's sources."""
    return sorted((FIRMWARE / "engine").glob("*.[cS]"))


def _flags(folder: Path) -> tuple[str, ...]:
    return (*WARNINGS, "-ffp-contract=off", f"-I{folder}", f"-I{FIRMWARE}")


def disassembly(image: Image) -> str:
    """Return what objdump makes of the code. Raises ToolError."""
    return _tool(image.target, "objdump", "-d", "--no-show-raw-insn", str(image.path))


def load_image(image: Image, folder: Path) -> list[tuple[int, bytes]]:
    """Return the segments that have contents, and their addresses. Raises ToolError."""
    segments = []
    for section in (".text", ".data"):
        path = folder / f"{section[1:]}.bin"
        _tool(image.target, "objcopy", "-O", "binary", "-j", section, str(image.path), str(path))
        segments.append((image.symbols[f"image_{section[1:]}"], path.read_bytes()))
    return segments


def _tool(target: Target, tool: str, *arguments: str) -> str:
    return run_tool(target.prefix + tool, PACKAGES[target.prefix or "gcc"], target.name, *arguments)


def run_tool(command: str, packages: str, purpose: str, *arguments: str) -> str:
    """Run a tool and return what it prints. Raises ToolError."""
    if shutil.which(command) is None:
        raise ToolError(f"{command} is not installed; expected it for {purpose}: apt-get install {packages}")
    done = subprocess.run([command, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ToolError(f"{command} failed for {purpose}:\n{done.stderr}")
    return done.stdout
