"""Weights as they travel, in both arithmetics: there and back, and what cannot be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from codegen.planner import Plan, Training, plan
from codegen.tiers import Tier
from codegen.weights import EXPONENT_LIMIT, pack, tight_exponent, to_fixed, unpack, weight_bytes
from tests.codegen.support import Array, board, small_graph

TIER = Tier("t", 1.0)


def planned(kernel: str, frozen: Sequence[str] = ()) -> Plan:
    """Return a plan with three tensors, or fewer if layers are frozen."""
    return plan(board(kernel=kernel), small_graph(frozen), [TIER], TIER, Training(nested=False))


def random_tensors(of: Plan, size: float = 1.0) -> list[Array]:
    generator = np.random.default_rng(1)
    return [generator.uniform(-size, size, t.shape).astype(np.float32) for t in of.sub_model.graph.tensors]


def test_f32_comes_back_as_it_went() -> None:
    found = planned("f32", frozen=["conv"])
    tensors = random_tensors(found)
    blob = pack(found, tensors)
    assert len(blob) == weight_bytes(found) == 4 * found.sub_model.graph.parameters
    for before, after in zip(tensors[2:], unpack(found, blob), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("size", [0.01, 0.5, 1.0, 3.0, 1000.0])
def test_fixed_comes_back_to_half_a_last_place_and_may_grow_fourfold(size: float) -> None:
    found = planned("fixed")
    tensors = random_tensors(found, size)
    blob = pack(found, tensors)
    assert len(blob) == weight_bytes(found) == 4 + 2 * found.sub_model.graph.parameters  # three exponents, made even
    exponents = np.frombuffer(blob, np.int8, 4)
    assert exponents[3] == 0
    integers = np.frombuffer(blob, "<i2", offset=4)
    assert np.abs(integers).max() <= 2**13
    for before, after, exponent in zip(tensors, unpack(found, blob), exponents, strict=False):
        assert after.dtype == np.float32
        assert np.abs(before - after).max() <= 2.0 ** (exponent - 1)
        assert np.abs(before).max() * 4 <= 2.0 ** (exponent + 15)
        assert 2.0 ** (exponent + 15) == max(2.0, 4 * 2.0 ** np.ceil(np.log2(np.abs(before).max())))


def test_fixed_rounds_to_even_and_repacks_the_same() -> None:
    found = planned("fixed")
    tensors = [np.zeros(t.shape, np.float32) for t in found.sub_model.graph.tensors]
    tensors[0].ravel()[:4] = np.array([0.5, 1.5, -2.5, 2**13]) * 2.0**-14  # the largest 0.5: last place 2^-14
    blob = pack(found, tensors)
    assert np.frombuffer(blob, "<i2", count=4, offset=4).tolist() == [0, 2, -2, 2**13]
    assert pack(found, unpack(found, blob)) == blob


def test_frozen_weights_use_all_bits() -> None:
    for largest in (1.0, 0.7, 3.999, 1e-6):
        values = np.array([largest, -largest / 3], np.float32)
        exponent = tight_exponent(values)
        integers = to_fixed(values, exponent)
        assert 2**14 <= integers[0] <= 2**15 - 1
        assert np.abs(integers * 2.0**exponent - values).max() <= 2.0**exponent
    assert to_fixed(np.zeros(3), tight_exponent(np.zeros(3))).tolist() == [0, 0, 0]


@pytest.mark.parametrize("kernel", ["f32", "fixed"])
def test_a_blob_of_another_size_is_refused(kernel: str) -> None:
    with pytest.raises(ValueError, match="3 bytes of weights; tier t has"):
        unpack(planned(kernel), b"abc")


def test_exponents_beyond_the_limit_are_refused() -> None:
    found = planned("fixed")
    blob = bytearray(pack(found, random_tensors(found)))
    blob[2] = EXPONENT_LIMIT + 1
    with pytest.raises(ValueError, match="exponent 41 of the kernel of layer 'logits'; expected ±40"):
        unpack(found, bytes(blob))


@pytest.mark.parametrize(("value", "what"), [(np.nan, "NaN or infinite"), (np.inf, "NaN or infinite"), (1e20, "1e.20")])
def test_weights_that_fixed_point_cannot_hold_are_refused(value: float, what: str) -> None:
    found = planned("fixed")
    tensors = random_tensors(found)
    tensors[1][0] = value
    with pytest.raises(ValueError, match=what):
        pack(found, tensors)
