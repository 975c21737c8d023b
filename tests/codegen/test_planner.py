"""What is planned is what is built: bytes against the compiled header, and which tier each board gets."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import boards
from codegen.graph import Graph
from codegen.header import model_header
from codegen.macs import layer_macs
from codegen.model_file import load_graph
from codegen.planner import Plan, PlanError, Training, best, plan
from codegen.tiers import DEFAULT_TIERS, Tier, tiers_from
from tests.codegen.support import WARNINGS, board
from tests.firmware.conftest import require

EXAMPLE = boards.PROJECT_ROOT / "examples" / "mnist" / "model.py"
TIERS = tiers_from(DEFAULT_TIERS)
FIVE_TIERS = tiers_from({**DEFAULT_TIERS, "nano": 1 / 16})
COMPILERS = {
    "native": ("gcc", "nm"),
    "atmelavr": ("avr-gcc -mmcu=atmega2560", "avr-nm"),
    "nordicnrf52": ("arm-none-eabi-gcc -mcpu=cortex-m4 -mthumb -mfloat-abi=hard -mfpu=fpv4-sp-d16", "arm-none-eabi-nm"),
}


@cache
def example(trainable: tuple[str, ...] | None = None) -> tuple[Graph, list[np.ndarray[Any, Any]]]:
    """Return the example's graph and weights."""
    return load_graph(EXAMPLE, trainable, 1)


def plan_for(where: boards.Board, tier: str = "micro", **training: Any) -> Plan:
    """Return the example's plan."""
    chosen = next(t for t in TIERS if t.name == tier)
    return plan(where, example()[0], TIERS, chosen, Training(**training))


@pytest.mark.parametrize(
    ("board_id", "tier"),
    [
        ("esp32dev", "expanded"),
        ("nrf52840_dk", "expanded"),
        ("nrf52_dk", "base"),
        ("uno_r4_minima", "compact"),
        ("megaatmega2560", "compact"),
        ("esp32-c3-devkitm-1", "expanded"),
        ("uno", "nano"),
    ],
)
def test_each_board_gets_its_tier(board_id: str, tier: str) -> None:
    found = best(boards.load(board_id), example()[0], FIVE_TIERS, Training())
    assert found.sub_model.tier.name == tier
    assert found.ram <= found.ram_limit <= found.board.ram
    assert found.flash + found.samples_in_flash * (784 + 2) <= found.flash_limit


@pytest.mark.parametrize("kernel", ["f32", "fixed"])
def test_all_boards_of_a_kernel_agree_on_a_tier(kernel: str) -> None:
    large = [b for b in boards.all_boards() if b.ram > 200_000]
    alike = [replace(b, training=replace(b.training, kernel=kernel)) for b in large]
    hashes = {b.id: best(b, example()[0], TIERS, Training()).model_hash for b in alike}
    assert len(hashes) > 3
    assert len(set(hashes.values())) == 1


@pytest.mark.parametrize(
    ("env", "tier"),
    [(env, tier) for env in COMPILERS for tier in TIERS if (env, tier.name) != ("atmelavr", "expanded")],  # over 32 KB
)
@pytest.mark.parametrize(("kernel", "batch"), [("f32", 1), ("f32", 8), ("fixed", 8)])
@pytest.mark.parametrize("trainable", [None, ("conv3", "logits"), ("conv2", "logits")])
def test_planned_arrays_are_the_symbols(
    tmp_path: Path, env: str, kernel: str, batch: int, trainable: Any, tier: Tier
) -> None:
    graph, weights = example(trainable)
    hold_to_symbols(plan(board(env=env, kernel=kernel), graph, TIERS, tier, Training(batch=batch)), weights, tmp_path)


def hold_to_symbols(planned: Plan, weights: list[np.ndarray[Any, Any]], folder: Path) -> None:
    """Compile the header for the board's processor; its arrays must be those of the plan."""
    env = planned.board.training.env
    compiler, nm = COMPILERS[env]
    require(compiler.split()[0])
    (folder / "model.h").write_text(model_header(planned, weights))
    (folder / "model.c").write_text('#define MODEL_IMPLEMENTATION\n#include "model.h"\n')
    command = [*compiler.split(), *WARNINGS, "-O2", "-fno-common", "-I.", "-c", "model.c"]
    subprocess.run(command, cwd=folder, check=True)
    listing = subprocess.run([nm, "-f", "sysv", "model.o"], cwd=folder, check=True, capture_output=True, text=True)
    lines = [[cell.strip() for cell in line.split("|")] for line in listing.stdout.splitlines()]
    symbols = {cells[0]: cells for cells in lines if len(cells) == 7 and cells[3] == "OBJECT"}
    assert {name: int(cells[4], 16) for name, cells in symbols.items()} == {a.name: a.bytes for a in planned.arrays}
    assert {name: _section(cells[6], env) for name, cells in symbols.items()} == {
        array.name: array.section for array in planned.arrays
    }


def _section(name: str, env: str) -> str:
    """Return where the linker puts what the compiler put into a section of that name."""
    if name.startswith(".rodata"):
        return "both" if env == "atmelavr" else "flash"
    return "flash" if name.startswith(".progmem") else "ram"


def test_parts_make_the_whole() -> None:
    where = board(framework_ram=100, stack=50, mtu=72, window=4)
    found = plan_for(where, batch=1, encoding="weights")
    assert found.ram_parts == {
        "model_weights": 3576,
        "model_arena": 3184,
        "adjustment": 40,
        "link": (72 + 8) + 4,
        "framework": 100,
        "stack": 50,
    }
    assert found.ram == sum(found.ram_parts.values())


def fixed(board_id: str) -> boards.Board:
    """Return a board that trains in fixed point, whatever its file says."""
    found = boards.load(board_id)
    return replace(found, training=replace(found.training, kernel="fixed"))


def test_fixed_point_brings_the_uno_in_and_the_mega_up() -> None:
    uno, mega = (best(fixed(name), example()[0], FIVE_TIERS, Training()) for name in ("uno", "megaatmega2560"))
    assert (uno.sub_model.tier.name, mega.sub_model.tier.name) == ("nano", "compact")
    sizes = {name: size for name, size in uno.ram_parts.items() if name.startswith("model") or name == "adjustment"}
    assert sizes == {
        "model_weights": 8 + 2 * 398,
        # conv1's 1 + 196 and conv2's 1 + 98, conv3's 1 + 32, and what its way back gathers: 2 channels, 9 × 2 each
        "model_arena": 404,
        "model_shift": 2 * 4,
        "model_shape": 22,
        "adjustment": 2 * 10,
    }
    assert uno.ram_limit - uno.ram >= 64  # chunks of 120 bytes have the rest: the Uno's wire is 93 % content
    assert mega.ram_parts["model_weights"] == 8 + 2 * 2210


def test_fixed_point_trains_at_batch_1_and_sends_its_weights() -> None:
    found = plan_for(board(kernel="fixed"), batch=4, momentum=0.9, encoding="delta_q8")
    assert (found.batch, found.accumulates, found.keeps_origin) == (1, False, False)
    assert found.concessions == ("batch 1, step ÷ 4", "no momentum", "weights, not delta_q8")
    down, up = found.transfer_bytes
    assert down == up == 8 + 2 * 894 + 8 * 15


@pytest.mark.parametrize(
    ("input_range", "exponent", "ends"),
    [
        ((0.0, 1.0), -7, (0, 127)),
        ((-1.0, 1.0), -7, (-127, 127)),
        ((0.0, 1.5), -6, (0, 96)),
        ((-0.5, 0.25), -8, (-127, 64)),
        ((0.0, 255.0), 1, (0, 127)),
    ],
)
def test_fixed_point_reads_samples_as_finely_as_it_can(
    input_range: tuple[float, float], exponent: int, ends: tuple[int, int]
) -> None:
    training = Training(input_range=input_range)
    assert training.fixed_input.exponent == exponent
    table = training.fixed_input.table
    assert (table[0], table[-1], len(table)) == (*ends, 256)
    exact = np.array(input_range[0] + np.arange(256) * training.input_scale)
    assert np.abs(np.array(table) * 2.0**exponent - exact).max() <= 2.0**exponent  # half a place, or 127 for 128


@pytest.mark.parametrize(("kernel", "element"), [("f32", 4), ("fixed", 2)])
def test_frozen_weights_take_ram_on_an_avr_that_goes_back_through_them(kernel: str, element: int) -> None:
    def difference(trainable: tuple[str, ...] | None) -> int:
        graph, _ = example(trainable)
        tier = next(tier for tier in TIERS if tier.name == "micro")
        avr, arm = (
            plan(board(env=env, kernel=kernel), graph, TIERS, tier, Training()) for env in ("atmelavr", "nordicnrf52")
        )
        return avr.ram - arm.ram

    assert difference(None) == 22  # the sizes in use; all of them lie in flash
    assert difference(("logits",)) == 22
    assert difference(("conv1", "logits")) == 22 + element * (76 + 148)


def test_an_avr_reads_64_kb_of_its_flash() -> None:
    graph, _ = example(("logits",))
    arrays = {array.name: array for array in plan(board(env="atmelavr"), graph, TIERS, TIERS[0], Training()).arrays}
    frozen = [arrays[f"model_kernel_conv{number}"] for number in (1, 2, 3)]
    assert [array.section for array in frozen] == ["flash", "flash", "flash"]
    assert sum(array.bytes for array in frozen) == 4 * 9 * (16 + 16 * 32 + 32 * 32)
    wide = replace(graph, layers=tuple(replace(layer, kernel=(4, 4)) for layer in graph.layers))
    arrays = {array.name: array for array in plan(board(env="atmelavr"), wide, TIERS, TIERS[0], Training()).arrays}
    assert [arrays[array.name].section for array in frozen] == ["flash", "flash", "both"]
    halved = plan(board(env="atmelavr", kernel="fixed"), wide, TIERS, TIERS[0], Training()).arrays
    assert {array.section for array in halved if array.name.startswith("model_kernel")} == {"flash"}


WEIGHTS, BATCH, ORIGIN = 3576, 2648 + 3576, 3576  # micro: gradients cost the arena's scratch no longer needed
REST = 40 + 128 + 8


@pytest.mark.parametrize(
    ("ram", "training", "accumulates", "origin"),
    [
        (WEIGHTS + BATCH + ORIGIN + REST, {}, True, True),
        (WEIGHTS + BATCH + ORIGIN + REST - 1, {}, True, False),
        (WEIGHTS + BATCH + REST, {}, True, False),
        (WEIGHTS + BATCH + REST - 1, {}, False, False),
        (WEIGHTS + BATCH + REST + ORIGIN, {"encoding": "weights"}, True, False),
        (WEIGHTS + 3184 + REST, {}, False, False),
        (WEIGHTS + 3184 + REST + ORIGIN, {"batch": 1}, False, True),
        (WEIGHTS + BATCH + REST, {"batch": 1, "momentum": 0.9}, True, False),
    ],
)
def test_ways_are_tried_from_the_best(ram: int, training: Any, accumulates: bool, origin: bool) -> None:
    found = plan_for(board(ram=ram), **training)
    assert (found.fits, found.accumulates, found.keeps_origin) == (True, accumulates, origin)
    assert found.batch == (training.get("batch", 8) if accumulates else 1)
    names = {array.name for array in found.arrays}
    assert ("model_gradients" in names, "model_origin" in names) == (accumulates, origin)


def test_a_tier_that_does_not_fit_says_what_is_missing() -> None:
    where = board(ram=WEIGHTS + 3184 + REST)
    assert plan_for(where).reason == ""
    refused = plan_for(where, "compact")
    assert not refused.fits
    assert refused.missing_bytes == (8840 + 7520) - (WEIGHTS + 3184)
    assert refused.reason == "tier compact needs 9,600 bytes of RAM more than bench has; micro is the largest that fits"


@pytest.mark.parametrize(
    ("settings", "roomy", "tight"),
    [
        ({"batch": 8}, (), ("batch 1, step ÷ 8",)),
        ({"batch": 1}, (), ()),
        ({"batch": 1, "momentum": 0.9}, (), ("no momentum",)),
        (
            {"batch": 4, "momentum": 0.9, "encoding": "delta_q8"},
            (),
            ("batch 1, step ÷ 4", "no momentum", "weights, not delta_q8"),
        ),
    ],
)
def test_what_a_board_does_without_is_said(
    settings: dict[str, Any], roomy: tuple[str, ...], tight: tuple[str, ...]
) -> None:
    graph, training = example()[0], Training(**settings)
    assert plan(board(ram=10**6), graph, TIERS, TIERS[-1], training).concessions == roomy
    assert plan(board(ram=WEIGHTS + 3184 + REST), graph, TIERS, TIERS[-1], training).concessions == tight


def test_no_tier_fits() -> None:
    where = board(ram=WEIGHTS + 3184 + REST - 4)
    assert plan_for(where).reason == "tier micro needs 4 bytes of RAM more than bench has; no tier fits"
    with pytest.raises(PlanError) as error:
        best(where, example()[0], TIERS, Training())
    assert str(error.value) == (
        "tier micro needs 4 bytes of RAM more than bench has; no tier fits: "
        "add a narrower tier to [tiers], or use a larger board"
    )
    with pytest.raises(PlanError, match="bytes of flash more than bench has"):
        best(board(flash=100), example()[0], TIERS, Training())


def test_part_of_the_ram_may_be_static() -> None:
    need = WEIGHTS + 3184 + REST + 500
    assert plan_for(board(ram=2 * need, static_ram=need, framework_ram=500)).fits
    assert plan_for(board(ram=2 * need, static_ram=need - 1, framework_ram=500)).missing_bytes == 1
    assert plan_for(board(ram=2 * need, static_ram=need - 1, framework_ram=500 - 100, stack=100)).fits


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"ram": 7500}, True),
        ({"momentum": 0.9}, True),
        ({"input_range": (0.0, 2.0)}, False),
        ({"tiers": (*TIERS, Tier("nano", channels=(1, 2, 2)))}, False),
        ({"slope": 0.2}, False),
        ({"frozen_crc": 1}, False),
        ({"kernel": "fixed"}, False),
        ({"layer": "other name"}, True),
    ],
)
def test_model_hash_follows_the_model_only(change: dict[str, Any], same: bool) -> None:
    graph = example()[0]
    first = graph.layers[0]
    layers = (replace(first, name=change.get("layer", first.name), slope=change.get("slope", 0.1)), *graph.layers[1:])
    changed = replace(graph, layers=layers, frozen_crc=change.get("frozen_crc", 0))
    options = {name: value for name, value in change.items() if name in ("momentum", "input_range")}
    micro = TIERS[-1]
    where = board(change.get("ram", 1 << 20), kernel=change.get("kernel", "f32"))
    found = plan(where, changed, change.get("tiers", TIERS), micro, Training(**options))
    assert (found.model_hash == plan(board(), graph, TIERS, micro, Training()).model_hash) == same


def test_model_hash_is_the_same_next_year() -> None:
    assert (
        plan_for(board()).model_hash == 0xF6E954F6
    )  # a change makes every flashed board a stranger: say so in the notes


def test_time_follows_from_multiplications() -> None:
    conv, _, _, dense = plan_for(board()).sub_model.graph.layers
    assert layer_macs(dense) == 640
    assert layer_macs(conv) == (14 * 3 - 1) ** 2 * 2  # one row and one column of taps fall outside
    found = plan_for(board(bauds=(115200, 500000)), nested=True)
    assert found.widths == (TIERS[-1],)
    assert found.step_seconds == pytest.approx((found.macs * 10 + 1000) / 1e6)
    down, up = found.transfer_bytes
    assert down == 3576 + 8 * 30
    assert up == 894 + 4 * 4 + 8 * 8  # delta_q8: four blocks of at most 256
    assert found.round_seconds(100, 3) == pytest.approx((down + up) * 10 / 450_000 + 300 * found.step_seconds)
    wide = plan_for(board(), "base")
    assert wide.macs > plan_for(board(), "base", nested=False).macs
    assert [tier.name for tier in wide.widths] == ["base", "compact", "micro"]


def test_tiers_with_the_same_channels_are_one_width() -> None:
    twins = (*TIERS, Tier("twin", channels=(2, 4, 4)))
    assert [t.name for t in plan(board(), example()[0], twins, TIERS[2], Training()).widths] == ["compact", "micro"]


def test_a_streaming_board_keeps_one_sample_and_waits_for_the_wire() -> None:
    flash = plan_for(boards.load("megaatmega2560"))
    stream = plan_for(boards.load("megaatmega2560"), sources={"megaatmega2560": "stream", "uno": "sensor"})
    assert stream.ram_parts["model_sample"] == 4 + 2 + 784
    assert (flash.source, stream.source, stream.samples_in_flash) == ("flash", "stream", 0)
    assert flash.model_hash == stream.model_hash  # HELLO says the source, in words
    bits = 10 * (790 + 7 * 8)  # of the chunks alone: 120 bytes each
    assert stream.round_seconds(100, 3) - flash.round_seconds(100, 3) > 300 * bits / 500_000


def test_a_sensors_samples_take_ram_and_a_refusal_says_how_many_would_fit() -> None:
    where = boards.load("nrf52_dk")

    def with_samples(count: int) -> Plan:
        return plan_for(where, sources={"nrf52_dk": "sensor"}, samples_per_node=count)

    few = with_samples(20)
    assert (few.ram_parts["model_samples"], few.ram_parts["model_labels"]) == (20 * 784, 20 * 2)
    held = int(with_samples(1000).reason.rsplit(" ", 1)[1])
    assert with_samples(held).fits and not with_samples(held + 1).fits
    with pytest.raises(PlanError, match=r"its sensor's 1,000 samples \(samples_per_node\) it could keep \d+"):
        best(where, example()[0], TIERS, Training(sources={"nrf52_dk": "sensor"}, samples_per_node=1000))


@pytest.mark.parametrize("env", COMPILERS)
@pytest.mark.parametrize("source", ["stream", "sensor"])
def test_samples_in_ram_are_symbols_of_their_size(env: str, source: str, tmp_path: Path) -> None:
    made = plan_for(board(env=env), sources={"bench": source}, samples_per_node=3)
    assert sum(array.bytes for array in made.arrays if "sample" in array.name) in (6 + 784, 3 * 784)
    hold_to_symbols(made, example()[1], tmp_path)


def test_a_key_takes_ram_and_flash_of_those_that_have_one() -> None:
    open_uno = plan_for(boards.load("uno"))
    uno, mega = (plan_for(boards.load(name), keyed=frozenset({"uno"})) for name in ("uno", "megaatmega2560"))
    assert uno.ram_parts["key"] == uno.ram - open_uno.ram == 71
    assert uno.flash - open_uno.flash == 3320
    assert "key" not in mega.ram_parts
    assert uno.model_hash == open_uno.model_hash
