"""Whole runs on real twins: what they leave, and that their bits follow from the federation file alone."""

import asyncio
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import serial

from codegen.protocol import Encoding, encoded_size
from codegen.weights import pack, unpack
from coordinator.connection import greet
from coordinator.emulation import Twins
from coordinator.events import Evaluated, NodeAnswered, NodeConnected, NodeTraffic, RoundAggregated, RunEnded
from coordinator.journal import read_journal, weights_sha256
from coordinator.results import load
from tests.federation.world import World

pytestmark = pytest.mark.e2e

NODES = ["megaatmega2560-1", "esp32dev-1", "esp32dev-2", "uno_r4_minima-1"]


def test_a_run_leaves_all_its_files(world: World, tmp_path: Path) -> None:
    summary, events = world.run(tmp_path, rounds=5)
    assert min(summary.accuracy.values()) > 0.5 and summary.accuracy["wide"] > 0.95
    assert [type(event) for event in events].count(Evaluated) == 6
    assert isinstance(events[-1], RunEnded)

    written = json.loads((tmp_path / "summary.json").read_text())
    assert written == json.loads(json.dumps(asdict(summary)))
    assert written["rounds"] == written["rounds_aggregated"] == 5
    assert list(written["accuracy"]) == ["wide", "half", "narrow"]
    assert [node["name"] for node in written["nodes"]] == NODES
    assert [node["tier"] for node in written["nodes"]] == ["half", "wide", "wide", "wide"]
    assert all(node["rounds_answered"] == 5 and node["bytes_down"] > 5000 for node in written["nodes"])

    for tier in ("wide", "half", "narrow"):
        assert f'#define MODEL_TIER "{tier}"' in (tmp_path / f"model_{tier}.h").read_text()
    report = (tmp_path / "report.html").read_text()
    assert "<svg" in report and "http://" not in report.replace("http://www.w3.org", "")
    assert read_journal(tmp_path / "journal.jsonl")[0][-1]["event"] == "run_ended"


def test_plain_keras_opens_the_model(world: World, tmp_path: Path) -> None:
    import keras

    summary, _ = world.run(tmp_path, rounds=3)
    model = keras.models.load_model(tmp_path / "global.keras")
    with np.load(world.folder / "data.npz") as data:
        guesses = model.predict(data["x_test"][..., None] / 255.0, verbose=0).argmax(axis=1)
        assert (guesses == data["y_test"]).mean() == pytest.approx(summary.accuracy["wide"], abs=0.01)
    assert weights_sha256(model.get_weights()) == summary.weights_sha256


@pytest.mark.parametrize("select", ["prefix", "rolling"])
@pytest.mark.parametrize("nodes", ["mixed", "fixed"])
def test_the_same_seed_gives_the_same_bits(world: World, tmp_path: Path, select: str, nodes: str) -> None:
    runs = enumerate((3, 3, 4))
    summaries = [world.run(tmp_path / str(i), seed=seed, select=select, nodes=nodes)[0] for i, seed in runs]
    digests = [summary.weights_sha256 for summary in summaries]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("encoding", ["weights", "delta_f32", "delta_q8"])
def test_updates_of_every_encoding(world: World, tmp_path: Path, encoding: str) -> None:
    summary, events = world.run(tmp_path, encoding=encoding, rounds=3)
    used = {event.node: event.encoding for event in events if isinstance(event, NodeConnected)}
    assert used == {name: encoding if name.startswith("esp32dev") else "weights" for name in NODES}
    assert summary.accuracy["wide"] > 0.8
    up = {event.node: event.bytes_up for event in events if isinstance(event, NodeTraffic) and event.round == 3}
    size = encoded_size(Encoding[encoding.upper()], 4460)
    assert size < up["esp32dev-1"] < 1.2 * size + 1500


def test_delta_f32_and_weights_tell_the_same(world: World, tmp_path: Path) -> None:
    """What the host subtracts and what the node subtracts is the same float32 arithmetic: the same bits."""
    one, other = (world.run(tmp_path / name, encoding=name)[0] for name in ("weights", "delta_f32"))
    assert one.weights_sha256 == other.weights_sha256


def test_unlike_labels(world: World, tmp_path: Path) -> None:
    _, events = world.run(tmp_path, split="shards", rounds=1)
    (line,) = [event for event in events if isinstance(event, RoundAggregated)]
    assert set(line.answered) == set(NODES)


def test_every_setting_of_training_reaches_the_boards(world: World, tmp_path: Path) -> None:
    settings = ("", "epochs = 2", "momentum = 0.5", "nested = false", "logit_adjustment = false")
    digests = {
        line: world.run(tmp_path / str(i), training=line, split="shards", rounds=1)[0].weights_sha256
        for i, line in enumerate(settings)
    }
    assert len(set(digests.values())) == len(settings), digests


def test_fixed_point_and_float_train_together(world: World, tmp_path: Path) -> None:
    plans = load(world.describe()).plans
    assert {board: plan.kernel for board, plan in plans.items()} == {
        "megaatmega2560": "fixed", "esp32dev": "f32", "uno_r4_minima": "f32",
    }  # fmt: skip
    summary, events = world.run(tmp_path, rounds=6)
    losses = [event.loss for event in events if isinstance(event, NodeAnswered) and event.node == NODES[0]]
    assert len(losses) == 6 and losses[-1] < losses[0] / 2 and min(summary.accuracy.values()) > 0.9
    assert [node.saturated for node in summary.nodes] == [0] * 4


def test_what_fixed_point_nodes_change_is_counted_from_what_they_were_sent(world: World, tmp_path: Path) -> None:
    """The mean of two deltas is a multiple of half a unit of the weights as sent, which were rounded off for that."""
    summary, _ = world.run(tmp_path, nodes="fixed", rounds=1)
    made = load(world.describe(nodes="fixed", rounds=1))
    plan, before = made.plans["megaatmega2560"], made.weights
    with np.load(tmp_path / "round-001.npz") as after:
        change = [after[name] - old for name, old in zip(sorted(after.files), before, strict=True)]
    sent = pack(plan, plan.sub_model.cut(before))
    exponents = np.frombuffer(sent, "i1", len(change))
    for delta, exponent in zip(plan.sub_model.cut(change), exponents, strict=True):
        halves = np.ldexp(delta, 1 - int(exponent))
        assert np.abs(halves - np.rint(halves)).max() < 0.05 and np.abs(halves).max() > 2
    assert all(node.rounds_answered == 1 and node.bytes_up > len(sent) for node in summary.nodes)
    assert all(tensor.dtype == np.float32 for tensor in unpack(plan, sent))


def test_weights_that_outgrow_fixed_point_are_told_of(world: World, tmp_path: Path) -> None:
    summary, events = world.run(tmp_path, nodes="fixed", rate=1e4)
    held = [event.saturated for event in events if isinstance(event, NodeAnswered)]
    assert len(held) == 4 and min(held) > 0
    assert sum(node.saturated for node in summary.nodes) == sum(held)
    written = json.loads((tmp_path / "summary.json").read_text())
    assert [node["saturated"] for node in written["nodes"]] == [node.saturated for node in summary.nodes]
    report = (tmp_path / "report.html").read_text()
    assert f"held at its limit {held[0]:,} times in round 1" in report


def test_resuming_from_any_line_ends_in_the_same_bits(world: World, tmp_path: Path) -> None:
    """A kill leaves a prefix of the journal, and perhaps files that it does not name yet."""
    whole, _ = world.run(tmp_path / "whole", rounds=3)
    content = (tmp_path / "whole" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    names = [json.loads(line)["event"] for line in content]
    second = [i for i, name in enumerate(names) if name == "round_started"][1]
    kinds = ("round_started", "node_answered", "round_aggregated", "checkpoint_written")
    for cut in (1, *(names.index(kind, second) + 1 for kind in kinds), len(names)):
        folder = tmp_path / f"cut-{cut}"
        folder.mkdir()
        (folder / "journal.jsonl").write_bytes(b"".join(content[:cut]) + b'{"event":"torn')
        for path in (tmp_path / "whole").glob("round-*.npz"):
            (folder / path.name).write_bytes(path.read_bytes())
        again = world.run(folder, resume=True, rounds=3)[0]
        assert again.weights_sha256 == whole.weights_sha256
        assert again.accuracy == whole.accuracy and again.history == whole.history
        assert [node.rounds_answered for node in again.nodes] == [3] * 4


def test_the_best_round_by_validation_comes_out(world: World, tmp_path: Path) -> None:
    """The data is easy, so that patience is soon at an end. A resumed run stops where it had, and holds the same."""
    changes: dict[str, Any] = {"rounds": 40, "validation": 120, "training": "patience = 2"}
    summary, events = world.run(tmp_path, **changes)
    evaluated = [event for event in events if isinstance(event, Evaluated)]
    judged = {event.round: event.accuracy for event in evaluated if event.images == "validation"}
    best = max(judged, key=lambda number: (judged[number]["wide"], math.fsum(judged[number].values()) / 3, -number))
    assert summary.best is not None and summary.last is not None
    assert (summary.best.round, summary.best.accuracy, summary.result.round) == (best, judged[best], best)
    assert summary.rounds == summary.last.round == max(judged) == best + 2 < 40 and str(best) in summary.stopped
    assert summary.history == [judged[number] for number in sorted(judged)]
    with np.load(tmp_path / summary.best.file) as kept:
        assert weights_sha256([kept[name] for name in sorted(kept.files)]) == summary.weights_sha256
    (tested,) = [event for event in evaluated if event.images == "test"]
    assert tested.accuracy == summary.accuracy and sum(map(sum, tested.confusion["wide"])) == 400
    again, _ = world.run(tmp_path, resume=True, **changes)
    assert (again.weights_sha256, again.best, again.stopped) == (summary.weights_sha256, summary.best, summary.stopped)


def test_a_port_that_is_busy_for_a_moment_is_waited_for(world: World, tmp_path: Path) -> None:
    async def play() -> None:
        async with Twins(world.describe(), world.programs, tmp_path) as twins:
            modem_manager = serial.Serial(twins.ports[0], exclusive=True)
            asyncio.get_running_loop().call_later(0.7, modem_manager.close)
            found = await greet(twins.ports[0], [115200])
            await found.session.close()
            assert found.uid == twins.twins[0].uid

    asyncio.run(play())
