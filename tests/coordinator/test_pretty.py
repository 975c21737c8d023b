"""Values as people read them."""

import json
from typing import Any

import pytest

from coordinator.pretty import pretty, spans


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([1, -2.5, 1e-09, None], "[1, -2.5, 1e-09, null]"),
        ([[1, 2], [3, 4]], "[\n  [1, 2],\n  [3, 4]\n]"),
        ({"a": []}, '{\n  "a": []\n}'),
        (["[\n 1,\n 2\n]"], '[\n  "[\\n 1,\\n 2\\n]"\n]'),
        ([1, "2"], '[\n  1,\n  "2"\n]'),
        ([True], "[\n  true\n]"),
    ],
)
def test_json_with_numbers_in_a_row(value: Any, text: str) -> None:
    assert pretty(value) == text
    assert json.loads(pretty(value)) == value


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([], ""), ([3], "3"), ([4, 3], "3, 4"), ([1, 2, 3, 3], "1 to 3"), ([9, 1, 2, 5, 6, 7, 8], "1, 2, 5 to 9")],
)
def test_numbers_drawn_together(numbers: list[int], text: str) -> None:
    assert spans(numbers) == text
