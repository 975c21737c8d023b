"""How much flash the kernels take that a model calls: measured, in bytes per kind of layer.

`python -m benchmarks.code_size` builds images for the Mega, or for another board, and prints these numbers. A kind
counts once however many layers are of it; the layer that reads the samples, and frozen layers, have their own kernels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from codegen.graph import Graph

CALLS = 3  # of kernels a layer: forward, activation, backward
CALL_BYTES = 96  # at most, where nothing was measured and framework_flash holds all kernels


class Code(NamedTuple):
    """`base`: beyond framework_flash in any case; `kinds`: a kind's kernels and their calls, and the code that a buffer
    needs; `again`: each further layer of a kind. Bytes; framework_flash holds the float kernels of a first dense layer:
    others may take less."""

    base: int
    kinds: Mapping[str, int]
    again: int


MEASURED: Mapping[tuple[str, str], Code] = {  # by PlatformIO platform and arithmetic
    ("atmelavr", "f32"): Code(
        288,
        {
            "first dense": 0,
            "first conv2d": 1425,
            "first depthwise_conv2d": 1797,
            "dense": 346,
            "last dense": 967,
            "conv2d": 2507,
            "depthwise_conv2d": 3395,
            "max_pool": 2662,
            "average_pool": 2494,
            "frozen first dense": -137,
            "frozen dense": 571,
            "frozen first conv2d": 587,
            "frozen conv2d": 1367,
            "frozen first depthwise_conv2d": 381,
            "frozen depthwise_conv2d": 1550,
            "frozen max_pool": 1364,
            "frozen average_pool": 978,
        },
        213,
    ),
    ("atmelavr", "fixed"): Code(
        1424,
        {
            "first dense": 0,
            "first conv2d": 2881,
            "first depthwise_conv2d": 2259,
            "dense": 694,
            "last dense": 1575,
            "conv2d": 3968,
            "depthwise_conv2d": 4949,
            "max_pool": 2582,
            "average_pool": 3424,
            "frozen first dense": -19,
            "frozen dense": 891,
            "frozen first conv2d": 863,
            "frozen conv2d": 379,
            "frozen first depthwise_conv2d": 265,
            "frozen depthwise_conv2d": 1526,
            "frozen max_pool": 710,
            "frozen average_pool": 1284,
        },
        270,
    ),
    ("nordicnrf52", "f32"): Code(
        300,
        {
            "gradients": 658,
            "origin": 812,
            "first dense": 0,
            "first conv2d": 1274,
            "first depthwise_conv2d": -1101,
            "dense": 108,
            "last dense": 2871,
            "conv2d": 4577,
            "depthwise_conv2d": 2429,
            "max_pool": 1353,
            "average_pool": 1056,
            "frozen first dense": -1284,
            "frozen dense": 84,
            "frozen first conv2d": -629,
            "frozen conv2d": 2352,
            "frozen first depthwise_conv2d": -1542,
            "frozen depthwise_conv2d": 1517,
            "frozen max_pool": 657,
            "frozen average_pool": 493,
        },
        88,
    ),
    ("nordicnrf52", "fixed"): Code(
        -1825,
        {
            "first dense": 0,
            "first conv2d": 1829,
            "first depthwise_conv2d": 1386,
            "dense": 344,
            "last dense": 1332,
            "conv2d": 2364,
            "depthwise_conv2d": 2459,
            "max_pool": 1323,
            "average_pool": 1243,
            "frozen first dense": -894,
            "frozen dense": 231,
            "frozen first conv2d": -149,
            "frozen conv2d": 384,
            "frozen first depthwise_conv2d": -314,
            "frozen depthwise_conv2d": 860,
            "frozen max_pool": 552,
            "frozen average_pool": 452,
        },
        110,
    ),
}


SOURCES: Mapping[tuple[str, str], int] = {  # bytes more than with samples in flash, by platform and source
    ("atmelavr", "stream"): 620,  # measured 602 to 636, depending on the network
    ("atmelavr", "sensor"): 200,  # 174 to 220, without the code that reads the sensor
    ("nordicnrf52", "stream"): 344,
    ("nordicnrf52", "sensor"): 480,
}

SHIFT: Mapping[str, int] = {"nordicnrf52": 244}  # bytes of moving an image, by platform
SHIFT_ELSEWHERE = 400  # at most, where nothing was measured

KEYS: Mapping[str, int] = {  # bytes more with a key, by platform: BLAKE2s, handshake, MACs
    "atmelavr": 3320,  # measured 3,274 and 3,360
    "nordicnrf52": 2164,
}


def code_bytes(platform: str, kernel: str, graph: Graph, accumulates: bool = False, keeps_origin: bool = False) -> int:
    """Return the flash that the kernels of a model take, beyond framework_flash; and the code that its buffers need."""
    if (platform, kernel) not in MEASURED:
        return CALL_BYTES * CALLS * len(graph.layers)
    measured, seen = MEASURED[platform, kernel], list(kinds(graph))
    once = dict.fromkeys(seen)
    extra = sum(measured.kinds.get(name, 0) for name in buffers(accumulates, keeps_origin))
    return measured.base + sum(measured.kinds[kind] for kind in once) + measured.again * (len(seen) - len(once)) + extra


def buffers(accumulates: bool, keeps_origin: bool) -> Iterator[str]:
    """Name the buffers that a model has beside its weights."""
    yield from ("gradients",) * accumulates
    yield from ("origin",) * keeps_origin


def kinds(graph: Graph) -> Iterator[str]:
    """Name the kind of each layer; below the first trainable one nothing runs backward."""
    for index, layer in enumerate(graph.layers):
        frozen = "frozen " if index < graph.first_trainable else ""
        is_last = layer.kind == "dense" and index == len(graph.layers) - 1
        place = "first " if index == 0 else "last " if is_last else ""
        yield f"{frozen}{place}{layer.kind}"
