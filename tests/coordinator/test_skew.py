"""How unlike labels are told from alike ones, by tier, however few samples there are."""

import numpy as np
import pytest

from coordinator.partition import partition
from coordinator.skew import APART, skew

LABELS = np.arange(60_000) % 10
SIZES = [100] * 2 + [50] * 3 + [20] * 2 + [10] * 3


@pytest.mark.parametrize("samples", [200, 2000])
@pytest.mark.parametrize(
    ("split", "alpha", "apart"),
    [("iid", 1.0, False), ("dirichlet", 100.0, False), ("dirichlet", 0.3, False), ("shards", 1.0, True)],
)
def test_chance_is_no_skew(samples: int, split: str, alpha: float, apart: bool) -> None:
    parts = partition(LABELS, 10, samples, split, 3, alpha=alpha, classes_per_node=2)  # type: ignore[arg-type]
    counts = [np.bincount(LABELS[part], minlength=10).tolist() for part in parts]
    assert (skew(counts, SIZES) >= APART) == apart


@pytest.mark.parametrize(
    ("counts", "sizes", "expected"),
    [
        ([], [], 0.0),
        ([[0, 0], [0, 0]], [1, 2], 0.0),
        ([[10**6, 0], [0, 10**6]], [1, 1], 0.0),
        ([[10**6, 0], [0, 10**6]], [1, 2], 0.5),
        ([[10**6, 0, 0, 0], [0, 10**6, 0, 0], [0, 0, 10**6, 0], [0, 0, 0, 10**6], [0, 0, 0, 0]], [1, 2, 3, 3, 3], 0.5),
        ([[3 * 10**6, 10**6], [3 * 10**6, 10**6]], [2, 1], 0.0),
    ],
)
def test_of_many_samples_it_is_the_total_variation_distance_of_who_holds_most(
    counts: list[list[int]], sizes: list[int], expected: float
) -> None:
    assert skew(counts, sizes) == pytest.approx(expected, abs=1e-3)
