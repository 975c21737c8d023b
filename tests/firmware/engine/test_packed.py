"""Small numbers in as many bits as they need: what pooling keeps for its way back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.firmware.engine.layers import Kernels, Layer, address


@settings(max_examples=100, deadline=None)
@given(below=st.one_of(st.integers(1, 40), st.integers(1, 65_535)), count=st.integers(1, 40), seed=st.integers(0, 99))
def test_numbers_lie_as_numpy_packs_them(kernels: Kernels, below: int, count: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, below, count).astype(np.uint16)
    bits = (below - 1).bit_length()
    expected = np.packbits(values[:, None] >> np.arange(bits) & 1, bitorder="little")
    packed = np.zeros_like(expected)
    kernels.library.sweep_pack(address(packed), address(values), count, below)
    np.testing.assert_array_equal(packed, expected)
    found = np.full_like(values, 0xAAAA)
    kernels.library.sweep_unpack(address(found), address(packed), count, below)
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize(
    ("kernel", "size"),
    [((1, 1), 0), ((1, 2), 2), ((2, 2), 4), ((2, 3), 6), ((3, 3), 8), ((5, 5), 10)],
)
def test_pooling_keeps_no_more_bits_than_its_window_has_places(
    kernels: Kernels, kernel: tuple[int, int], size: int
) -> None:
    layer = Layer("max_pool", (2 * kernel[0], 2 * kernel[1], 4), kernel=kernel, stride=kernel)
    x = np.random.default_rng(1).normal(size=layer.size).astype(np.float32)
    _, argmax = kernels.max_pool(layer, x)
    assert argmax.size == size
    windows = x.reshape(2, kernel[0], 2, kernel[1], 4).transpose(0, 2, 4, 1, 3).reshape(16, -1)
    places = np.unpackbits(argmax, bitorder="little")[: 16 * layer.tap_bits].reshape(16, -1)
    np.testing.assert_array_equal(places @ (1 << np.arange(layer.tap_bits)), windows.argmax(axis=1))
