"""Whole runs in virtual time, with faults drawn from seeds and with one at every place there is."""

from pathlib import Path

import numpy as np
import pytest

from simulation.faults import Fault, draw
from simulation.judge import COMPLETED, judge
from simulation.world import World


def play(small: World, folder: Path, *faults: Fault, seed: int = 0) -> str:
    folder.mkdir()
    return judge(small, small.play(faults, folder, seed), folder)


def test_an_undisturbed_run_is_completed_in_one_part(small: World, tmp_path: Path) -> None:
    ending = small.play((), tmp_path)
    assert (ending.parts, ending.answered) == ([""], (tuple(small.names),) * 2)
    assert judge(small, ending, tmp_path) == COMPLETED
    before, after = small.inputs.weights, ending.state.weights
    assert any(not np.array_equal(old, new) for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize("seed", [3, 41])
def test_a_seed_replays_exactly(small: World, tmp_path: Path, seed: int) -> None:
    faults, endings = draw(seed, small.extent), []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        endings.append(small.play(faults, tmp_path / name, seed))
    first, second = endings
    assert (first.seconds, first.injected, first.answered, first.extent) == (
        second.seconds, second.injected, second.answered, second.extent,
    )  # fmt: skip
    assert [repr(event) for event in first.events] == [repr(event) for event in second.events]


@pytest.mark.parametrize("part", range(4))
def test_drawn_faults_end_as_they_must(small: World, tmp_path: Path, part: int) -> None:
    for seed in range(40 * part, 40 * part + 40):
        try:
            play(small, tmp_path / str(seed), *draw(seed, small.extent), seed=seed)
        except BaseException as error:
            error.add_note(f"replay it: python -m simulation.campaign --seed {seed}")
            raise
