"""Who gets which samples."""

import numpy as np

from boards import PROJECT_ROOT
from coordinator.data import load_dataset
from coordinator.federation import load
from coordinator.shares import deal


def test_every_node_gets_samples_of_its_own_with_their_labels() -> None:
    federation = load(PROJECT_ROOT / "examples" / "mnist" / "federation.toml")
    dataset = load_dataset(federation.data_path)
    place = {image.tobytes(): at for at, image in enumerate(dataset.x_train)}
    shares = deal(federation)
    assert list(shares) == [spec.name for spec in federation.nodes()]
    dealt = [place[image.tobytes()] for share in shares.values() for image in share.x]
    assert len(set(dealt)) == len(dealt) == 11 * 900
    np.testing.assert_array_equal(dataset.y_train[dealt], np.concatenate([share.y for share in shares.values()]))
