"""What nodes that lie send."""

import numpy as np
import pytest

from benchmarks.attackers import Attack, Attackers, drawn

DELTA = [np.arange(6, dtype=np.float32).reshape(2, 3), np.full(40, -2.0, np.float32)]


def length(tensors: list[np.ndarray]) -> float:
    return float(np.linalg.norm(np.concatenate([tensor.ravel() for tensor in tensors])))


@pytest.mark.parametrize(("attack", "cosine"), [("flip", -1.0), ("random", 0.0)])
def test_a_lie_has_its_length_and_direction(attack: Attack, cosine: float) -> None:
    sent = Attackers(frozenset([1]), attack, scale=5.0).sent(1, 3, DELTA)
    product = sum(float((one * other).sum()) for one, other in zip(sent, DELTA, strict=True))
    assert length(sent) == pytest.approx(5 * length(DELTA), rel=1e-5)
    assert product / length(sent) / length(DELTA) == pytest.approx(cosine, abs=0.3)
    assert all(tensor.dtype == np.float32 for tensor in sent)


def test_noise_is_drawn_anew_for_each_node_and_round_and_the_same_again() -> None:
    lies = Attackers(frozenset([1, 2]), "random", seed=4)
    sent = [[tensor.tobytes() for tensor in lies.sent(*at, DELTA)] for at in ((1, 1), (1, 2), (2, 1), (1, 1))]
    assert sent[0] == sent[3] and sent[0] != sent[1] != sent[2] != sent[0]


def test_the_others_send_what_they_learnt() -> None:
    lies = drawn(1, 10, 2, "flip")
    assert len(lies.nodes) == 2 and lies.nodes < set(range(10)) and lies == drawn(1, 10, 2, "flip")
    (honest, *_) = set(range(10)) - lies.nodes
    assert all(one is other for one, other in zip(lies.sent(honest, 1, DELTA), DELTA, strict=True))
