"""Whole rounds: the update must be what the generated model gives when it is driven from Python."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from codegen.protocol import Q8_BLOCK, Adjust, Commit, Encoding, Setup, State, Train
from coordinator.deltas import decode as decode_update
from tests.firmware.conftest import CompileShared
from tests.firmware.node.harness import (
    CLASSES,
    F32,
    FIRMWARE,
    MEMORY,
    SAMPLES,
    Build,
    MemoryNode,
    fixed_weights,
    samples,
    setup,
    weights,
)

WEIGHTS = weights(299)
ADJUSTMENT = (0.4, -0.2, 0.1)
NO_TARGETS = np.zeros((0, CLASSES), np.uint8)
SHARE_ONE = 32768  # FIXED_SHARE_ONE of firmware/engine/fixed.h
REFERENCE = (Path(__file__).with_name("reference.c"), *sorted((FIRMWARE / "engine").glob("*.c")))


def hash32(x: int) -> int:
    """firmware/node/hash.h."""
    x ^= x >> 16
    x = x * 0x7FEB352D & 0xFFFFFFFF
    x ^= x >> 15
    x = x * 0x846CA68B & 0xFFFFFFFF
    return x ^ x >> 16


def order(seed: int, epoch: int, count: int) -> list[int]:
    """The sample order that firmware/node/training.h describes."""
    half = next(half for half in range(17) if (count - 1) >> (2 * half) == 0)
    mask = (1 << half) - 1

    def encipher(position: int) -> int:
        left, right = position >> half, position & mask
        for step in range(4):
            key = hash32((hash32(seed) + 4 * epoch + step) & 0xFFFFFFFF)
            left, right = right, left ^ hash32(right ^ key) & mask
        return left << half | right

    found = []
    for start in range(count):
        position = encipher(start)
        while position >= count:
            position = encipher(position)
        found.append(position)
    return found


class _Sample(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_void_p), ("scale", ctypes.c_float), ("offset", ctypes.c_float))


class _Target(ctypes.Structure):
    _fields_ = (
        ("label", ctypes.c_uint16), ("soft", ctypes.c_void_p), ("adjustment", ctypes.c_void_p),
        ("weight", ctypes.c_float), ("temperature", ctypes.c_float),
    )  # fmt: skip


class _FixedTarget(ctypes.Structure):
    _fields_ = (
        ("label", ctypes.c_uint16), ("soft", ctypes.c_void_p), ("adjustment", ctypes.c_void_p),
        ("temperature", ctypes.c_uint16),
    )  # fmt: skip


@dataclass
class Reference:
    """The generated model, trained step by step from here."""

    library: ctypes.CDLL
    built: Build

    def train(
        self, wanted: Setup, blob: bytes, adjustment: tuple[float, ...], targets: npt.NDArray[np.uint8] = NO_TARGETS
    ) -> tuple[bytes, float]:
        """Return the weights after training, and the mean loss of the last epoch. targets: u8 [proxy, classes]."""
        plan, library = self.built.plan, self.library
        library.model_backprop.restype = ctypes.c_float
        held = (ctypes.c_uint8 * len(blob)).in_dll(library, "model_weights")
        ctypes.memmove(held, blob, len(blob))
        if plan.kernel == "fixed":
            library.model_begin()
        if plan.accumulates:
            ctypes.memset(ctypes.addressof(ctypes.c_float.in_dll(library, "model_gradients")), 0, len(blob))
        features, labels = samples(SAMPLES + len(targets))
        own, hard = SAMPLES, self.target(adjustment)
        length = own + wanted.rehearsals * len(targets)
        scale = 1.0 if plan.accumulates else float(np.float32(wanted.learning_rate) / np.float32(wanted.batch))
        for epoch in range(wanted.epochs):
            losses: list[float] = []
            for position, turn in enumerate(order(wanted.seed, epoch, length)):
                if plan.kernel == "fixed":
                    library.fixed_seed(hash32((wanted.seed + epoch * length + position) & 0xFFFFFFFF))
                index = turn if turn < own else own + (turn - own) % len(targets)
                sample = _Sample(features[index].ctypes.data, plan.training.input_scale, 0.0)
                hard.label = int(labels[index])
                target, weight = (hard, np.float32(1)) if turn < own else self.soft(targets[index - own])
                for width in range(len(plan.widths) if wanted.nested else 1):
                    loss = library.model_backprop(
                        width, ctypes.byref(sample), ctypes.byref(target), ctypes.c_float(float(weight * scale))
                    )
                    losses += [loss] if width == 0 and turn < own else []
                in_batch = position % wanted.batch + 1
                if plan.accumulates and (in_batch == wanted.batch or position + 1 == length):
                    step = float(np.float32(wanted.learning_rate) / np.float32(in_batch))
                    library.model_update(ctypes.c_float(step), ctypes.c_float(wanted.momentum))
        return bytes(held), float(np.mean(losses))

    def soft(self, row: npt.NDArray[np.uint8]) -> tuple[_Target | _FixedTarget, np.float32]:
        """Return a proxy image's target, u8 [classes] in 1/255, and what it counts: the square of the largest share."""
        sure = np.float32(row.max()) * np.float32(1 / 255)
        if self.built.plan.kernel == "fixed":
            shares = (int(share) * (2 * SHARE_ONE // 255 + 1) // 2 for share in row)
            self._shares = (ctypes.c_uint16 * len(row))(*shares)
            return _FixedTarget(0, ctypes.addressof(self._shares), None, 256), sure * sure
        self._soft = row * np.float32(1 / 255)
        return _Target(0, self._soft.ctypes.data, None, 1.0, 1.0), sure * sure

    def divergence(self, blob: bytes, targets: npt.NDArray[np.uint8]) -> float:
        """Return the mean Kullback-Leibler divergence, in float64, of what weights make of the proxy images from their
        targets [proxy, classes]; a row of zeros is left out."""
        plan, library = self.built.plan, self.library
        library.model_logits_at.restype = ctypes.c_void_p
        held = (ctypes.c_uint8 * len(blob)).in_dll(library, "model_weights")
        ctypes.memmove(held, blob, len(blob))
        kind, one = (ctypes.c_int16, 256) if plan.kernel == "fixed" else (ctypes.c_float, 1)
        features, found = samples(SAMPLES + len(targets))[0][SAMPLES:], list[float]()
        for image, target in zip(features, targets, strict=True):
            sample = _Sample(image.ctypes.data, plan.training.input_scale, 0.0)
            library.model_forward(0, ctypes.byref(sample))
            logits = np.array(ctypes.cast(library.model_logits_at(), ctypes.POINTER(kind))[:CLASSES]) / one
            shares = target / max(1, int(target.sum()))
            logs = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
            found.append(float((shares * (np.log(np.maximum(shares, 1e-12)) - logs)).sum()))
        return float(np.mean(found))

    def target(self, adjustment: tuple[float, ...]) -> _Target | _FixedTarget:
        """Return a target without label; in fixed point the adjustment is in 1/256."""
        if self.built.plan.kernel == "fixed":
            self._adjustment = (ctypes.c_int16 * len(adjustment))(*(round(256 * value) for value in adjustment))
            return _FixedTarget(0, None, ctypes.addressof(self._adjustment), 256)
        self._floats = (ctypes.c_float * len(adjustment))(*adjustment)
        return _Target(0, None, ctypes.addressof(self._floats), 1.0, 1.0)


def blob_for(node: MemoryNode) -> bytes:
    """Return weights that the node takes."""
    plan = node.built.plan
    return fixed_weights(plan) if plan.kernel == "fixed" else WEIGHTS


def run(node: MemoryNode, wanted: Setup, adjustment: tuple[float, ...] = ()) -> None:
    """Take a node through a round."""
    node.ask(wanted)
    if adjustment:
        node.ask(Adjust(0, adjustment))
    node.load(blob_for(node), wanted.round)
    node.ask(Commit(wanted.round), node.TRANSFER)
    node.ask(Train(wanted.round))
    node.finish()
    assert node.state() == State.DONE


@pytest.mark.parametrize("name", ["accumulating", "fused", "fixed"])
@pytest.mark.parametrize(
    "wanted",
    [
        setup(),  # 30 samples in batches of 4: the last one is smaller
        setup(nested=0, seed=0xFFFFFFFF),
        setup(momentum=0.9, learning_rate=0.01, epochs=3),
        setup(batch=1),
        setup(batch=255, epochs=1),
    ],
    ids=["usual", "own width", "momentum", "batch 1", "batch 255"],
)
def test_the_update_is_what_the_model_gives(
    name: str,
    wanted: Setup,
    builds: dict[str, Build],
    compile_shared: CompileShared,
    request: pytest.FixtureRequest,
) -> None:
    node: MemoryNode = request.getfixturevalue(name)
    built = builds[name]
    reference = Reference(compile_shared(REFERENCE, ("-O1", *built.flags)), built)
    for adjustment in ((), ADJUSTMENT):
        node.boot()
        run(node, wanted, adjustment)
        offer, blob = node.fetch(Encoding.WEIGHTS)
        expected, loss = reference.train(wanted, blob_for(node), adjustment or (0.0,) * 3)
        assert blob == expected != blob_for(node)
        assert offer.samples == 30 and offer.loss == pytest.approx(loss, rel=1e-5)


def test_training_learns(accumulating: MemoryNode, fused: MemoryNode, fixed: MemoryNode) -> None:
    for node in (accumulating, fused, fixed):
        losses = []
        for epochs in (1, 40):
            run(node, setup(round=epochs, epochs=epochs, batch=1))
            losses.append(node.fetch(Encoding.WEIGHTS, round=epochs)[0].loss)
        assert losses[1] < losses[0] / 3


def test_the_same_seed_gives_the_same_bytes(accumulating: MemoryNode, fixed: MemoryNode) -> None:
    for node, encodings in ((accumulating, list(Encoding)), (fixed, [Encoding.WEIGHTS])):
        seen: dict[int, list[bytes]] = {}
        for round, seed in enumerate((1, 2, 1)):  # without a boot in between: a round leaves nothing behind
            run(node, setup(round=round, seed=seed))
            blobs = [node.fetch(encoding, round=round)[1] for encoding in encodings]
            assert seen.setdefault(seed, blobs) == blobs
        assert all(one != other for one, other in zip(seen[1], seen[2], strict=True))


def test_every_encoding_carries_the_same_update(accumulating: MemoryNode) -> None:
    run(accumulating, setup(encoding=Encoding.DELTA_Q8))
    deltas = {}
    for encoding in Encoding:
        offer, blob = accumulating.fetch(encoding)
        assert len(blob) == offer.size == (299 + 2 * 4 if encoding == Encoding.DELTA_Q8 else 299 * 4)
        tensors = decode_update(accumulating.built.plan, encoding, blob, WEIGHTS)
        deltas[encoding] = np.concatenate([tensor.ravel() for tensor in tensors])
    exact = deltas[Encoding.DELTA_F32]
    assert (exact == deltas[Encoding.WEIGHTS]).all() and exact.any()
    for start in range(0, 299, Q8_BLOCK):
        block = slice(start, start + Q8_BLOCK)
        scale = np.abs(exact[block]).max() / 127
        assert np.abs(deltas[Encoding.DELTA_Q8][block] - exact[block]).max() <= scale


@pytest.mark.parametrize("payload", [248, 247, 1])
def test_frames_of_any_size_carry_it(
    payload: int, accumulating: MemoryNode, builds: dict[str, Build], compile_shared: CompileShared
) -> None:
    run(accumulating, setup())
    wide = replace(builds["accumulating"], mtu=248, window=16)
    node = MemoryNode(compile_shared(MEMORY, ("-O2", *wide.flags)), wide)
    node.ask(setup())
    node.load(WEIGHTS, payload=payload)
    node.ask(Commit(5), node.TRANSFER)
    node.ask(Train(5))
    node.finish()
    for encoding in Encoding:
        assert node.fetch(encoding, payload=payload)[1] == accumulating.fetch(encoding)[1]


def q8(delta: F32, seed: int) -> bytes:
    """firmware/node/encoding.h, in numpy."""
    blob = b""
    for start in range(0, delta.size, Q8_BLOCK):
        block = delta[start : start + Q8_BLOCK]
        scale = np.abs(block).max() / np.float32(127)
        draws = [hash32(seed ^ hash32((start + i + 0x9E3779B9) & 0xFFFFFFFF)) >> 8 for i in range(block.size)]
        uniform = np.array(draws, np.float32) / np.float32(2**24)
        ratio = block / scale if scale >= np.finfo(np.float32).tiny else None
        levels = np.zeros(block.size) if ratio is None else np.clip(np.floor(ratio + uniform), -127, 127)
        blob += np.float32(0 if ratio is None else scale).tobytes() + levels.astype(np.int8).tobytes()
    return blob


@pytest.mark.parametrize("size", [1.0, 1e-30, 1e-37, 1e-44, 0.0, 1e38])
def test_q8_is_what_its_description_says(accumulating: MemoryNode, size: float) -> None:
    run(accumulating, setup(seed=3))
    library = accumulating.library
    now, origin = accumulating.array("model_weights"), accumulating.array("model_origin")
    origin[:] = 0
    now[:] = (np.random.default_rng(7).uniform(-1, 1, 299) * size).astype(np.float32)
    now[256:] = 0  # a block without change
    _, blob = accumulating.fetch(Encoding.DELTA_Q8)
    assert blob == q8(now, 3)
    ask = np.random.default_rng(8)
    for _ in range(100):  # any range of bytes, again, in any order
        offset = int(ask.integers(0, len(blob)))
        length = int(ask.integers(0, min(248, len(blob) - offset) + 1))
        piece = (ctypes.c_uint8 * 248)()
        library.encoding_read(offset, length, piece)
        assert bytes(piece)[:length] == blob[offset : offset + length]


def test_q8_rounds_without_bias(accumulating: MemoryNode) -> None:
    run(accumulating, setup())
    library = accumulating.library
    delta = (accumulating.array("model_weights") - accumulating.array("model_origin"))[:256]
    total = np.zeros(256)
    size, crc = ctypes.c_uint32(), ctypes.c_uint32()
    for seed in range(1000):
        assert library.encoding_begin(2, seed, ctypes.byref(size), ctypes.byref(crc))
        block = np.empty(260, np.uint8)
        for offset in range(0, 260, 52):
            library.encoding_read(offset, 52, ctypes.c_void_p(block[offset:].ctypes.data))
        total += block[4:].view(np.int8) * block[:4].view("<f4")[0].astype(np.float64)
    scale = np.abs(delta).max() / 127
    assert np.abs(total / 1000 - delta).max() < 5 * 0.5 * scale / np.sqrt(1000)  # five standard errors


def test_a_delta_that_overflows_is_not_sent(accumulating: MemoryNode) -> None:
    run(accumulating, setup())
    accumulating.array("model_weights")[7] = 3e38
    accumulating.array("model_origin")[7] = -3e38
    size, crc = ctypes.c_uint32(), ctypes.c_uint32()
    for encoding, sendable in ((Encoding.WEIGHTS, 1), (Encoding.DELTA_F32, 0), (Encoding.DELTA_Q8, 0)):
        assert accumulating.library.encoding_begin(encoding, 1, ctypes.byref(size), ctypes.byref(crc)) & 1 == sendable


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 16, 17, 64, 65, 1000])
def test_the_order_is_a_permutation(fused: MemoryNode, count: int) -> None:
    library = fused.library
    library.training_order.restype = ctypes.c_uint32
    for seed, epoch in ((1, 0), (1, 1), (0xFFFFFFFF, 255)):
        found = [library.training_order(ctypes.c_uint32(seed), epoch, at, count) for at in range(count)]
        assert sorted(found) == list(range(count))
        assert found == order(seed, epoch, count)


def test_the_order_differs_between_epochs_and_seeds_and_prefers_no_place(fused: MemoryNode) -> None:
    library = fused.library
    library.training_order.restype = ctypes.c_uint32
    first = [library.training_order(ctypes.c_uint32(seed), 0, 0, 10) for seed in range(0, 40_000, 4)]
    counts = np.bincount(first, minlength=10)
    chi_squared = ((counts - 1000) ** 2 / 1000).sum()
    assert chi_squared < 33.7  # 9 degrees of freedom, p = 1e-4
    orders = {tuple(order(seed, epoch, 30)) for seed in range(1, 9) for epoch in range(4)}
    assert len(orders) == 32
