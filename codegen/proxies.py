"""The proxy images that a board rehearses: how many it holds, and what stands in the way of more.

They get what is left once a tier and its buffers have been chosen, so a plan never shrinks for their sake. RAM holds
their soft targets, flash their pixels, and there the node's own samples come first: they keep half of the room, or all
that `samples_per_node` says if that is less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from codegen.shards import AVR, samples_that_fit

if TYPE_CHECKING:
    from codegen.planner import Plan

FLASH_ERROR = 0.02  # by how much of itself a program may exceed its plan: what tests hold images to
LEAST = 20  # images that are worth being rehearsed
CODE: Mapping[str, int] = {  # bytes of flash by PlatformIO platform: measured, benchmarks/code_size.py
    "atmelavr": 1014,
    "nordicnrf52": 740,
}
CODE_ELSEWHERE = 1000  # at most, where nothing was measured
STATE: Mapping[str, int] = {"atmelavr": 29}  # firmware/node/: a transfer under way, and how many samples came by
STATE_ELSEWHERE = 40
TARGETS, REHEARSAL = "model_targets", "rehearsal"  # what a plan calls its parts of the RAM


class Room(NamedTuple):
    """For how many proxy images there is room."""

    ram: int  # of their soft targets
    flash: int  # of the images themselves, and of the code; all of them, if they are streamed


def code_bytes(platform: str) -> int:
    """Return the flash that rehearsing takes."""
    return CODE.get(platform, CODE_ELSEWHERE)


def state_bytes(plan: Plan) -> int:
    """Return the RAM that rehearsing takes beside the targets: those of the image at hand, and a transfer's state."""
    wide = 2 if plan.kernel == "fixed" else 4
    return wide * plan.sub_model.graph.classes + STATE.get(plan.board.training.env, STATE_ELSEWHERE)


def rehearsed(plan: Plan) -> int:
    """Return how many proxy images a plan, with or without any, has room for and holds; 0 if that is too few."""
    space = room(plan)
    count = min(plan.training.proxy, space.ram, space.flash)
    return count if count >= min(LEAST, max(1, plan.training.proxy)) else 0


def room(plan: Plan) -> Room:
    """Return the room that there is beside everything else in a plan."""
    ram = plan.ram - sum(plan.ram_parts.get(part, 0) for part in (TARGETS, REHEARSAL))
    flash = plan.flash + (0 if plan.proxy else code_bytes(plan.board.training.env))
    free = max(0, plan.ram_limit - ram - state_bytes(plan))
    return Room(free // plan.sub_model.graph.classes, _in_flash(plan, flash))


def _in_flash(plan: Plan, flash: int) -> int:
    """Return how many images fit beside a program of `flash` bytes and the node's own samples."""
    images = images_beside(plan, flash)
    if plan.source == "stream":
        return plan.training.proxy if flash <= plan.flash_limit else 0
    if plan.source == "sensor":
        return 0 if plan.board.training.env == AVR else images  # an AVR reads all samples by the same instructions
    return max(images // 2, images - (plan.training.samples_per_node or images))


def images_beside(plan: Plan, flash: int) -> int:
    """Return how many images, of samples or proxies, fit the flash that a program of `flash` bytes leaves, if it is as
    much larger than planned as may be."""
    left = plan.flash_limit - math.ceil(flash * (1 + FLASH_ERROR))
    return samples_that_fit(plan.board, plan.sub_model.graph.features, left)


def words(plan: Plan) -> str:
    """Say where the proxy images are, or why not all of them are there; "" if the federation has none."""
    wanted, held = plan.training.proxy, plan.proxy
    if not wanted:
        return ""
    if held == wanted:
        return f"{held} of {wanted} {'streamed' if plan.source == 'stream' else 'in flash'}"
    space = room(plan)
    short = "RAM" if space.ram <= space.flash else "flash"
    if plan.source == "sensor" and plan.board.training.env == AVR:
        short = "an AVR's sensor"
    return f"cut to {held} of {wanted}: {short}" if held else f"left out: {short}"
