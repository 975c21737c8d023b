"""The example of models that share nothing, on twins."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from boards import PROJECT_ROOT
from coordinator import emulation, federation, runs
from coordinator.emulation import Twins
from coordinator.federation import Federation
from coordinator.results import Summary

pytestmark = pytest.mark.e2e

EXAMPLE = PROJECT_ROOT / "examples" / "mixed" / "federation.toml"
KINDS = ["esp32dev", "megaatmega2560+mlp"]


def play(described: Federation, programs: dict[str, Path], folder: Path, resume: bool = False) -> Summary:
    async def main() -> Summary:
        async with Twins(described, programs, folder / "shards") as twins:
            return await runs.run(described, twins.ports, folder, resume=resume)

    return asyncio.run(main())


def test_a_cnn_and_an_mlp_learn_from_each_other(tmp_path: Path) -> None:
    import keras

    whole = federation.load(EXAMPLE)
    described = whole.model_copy(update={"training": whole.training.model_copy(update={"rounds": 2})})
    programs = emulation.build(described, tmp_path / "pio")
    assert sorted(programs) == KINDS
    summary = play(described, programs, tmp_path / "run")
    assert [(node.tier, node.rounds_answered) for node in summary.nodes] == [("expanded", 2)] * 3 + [("mlp", 2)] * 2
    assert list(summary.accuracy) == ["expanded", "base", "mlp"]
    assert all(summary.history[2][name] > summary.history[0][name] + 0.05 for name in summary.accuracy), summary.history
    assert max(node.bytes_up for node in summary.nodes[3:]) < min(node.bytes_up for node in summary.nodes[:3]) / 4

    own = keras.models.load_model(tmp_path / "run" / "model_mlp.keras").get_weights()
    with np.load(tmp_path / "run" / "round-002.npz") as kept:
        for index, tensor in enumerate(own):
            np.testing.assert_array_equal(kept[f"own_mlp_{index:03d}"], tensor)
    assert '#define MODEL_TIER "mlp"' in (tmp_path / "run" / "model_mlp.h").read_text()

    last = (tmp_path / "run" / "round-002.npz").read_bytes()
    journal = tmp_path / "run" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    first = next(index for index, line in enumerate(lines) if b'"checkpoint_written"' in line)
    journal.write_bytes(b"".join(lines[: first + 1]))
    play(described, programs, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "round-002.npz").read_bytes() == last
