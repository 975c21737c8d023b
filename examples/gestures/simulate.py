"""Hands that are not there: makes `recording.npz`, what nine people might have recorded with the board in their hand.

    python -m examples.gestures.simulate

Each person has a grip, a tempo, a reach, a tremor and a board of their own; each window varies them a little. The path
of the hand and the board's attitude give the specific force that its accelerometer feels, gravity included; the chip
adds offset and noise, and is read as sensor/gestures.c reads it. Nobody was measured: the figures are plausible.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

KINDS = ("circle", "shake", "lift")
STEPS, STEP_SECONDS, RANGE_G = 64, 0.02, 4.0  # of a window, as sensor/gestures.h has them
CHIP_HERTZ = 119.0  # the LSM9DS1 as Arduino's library sets it up
FINE_HERTZ = 2000  # the path is differentiated at this rate
GRAVITY = 9.81  # m/s²
NODES, STRANGERS, WINDOWS = 6, 3, 60  # people who train, people who only test, windows of each
SEED = 33


@dataclass(frozen=True)
class Person:
    """Who holds the board; lengths in metres, angles in radians, acceleration in g."""

    grip: Array  # rotation vector: the board in the hand
    plane: float  # how far the plane of the gestures is turned about the vertical
    tempo: float  # factor on all speeds
    reach: float  # factor on all lengths
    clockwise: float  # 1 or -1
    delay: float  # seconds from the LED to the hand
    tremor: float
    tremor_hertz: float
    offset: Array  # of the chip, per axis


def person(rng: np.random.Generator) -> Person:
    """Draw somebody."""
    return Person(
        grip=rng.normal(0, 0.25, 3),
        plane=rng.normal(0, 0.3),
        tempo=float(np.exp(rng.normal(0, 0.15))),
        reach=float(np.exp(rng.normal(0, 0.2))),
        clockwise=float(rng.choice([-1, 1])),
        delay=rng.uniform(0.05, 0.25),
        tremor=rng.uniform(0.005, 0.03),
        tremor_hertz=rng.uniform(8, 12),
        offset=rng.normal(0, 0.045, 3),  # LSM9DS1: ±90 mg, typically
    )


def window(who: Person, kind: int, rng: np.random.Generator) -> Array:
    """Return the bytes of one window, u8 [STEPS, 3]."""
    times, felt = readings(who, kind, rng)
    due = np.arange(STEPS) * STEP_SECONDS
    return quantised(felt[np.searchsorted(times, due, side="right") - 1])  # the newest reading


def readings(who: Person, kind: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return when the chip has a reading, seconds [n] from the LED on, and the readings in g, [n, 3]."""
    seconds = np.arange(int(FINE_HERTZ * (STEPS + 4) * STEP_SECONDS)) / FINE_HERTZ
    path, turn = movement(who, kind, seconds, rng)
    acceleration = np.gradient(np.gradient(path, seconds, axis=0), seconds, axis=0) / GRAVITY
    upright = acceleration + np.array([0, 0, 1])  # at rest the chip feels the hand hold it against gravity
    attitude = rotations(turn) @ rotations(who.grip + rng.normal(0, 0.08, 3))
    force = np.einsum("tji,tj->ti", attitude, upright)  # into the board's axes
    period = 1 / (CHIP_HERTZ * rng.normal(1, 0.01))  # a chip's clock is its own
    times = np.arange(-rng.uniform(0, period), seconds[-1], period)
    felt = np.stack([np.interp(times, seconds, axis) for axis in force.T], axis=1)
    phase = rng.uniform(0, 2 * np.pi, 3)
    shiver = who.tremor * np.sin(2 * np.pi * who.tremor_hertz * times[:, None] + phase)
    felt += shiver + who.offset + rng.normal(0, 0.005, felt.shape)
    return times, np.clip(felt, -RANGE_G, RANGE_G)


def movement(who: Person, kind: int, seconds: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return the hand's path, metres [n, 3] (right, ahead, up), and its turning, rotation vectors [n, 3]."""
    tempo = who.tempo * np.exp(rng.normal(0, 0.08))
    reach = who.reach * np.exp(rng.normal(0, 0.12))
    since = seconds - who.delay - rng.uniform(0, 0.15)
    path, turn = np.zeros((len(seconds), 3)), np.zeros((len(seconds), 3))
    if KINDS[kind] == "circle":
        grown = eased(since / 0.25)  # the hand leaves the centre, and goes round
        angle = who.clockwise * 2 * np.pi * 1.6 * tempo * np.maximum(since, 0) + rng.uniform(-0.8, 0.8)
        path[:, 0] = 0.10 * reach * grown * np.cos(angle)
        path[:, 2] = 0.10 * reach * grown * np.sin(angle)
        turn[:, 1] = 0.15 * grown * np.cos(angle)
    elif KINDS[kind] == "shake":
        swing = eased(since / 0.2) * np.sin(2 * np.pi * 3.2 * tempo * np.maximum(since, 0))
        path[:, 0] = 0.045 * reach * swing
        path[:, 2] = 0.008 * reach * swing**2  # about the elbow, so along an arc
        turn[:, 1] = 0.2 * swing
    else:
        risen = eased(since * tempo / 0.7)
        path[:, 2] = 0.35 * reach * risen
        path[:, 1] = -0.05 * reach * risen
        turn[:, 0] = rng.normal(0.25, 0.1) * risen  # the wrist lags behind
    return path @ rotations(np.array([0, 0, who.plane + rng.normal(0, 0.1)])).T, turn


def eased(progress: Array) -> Array:
    """Return how far a movement is that takes from 0 to 1 and jerks least."""
    done: Array = np.clip(progress, 0, 1)
    smooth: Array = done**3 * (10 - 15 * done + 6 * done**2)
    return smooth


def rotations(vectors: Array) -> Array:
    """Return the matrices [..., 3, 3] of rotation vectors [..., 3], by Rodrigues' formula."""
    angle = np.linalg.norm(vectors, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vectors / np.maximum(angle[..., 0], 1e-12), -1, 0)
    none = np.zeros_like(x)
    cross = np.stack([none, -z, y, z, none, -x, -y, x, none], axis=-1).reshape(*x.shape, 3, 3)
    matrices: Array = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)
    return matrices


def quantised(acceleration: Array) -> Array:
    """Return g as the bytes that sensor/gestures.c makes of them."""
    byte: Array = (acceleration.astype(np.float32) + np.float32(RANGE_G)) * np.float32(
        255 / (2 * RANGE_G)
    ) + np.float32(0.5)
    return np.clip(byte, 0, 255).astype(np.uint8)


def record(people: int, windows: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Return windows u8 [n, STEPS, 3], labels and whose they are, u8 [n] each; every gesture equally often."""
    x, y, owner = [], [], []
    for number in range(people):
        who = person(rng)
        for index in range(windows):
            kind = index % len(KINDS)
            x.append(window(who, kind, rng))
            y.append(kind)
            owner.append(number)
    return np.stack(x), np.array(y, np.uint8), np.array(owner, np.uint8)


def main(path: Path) -> None:
    """Write the recording: `owner_train` says which of the nodes a window belongs to."""
    rng = np.random.default_rng(SEED)
    x_train, y_train, owner_train = record(NODES, WINDOWS, rng)
    x_test, y_test, _ = record(STRANGERS, WINDOWS, rng)
    np.savez_compressed(path, x_train=x_train, y_train=y_train, owner_train=owner_train, x_test=x_test, y_test=y_test)


if __name__ == "__main__":
    main(Path(__file__).with_name("recording.npz"))
