"""What the linker made of a plan: the sizes in an image, as the compiler's own tools read them."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

TOOLS = {"atmelavr": "avr-", "nordicnrf52": "arm-none-eabi-"}  # by PlatformIO platform: what their names begin with
PACKAGES = {"atmelavr": "binutils-avr", "nordicnrf52": "binutils-arm-none-eabi"}


class LinkedError(Exception):
    """A tool that reads images is missing or fails; the sentence says what to install."""


@dataclass(frozen=True)
class Linked:
    """An ELF file for a board of PlatformIO's platform `env`. Bytes. Whatever is asked may raise LinkedError."""

    path: Path
    env: str

    @cached_property
    def sections(self) -> dict[str, int]:
        """The size of each section."""
        rows = (line.split() for line in self._tool("size", "-A").splitlines())
        return {row[0]: int(row[1]) for row in rows if len(row) == 3 and row[1].isdigit()}

    @cached_property
    def symbols(self) -> dict[str, int]:
        """The size of each symbol that has one; link-time optimisation renames what is static."""
        rows = (line.split() for line in self._tool("nm", "-S").splitlines())
        return {re.sub(r"\.lto_priv\.\d+$", "", row[3]): int(row[1], 16) for row in rows if len(row) == 4}

    @cached_property
    def addresses(self) -> dict[str, int]:
        """Where each symbol is."""
        rows = (line.split() for line in self._tool("nm").splitlines())
        return {row[2]: int(row[0], 16) for row in rows if len(row) == 3}

    @property
    def ram(self) -> int:
        """What is taken before the program starts: no stack."""
        return sum(self.sections.get(name, 0) for name in (".data", ".bss", ".noinit"))

    @property
    def flash(self) -> int:
        """Code, constants and initial data."""
        return self.sections[".text"] + self.sections[".data"]

    def _tool(self, name: str, *options: str) -> str:
        tool = TOOLS[self.env] + name
        try:
            return subprocess.run([tool, *options, self.path], capture_output=True, text=True, check=True).stdout
        except FileNotFoundError:
            install = f"apt-get install {PACKAGES[self.env]}"
            raise LinkedError(f"{tool} is missing; expected it to read {self.path.name}: {install}") from None
        except subprocess.CalledProcessError as error:
            raise LinkedError(f"{tool} cannot read {self.path}: {error.stderr.strip()}") from None
