"""Who gets which samples."""

from pathlib import Path

import numpy as np
import pytest

from boards import PROJECT_ROOT
from coordinator.data import load_dataset
from coordinator.errors import DataError
from coordinator.federation import load
from coordinator.shares import deal, validation_share


def test_every_node_gets_samples_of_its_own_with_their_labels() -> None:
    federation = load(PROJECT_ROOT / "examples" / "mnist" / "federation.toml")
    dataset = load_dataset(federation.data_path)
    place = {image.tobytes(): at for at, image in enumerate(dataset.x_train)}
    shares = deal(federation)
    assert list(shares) == [spec.name for spec in federation.nodes()]
    dealt = [place[image.tobytes()] for share in shares.values() for image in share.x]
    assert len(set(dealt)) == len(dealt) == 11 * 900
    np.testing.assert_array_equal(dataset.y_train[dealt], np.concatenate([share.y for share in shares.values()]))


OWNED = """
name = "owned"
model = { path = "model.py" }
data = { path = "data.npz", samples_per_node = 2, split = "owner" }
nodes = [{ board = "uno", count = 2 }]
"""


def owned(folder: Path, owners: list[int] | None, validation: int = 0) -> list[list[int]]:
    """Deal six samples, of features 0 to 5, whose owners these are."""
    arrays = {"x_train": np.arange(6, dtype=np.uint8)[:, None], "y_train": np.arange(6) % 2}
    owner = {} if owners is None else {"owner_train": np.array(owners)}
    np.savez(folder / "data.npz", x_test=arrays["x_train"], y_test=arrays["y_train"], **arrays, **owner)  # type: ignore[arg-type]
    (folder / "federation.toml").write_text(OWNED.replace('"owner"', f'"owner", validation = {validation}'))
    return [share.x[:, 0].tolist() for share in deal(load(folder / "federation.toml")).values()]


def test_an_owner_gets_the_first_samples_of_its_own(tmp_path: Path) -> None:
    assert owned(tmp_path, [1, 0, 2, 1, 0, 1]) == [[1, 4], [0, 3]]


@pytest.mark.parametrize(
    ("owners", "said"),
    [
        (None, r"data.npz: no array 'owner_train', which split = \"owner\" of \[data\] asks for"),
        ([1, 0, 2, 1, 2, 1], r"owner_train gives node 0 1 samples; expected samples_per_node = 2"),
        ([1, 0, 0, 1, 0], r"data.npz: owner_train has 5 labels for 6 samples"),
        ([-1, 0, 0, 1, 0, 1], r"data.npz: owner_train has label -1 at sample 0"),
    ],
)
def test_owners_that_cannot_be_followed_are_refused(tmp_path: Path, owners: list[int] | None, said: str) -> None:
    with pytest.raises(DataError, match=said):
        owned(tmp_path, owners)


@pytest.mark.parametrize("split", ["iid", "dirichlet", "shards", "owner"])
def test_validation_images_are_nobodys(tmp_path: Path, split: str) -> None:
    """Each sample is its own number; owners have as many as they need without those kept back."""
    numbers = np.arange(200, dtype=np.uint8)
    arrays = {"x_train": numbers[:, None], "y_train": numbers % 2, "owner_train": numbers % 2}
    np.savez(tmp_path / "data.npz", x_test=arrays["x_train"], y_test=arrays["y_train"], **arrays)  # type: ignore[arg-type]
    text = OWNED.replace('"owner"', f'"{split}", validation = 50').replace("node = 2", "node = 60")
    (tmp_path / "federation.toml").write_text(text)
    federation = load(tmp_path / "federation.toml")
    held = [set(share.x[:, 0].tolist()) for share in deal(federation).values()]
    kept = validation_share(federation, load_dataset(federation.data_path))
    assert kept is not None
    np.testing.assert_array_equal(kept.y, kept.x[:, 0] % 2)
    assert len(set(kept.x[:, 0].tolist())) == 50 and [len(each) for each in held] == [60, 60]
    assert not set(kept.x[:, 0].tolist()) & (held[0] | held[1])


def test_too_many_validation_images_are_refused(tmp_path: Path) -> None:
    for validation, said in ((6, r"\[data\] validation = 6, but the data set has 6 to train on"), (3, "gives node")):
        with pytest.raises(DataError, match=said):
            owned(tmp_path, [1, 0, 0, 1, 0, 1], validation)
