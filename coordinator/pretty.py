"""Values in text that people read: JSON whose matrices look like matrices, and many numbers in few words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

NUMBER = r"(?:-?[\d.]+(?:e[+-]?\d+)?|null)"
NUMBERS = re.compile(rf"\[\n\s+({NUMBER}(?:,\n\s+{NUMBER})*)\n\s*\]")  # no string has a line break in JSON
BREAK = re.compile(r",\n\s+")


def pretty(value: Any) -> str:
    """Return a value as indented JSON, but a list of numbers on one line."""
    return NUMBERS.sub(lambda found: "[" + BREAK.sub(", ", found[1]) + "]", json.dumps(value, indent=2))


def spans(numbers: Iterable[int]) -> str:
    """Return "3 to 7, 9, 10" of whole numbers in any order: three in a row and more are drawn together."""
    found: list[list[int]] = []
    for number in sorted(set(numbers)):
        if found and number == found[-1][-1] + 1:
            found[-1].append(number)
        else:
            found.append([number])
    return ", ".join(f"{row[0]} to {row[-1]}" if len(row) > 2 else ", ".join(map(str, row)) for row in found)
