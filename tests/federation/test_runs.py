"""Whole runs on real twins: what they leave, and that their bits follow from the federation file alone."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from codegen.protocol import Encoding, encoded_size
from coordinator.events import Evaluated, NodeConnected, NodeTraffic, RoundAggregated, RunEnded
from coordinator.journal import read_journal, weights_sha256
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
def test_the_same_seed_gives_the_same_bits(world: World, tmp_path: Path, select: str) -> None:
    summaries = [world.run(tmp_path / str(i), seed=seed, select=select)[0] for i, seed in enumerate((3, 3, 4))]
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
