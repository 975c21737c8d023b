"""How many proxy images a board holds: what is left, to the byte, and never at the cost of anything else."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

import boards
from codegen.graph import Graph
from codegen.model_file import load_graph
from codegen.planner import Plan, PlanError, SampleSource, Training, best
from codegen.proxies import LEAST, words
from codegen.shards import shard_bytes
from codegen.tiers import DEFAULT_TIERS, tiers_from

EXAMPLE = boards.PROJECT_ROOT / "examples" / "mnist" / "model.py"
TIERS = tiers_from({**DEFAULT_TIERS, "nano": 1 / 16})
BOARDS = [board.id for board in boards.all_boards()]
SOURCES: tuple[SampleSource, ...] = ("flash", "stream", "sensor")


@cache
def example() -> Graph:
    """Return the example's graph."""
    return load_graph(EXAMPLE, None, 1)[0]


def plan_of(board_id: str, source: SampleSource = "flash", **settings: Any) -> Plan:
    """Return the best plan of the example."""
    settings = {"samples_per_node": 4 if source == "sensor" else 900, "rehearsals": 2} | settings
    return best(boards.load(board_id), example(), TIERS, Training(sources={board_id: source}, **settings))


@pytest.mark.parametrize("board_id", BOARDS)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("wanted", [1, 200, 65_535])
def test_nothing_shrinks_for_their_sake_and_everything_still_fits(
    board_id: str, source: SampleSource, wanted: int
) -> None:
    try:
        plain = plan_of(board_id, source)
    except PlanError:
        return
    found = plan_of(board_id, source, proxy=wanted)
    assert (found.sub_model.tier, found.accumulates, found.keeps_origin, found.model_hash) == (
        plain.sub_model.tier, plain.accumulates, plain.keeps_origin, plain.model_hash,
    )  # fmt: skip
    assert found.fits and found.proxy in (0, *range(min(LEAST, wanted), wanted + 1))
    more = {name: size for name, size in found.ram_parts.items() if name not in plain.ram_parts}
    if found.proxy:
        assert more["model_targets"] == 10 * found.proxy and set(more) == {"model_targets", "rehearsal"}
        assert next(array.bytes for array in found.arrays if array.name == "model_targets") == 10 * found.proxy
    else:
        assert (more, found.flash, found.arrays) == ({}, plain.flash, plain.arrays)
    held = found.samples_in_flash + (0 if source == "stream" else found.proxy)
    assert found.flash + shard_bytes(found.board, 784, held) <= found.flash_limit
    assert found.samples_in_flash >= min(900, plain.samples_in_flash) // 2 - 2  # the code of rehearsal takes some room


@pytest.mark.parametrize(("board_id", "source", "said"), [
    ("nrf52840_dk", "flash", "200 of 200 in flash"),
    ("nrf52840_dk", "stream", "200 of 200 streamed"),
    ("megaatmega2560", "stream", r"cut to \d\d of 200: RAM"),
    ("megaatmega2560", "flash", r"cut to 1\d\d of 200: RAM"),
    ("megaatmega2560", "sensor", "left out: an AVR's sensor"),
    ("uno", "flash", "left out: RAM"),
])  # fmt: skip
def test_a_plan_says_where_they_are_or_what_is_short(board_id: str, source: SampleSource, said: str) -> None:
    assert words(plan_of(board_id, source)) == ""
    found = words(plan_of(board_id, source, proxy=200))
    assert re.fullmatch(said, found), found


@pytest.mark.parametrize(("own", "proxy"), [(100, 165), (165, 132), (10, 255), (600, 132)])
def test_own_samples_keep_their_half_of_the_flash(own: int, proxy: int) -> None:
    program = plan_of("nrf52840_dk", proxy=1).flash
    where = replace(boards.load("nrf52840_dk"), flash=round(program * 1.02) + 265 * 786 + 100)  # room for 265 images
    found = best(where, example(), TIERS, Training(proxy=500, samples_per_node=own))
    assert (found.proxy, found.samples_in_flash) == (proxy, 265 - proxy)
    assert words(found) == f"cut to {proxy} of 500: flash"


def test_a_round_takes_longer_by_what_is_rehearsed() -> None:
    found, never = (plan_of("nrf52840_dk", proxy=200, rehearsals=count) for count in (3, 0))
    steps = 2 * 3 * 200 * found.step_seconds
    targets = 2000 + 8 * 9  # in frames of 248 bytes
    assert found.transfer_bytes == (never.transfer_bytes[0] + targets, never.transfer_bytes[1])
    wire = 10 * targets / (0.9 * max(found.board.training.bauds))
    assert found.round_seconds(100, 2) - never.round_seconds(100, 2) == pytest.approx(steps + wire)
    streamed, none = (plan_of("nrf52840_dk", "stream", proxy=200, rehearsals=count) for count in (3, 0))
    assert streamed.round_seconds(100, 2) - none.round_seconds(700, 2) == pytest.approx(wire)
