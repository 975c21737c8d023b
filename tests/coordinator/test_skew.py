"""How unlike labels are told from alike ones, however few samples there are."""

import numpy as np
import pytest

from coordinator.partition import partition
from coordinator.skew import EVEN, skew

LABELS = np.arange(60_000) % 10


@pytest.mark.parametrize("samples", [20, 200, 2000])
@pytest.mark.parametrize(
    ("split", "alpha", "classes", "even"),
    [("iid", 1.0, 2, True), ("dirichlet", 100.0, 2, True), ("dirichlet", 0.3, 2, False), ("shards", 1.0, 2, False)],
)
def test_chance_is_no_skew(samples: int, split: str, alpha: float, classes: int, even: bool) -> None:
    parts = partition(LABELS, 10, samples, split, 3, alpha=alpha, classes_per_node=classes)  # type: ignore[arg-type]
    counts = [np.bincount(LABELS[part], minlength=10).tolist() for part in parts]
    assert (skew(counts) < EVEN) == even


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([], 0.0),
        ([[0, 0], [0, 0]], 0.0),
        ([[10**6, 0], [0, 10**6]], 0.5),
        ([[10**6, 0, 0, 0], [0, 10**6, 0, 0], [0, 0, 10**6, 0], [0, 0, 0, 10**6], [0, 0, 0, 0]], 0.75),
        ([[3 * 10**6, 10**6], [3 * 10**6, 10**6]], 0.0),
    ],
)
def test_of_many_samples_it_is_the_total_variation_distance(counts: list[list[int]], expected: float) -> None:
    assert skew(counts) == pytest.approx(expected, abs=1e-3)
