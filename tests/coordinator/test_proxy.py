"""Which images all share."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.data import load_dataset
from coordinator.errors import DataError
from coordinator.federation import Federation, parse
from coordinator.shares import deal, proxy_images, validation_share

SAMPLES, NODES, EACH = 40, 3, 8


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set whose every image is its own index; other images count down from 255."""
    x = np.arange(SAMPLES, dtype=np.uint8).reshape(-1, 1, 1)
    np.savez(tmp_path / "data.npz", x_train=x, y_train=np.arange(SAMPLES) % 4, x_test=x, y_test=np.arange(SAMPLES) % 4)
    others = (255 - np.arange(30, dtype=np.uint8)).reshape(-1, 1, 1)
    np.savez(tmp_path / "proxy.npz", x_proxy=others)
    np.savez(tmp_path / "labelled.npz", x_train=others, y_train=np.zeros(3))
    np.savez(tmp_path / "wide.npz", x_proxy=np.zeros((30, 2, 2), np.uint8))
    np.savez(tmp_path / "none.npz", x=others)
    (tmp_path / "text.npz").write_text("images")
    return tmp_path


def described(
    folder: Path, seed: int = 1, each: int = EACH, split: str = "iid", validation: int = 0, **proxy: Any
) -> Federation:
    document = {
        "name": "f", "seed": seed, "model": {"path": "m.py"}, "nodes": [{"board": "uno", "count": NODES}],
        "data": {"path": "data.npz", "samples_per_node": each, "split": split, "validation": validation},
        "proxy": proxy,
    }  # fmt: skip
    return parse(document, "", folder / "federation.toml")


def drawn(federation: Federation) -> tuple[list[int], set[int]]:
    """The proxy images, and the samples that nodes hold."""
    dataset = load_dataset(federation.data_path)
    held = {int(image) for share in deal(federation).values() for image in share.x[:, 0, 0]}
    return proxy_images(federation, dataset)[:, 0, 0].tolist(), held


@pytest.mark.parametrize("split", ["iid", "shards", "dirichlet"])
def test_no_node_holds_a_proxy_image(folder: Path, split: str) -> None:
    images, held = drawn(described(folder, split=split, images=16))
    assert len(set(images)) == 16 and not held & set(images) and len(held) == NODES * EACH


def test_the_seed_draws_the_order_whatever_the_nodes_hold(folder: Path) -> None:
    most, _ = drawn(described(folder, images=16))
    fewer, _ = drawn(described(folder, images=10))
    assert most[:10] == fewer
    assert drawn(described(folder, seed=2, images=16))[0] != most
    held_less, _ = drawn(described(folder, each=4, images=28))
    assert [image for image in held_less if image in most] == most


def test_validation_images_are_no_proxy_images(folder: Path) -> None:
    federation = described(folder, images=6, validation=10)
    kept = validation_share(federation, load_dataset(federation.data_path))
    images, held = drawn(federation)
    assert kept is not None
    assert sorted([*images, *held, *kept.x[:, 0, 0].tolist()]) == list(range(SAMPLES))


def test_every_node_is_dealt_the_same_proxy_images(folder: Path) -> None:
    federation = described(folder, images=5)
    shares = deal(federation)
    for share in shares.values():
        assert share.proxy[:, 0, 0].tolist() == drawn(federation)[0]


@pytest.mark.parametrize("path", ["proxy.npz", "labelled.npz"])
def test_images_of_another_file(folder: Path, path: str) -> None:
    images, _ = drawn(described(folder, images=30, path=path))
    assert sorted(images) == list(range(226, 256)) != images
    assert drawn(described(folder, images=0, path=path))[0] == []


WRONG = [
    ({"images": 17}, r"data.npz: the nodes leave 16 of its 40 training images, but \[proxy\] images is 17; set images "
     r"to 16 or less, or samples_per_node to 7 or less, or name other images as \[proxy\] path"),
    ({"images": 31, "path": "proxy.npz"}, r"proxy.npz: 30 images, but \[proxy\] images is 31; set it to 30 or less"),
    ({"path": "wide.npz"}, r"wide.npz: images of shape \(2, 2\); expected \(1, 1\), as .*data.npz has"),
    ({"path": "none.npz"}, r"none.npz: no array 'x_proxy', nor 'x_train'; expected images under one of these names"),
    ({"path": "text.npz"}, r"text.npz: damaged .*; expected an .npz with an array x_proxy"),
    ({"path": "absent.npz"}, r"absent.npz: No such file or directory; expected an .npz of images \(\[proxy\] path\)"),
]  # fmt: skip


@pytest.mark.parametrize(("proxy", "said"), WRONG)
def test_what_cannot_be_the_proxy_set_is_said(folder: Path, proxy: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        drawn(described(folder, **proxy))
