"""A disassembly, by address."""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property

LINE = re.compile(r"^\s*([0-9a-f]+):\t(\S+)(?:\t([^;@<]*))?")


@dataclass(frozen=True)
class Instruction:
    """One line of objdump."""

    address: int
    name: str
    operands: str


@dataclass(frozen=True)
class Listing:
    """All instructions, by address."""

    lines: tuple[Instruction, ...]

    @cached_property
    def _addresses(self) -> list[int]:
        return [line.address for line in self.lines]

    def block(self, start: int, size: int) -> tuple[Instruction, ...]:
        """Return the instructions of `size` bytes from `start`."""
        first, end = (bisect_left(self._addresses, at) for at in (start, start + size))
        return self.lines[first:end]


def read_listing(text: str) -> Listing:
    """Read what objdump -d --no-show-raw-insn prints."""
    found = (LINE.match(line) for line in text.splitlines())
    return Listing(
        tuple(Instruction(int(m[1], 16), m[2], (m[3] or "").strip()) for m in found if m and not m[2].startswith("."))
    )
