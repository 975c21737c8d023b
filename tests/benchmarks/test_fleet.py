"""The benchmark of unlike boards: whose images are whose, what a row says, and that a run of it counts every node."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from benchmarks import fleet_run
from benchmarks.attackers import Attackers
from benchmarks.fleet import Figure, Job, table
from benchmarks.fleet_methods import FLEET, METHODS, SMALL, SPLITS, TIERS, Variant, best_of, variants
from benchmarks.fleet_run import NODES, SPARE, VALIDATION, Member, run, write_data
from coordinator.data import load_dataset
from coordinator.shares import Share
from tests.coordinator.inprocess.test_node import CLASSES, an_engine, an_order, bars

EACH = 40


def a_data_set(path: Path, first: int = 0) -> Path:
    """Write so many images of a bright stripe, whose place is the label, that each node has EACH behind the `first`;
    their first pixels number them."""
    count = first + NODES * EACH + SPARE
    labels = (np.arange(count) * 7 % 10).astype(np.uint8)
    images = np.zeros((count, 28, 28), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 * label + 2 : 2 * label + 4] = 200
    images[:, 0, :2] = np.stack(np.divmod(np.arange(count), 256), axis=1)
    np.savez(path, x_train=images, y_train=labels, x_test=images[:200], y_test=labels[:200])
    return path


def numbers(images: np.ndarray) -> set[int]:
    return {int(high) * 256 + int(low) for high, low in images[:, 0, :2]}


@pytest.mark.parametrize("split", SPLITS)
def test_nobody_holds_another_s_image_nor_one_that_settings_are_chosen_by(split: str, tmp_path: Path) -> None:
    source = a_data_set(tmp_path / "whole.npz", VALIDATION)
    assert write_data(split, 1, source, True, tmp_path / "dealt.npz") == EACH
    dealt = load_dataset(tmp_path / "dealt.npz")
    assert dealt.owner_train is not None and np.bincount(dealt.owner_train).tolist() == [EACH] * NODES + [SPARE]
    held = numbers(dealt.x_train)
    assert len(held) == NODES * EACH + SPARE and min(held) >= VALIDATION
    assert numbers(dealt.x_test) == set(range(VALIDATION))
    if split == "tier":
        nodes = {name: np.flatnonzero(np.array(FLEET) == name) for name in TIERS}
        high = {name: set(dealt.y_train[np.isin(dealt.owner_train, nodes[name])] >= 5) for name in TIERS}
        assert high == {name: {name not in SMALL} for name in TIERS}


def test_a_run_takes_every_node_on_its_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fleet_run.TRAINING, "rounds", 3)
    source = a_data_set(tmp_path / "whole.npz")
    found = run("iid", Variant(), 1, source, False, tmp_path)
    assert list(found) == list(TIERS) and found["expanded"] > 90
    mixed = Variant(small="fixed", aggregation={"method": "hybrid"}, proxy=40)
    assert list(run("shards", mixed, 1, source, False, tmp_path)) == list(TIERS)
    assert run("iid", Variant(("micro",) * NODES, judged="micro"), 1, source, False, tmp_path).keys() == {"micro"}


def test_an_attacker_sends_what_it_did_not_learn() -> None:
    engine, share = an_engine("f32"), Share(*bars(), CLASSES)
    order, liars = an_order(engine.weights), Attackers(frozenset({1}), "flip")
    honest, lied = (
        asyncio.run(Member("a", engine, share, liars, index).train(order)).delta for index in (0, 1)
    )
    assert [(-tensor).tobytes() for tensor in lied] == [tensor.tobytes() for tensor in honest]


def test_a_row_has_the_best_of_its_variants_in_each_tier() -> None:
    def job(variant: str, seed: int) -> Job:
        return Job("iid", variant, seed, Path(), False)

    plain, masked = best_of("all_expanded")
    found = {
        job(plain, 1): {"expanded": 90.0}, job(plain, 2): {"expanded": 92.0},
        job(masked, 1): {"expanded": 91.5}, job(masked, 2): {"expanded": 91.5},
    }  # fmt: skip
    assert table(found, ["all_expanded"]) == {"iid": {"all_expanded": {"expanded": Figure(91.5, 0.0)}}}
    assert table({job(plain, 1): {"expanded": 90.0}, job(masked, 1): {"expanded": 89.0}}, ["all_expanded"]) == {
        "iid": {"all_expanded": {"expanded": Figure(90.0, 0.0)}}
    }


def test_all_rows_have_ten_nodes() -> None:
    assert all(len(variant.tiers) == NODES for variant in variants().values())
    asked = "all_expanded only_large substructure distillation hybrid default default_1000 default_0"
    assert set(asked.split()) <= set(METHODS)
