"""Plain numpy in double precision: what the kernels should compute, written for reading."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tests.firmware.engine.layers import F64, Expected, Layer


def _taps(layer: Layer, padded: F64) -> Iterator[tuple[int, int, F64]]:
    """Yield kernel row, kernel column, and the view [out height, out width, channels] that the tap sees."""
    (height, width), _ = layer.geometry
    down, right = layer.stride
    for ky in range(layer.kernel[0]):
        for kx in range(layer.kernel[1]):
            yield ky, kx, padded[ky : ky + (height - 1) * down + 1 : down, kx : kx + (width - 1) * right + 1 : right]


def _pad(layer: Layer, x: F64, value: float = 0.0) -> F64:
    """Pad for the windows; rows and columns that no window reaches stay."""
    (height, width), (top, left) = layer.geometry
    bottom = max((height - 1) * layer.stride[0] + layer.kernel[0] - x.shape[0] - top, 0)
    right = max((width - 1) * layer.stride[1] + layer.kernel[1] - x.shape[1] - left, 0)
    return np.pad(x, ((top, bottom), (left, right), (0, 0)), constant_values=value)


def _crop(layer: Layer, padded: F64) -> F64:
    top, left = layer.geometry[1]
    return padded[top : top + layer.size[0], left : left + layer.size[1]]


def _inside(layer: Layer) -> F64:
    """Return how many taps of each window fall on the image."""
    count = np.zeros(layer.out_shape)
    for _, _, view in _taps(layer, _pad(layer, np.ones(layer.size))):
        count += view
    return count


def forward(layer: Layer, x: F64, weight: F64 | None = None, bias: F64 | None = None) -> F64:
    """Return the output [height, width, channels] for the weights in use."""
    out = np.zeros(layer.out_shape)
    if layer.kind == "max_pool":
        out -= np.inf
        for _, _, view in _taps(layer, _pad(layer, x, -np.inf)):
            out = np.maximum(out, view)
        return out
    if layer.kind == "average_pool":
        for _, _, view in _taps(layer, _pad(layer, x)):
            out += view
        return out / _inside(layer)
    assert weight is not None
    if layer.kind == "dense":
        out += x.reshape(-1) @ weight.reshape(-1, layer.out)
    elif layer.kind == "depthwise":
        for ky, kx, view in _taps(layer, _pad(layer, x)):
            out += (view[..., None] * weight[ky, kx]).reshape(layer.out_shape)
    else:
        for ky, kx, view in _taps(layer, _pad(layer, x)):
            out += view @ weight[ky, kx]
    return out if bias is None else out + bias


def backward(layer: Layer, x: F64, weight: F64 | None, out_gradient: F64) -> tuple[F64, F64, F64]:
    """Return the gradients of input (before its activation), weights and bias."""
    weight_gradient = np.zeros(() if weight is None else weight.shape)
    if layer.kind == "dense":
        assert weight is not None
        d = out_gradient.reshape(-1)
        input_gradient = (weight.reshape(-1, layer.out) @ d).reshape(layer.size)
        weight_gradient = np.outer(x.reshape(-1), d).reshape(weight.shape)
    else:
        padded = _pad(layer, x, -np.inf if layer.kind == "max_pool" else 0.0)
        gradient = np.zeros_like(padded)
        best = forward(layer, x) if layer.kind == "max_pool" else 0.0
        free = np.ones(layer.out_shape, bool)  # outputs whose maximum has not been met yet
        for (ky, kx, view), (_, _, target) in zip(_taps(layer, padded), _taps(layer, gradient), strict=True):
            if layer.kind == "max_pool":
                hit = free & (view == best)
                free &= ~hit
                target += hit * out_gradient
            elif layer.kind == "average_pool":
                target += out_gradient / _inside(layer)
            elif layer.kind == "depthwise":
                assert weight is not None
                d = out_gradient.reshape(*view.shape, -1)
                target += (d * weight[ky, kx]).sum(axis=-1)
                weight_gradient[ky, kx] = (view[..., None] * d).sum(axis=(0, 1))
            else:
                assert weight is not None
                target += out_gradient @ weight[ky, kx].T
                weight_gradient[ky, kx] = np.einsum("hwi,hwo->io", view, out_gradient)
        input_gradient = _crop(layer, gradient)
    return input_gradient * np.where(x > 0, 1.0, layer.slope), weight_gradient, out_gradient.sum(axis=(0, 1))


def oracle(layer: Layer, x: F64, weight: F64 | None, bias: F64 | None, out_gradient: F64) -> Expected:
    return Expected(forward(layer, x, weight, bias), *backward(layer, x, weight, out_gradient))
