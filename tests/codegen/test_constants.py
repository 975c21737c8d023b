"""What Python repeats of a C header says the same."""

from __future__ import annotations

import re

import pytest

from boards import PROJECT_ROOT
from codegen.header_fixed import LINEAR
from codegen.weights import EXPONENT_LIMIT

FIXED = (PROJECT_ROOT / "firmware" / "engine" / "fixed.h").read_text(encoding="utf-8")
VALUES = {"UINT16_MAX": 2**16 - 1}


@pytest.mark.parametrize("name, value", [("FIXED_EXPONENT_LIMIT", EXPONENT_LIMIT), ("FIXED_LINEAR", LINEAR)])
def test_fixed_point_constants_are_the_engines(name: str, value: int) -> None:
    (found,) = re.findall(rf"#define {name} (\w+)", FIXED)
    assert (VALUES[found] if found in VALUES else int(found)) == value
