"""Server optimisers against the formulas of Reddi et al. (2021), in float64."""

from typing import Any

import numpy as np
import pytest

from coordinator.aggregation import Weights
from coordinator.aggregation.server import ADAPTIVITY, SECOND, Moments, Server, averaged

STEPS = [[0.3, -0.2], [0.1, 0.4], [-0.5, 0.0], [0.2, 0.2]]


def held(server: Server) -> tuple[Weights, Moments]:
    """The weights and moments after these mean updates."""
    weights: Weights = [np.array([1.0, -1.0], np.float32)]
    moments: Moments = ()
    for step in STEPS:
        mean = [weights[0] + np.array(step, np.float32)]
        weights, moments = server.step(weights, mean, moments)
    return weights, moments


def momentum(weights: Any, rate: float, keeps: float) -> Any:
    first = np.zeros(2)
    for step in STEPS:
        first = keeps * first + step
        weights = weights + rate * first
    return weights


def adam(weights: Any, rate: float, keeps: float) -> Any:
    first, second = np.zeros(2), np.zeros(2)
    for step in np.array(STEPS):
        first = keeps * first + (1 - keeps) * step
        second = SECOND * second + (1 - SECOND) * step**2
        weights = weights + rate * first / (np.sqrt(second) + ADAPTIVITY)
    return weights


@pytest.mark.parametrize(
    ("server", "expected", "moments"),
    [
        (Server("none"), np.array([1.1, -0.6]), 0),
        (Server("momentum"), momentum(np.array([1.0, -1.0]), 1.0, 0.9), 1),
        (Server("momentum", 0.5, 0.0), momentum(np.array([1.0, -1.0]), 0.5, 0.0), 1),
        (Server("adam"), adam(np.array([1.0, -1.0]), 0.01, 0.9), 2),
        (Server("adam", 0.1, 0.5), adam(np.array([1.0, -1.0]), 0.1, 0.5), 2),
    ],
)
def test_a_server_steps_as_its_formula_does(server: Server, expected: Any, moments: int) -> None:
    weights, kept = held(server)
    np.testing.assert_allclose(weights[0], expected, rtol=1e-5)
    assert len(kept) == moments
    assert all(tensor.dtype == np.float32 for tensors in (weights, *kept) for tensor in tensors)


def test_what_did_not_move_stays_as_it_is() -> None:
    """Frozen tensors, and parameters that nobody holds."""
    weights: Weights = [np.array([0.1, 0.7], np.float32)]
    moments: Moments = ()
    for _ in range(3):
        moved, moments = Server("adam").step(weights, weights, moments)
        assert moved[0].tobytes() == weights[0].tobytes()


def test_the_average_keeps_its_share() -> None:
    first, second = [np.array([1.0], np.float32)], [np.array([2.0], np.float32)]
    assert averaged(None, first, 0.0) is None
    begun = averaged(None, first, 0.75)
    assert begun is first
    after = averaged(begun, second, 0.75)
    assert after is not None and after[0].tolist() == [1.25]
