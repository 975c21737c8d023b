"""A run's models as other programs take them: every file is run, and answers as the others do."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import boards
from codegen.planner import plan
from codegen.weights import pack
from coordinator import federation as federation_file
from coordinator.errors import RunFileError, UsageError
from coordinator.events import Evaluated, RunStarted
from coordinator.export import Kept, Written, export, kept, representative
from coordinator.export_files import header_answers, tflite_answers
from coordinator.inprocess.engine import Engine
from coordinator.journal import Journal
from coordinator.results import Inputs, load, trained
from coordinator.state import State

MODEL = """
import keras

def build():
    return keras.Sequential([
        keras.Input((12, 12, 1)),
        keras.layers.Conv2D(8, 3, strides=2, padding="same"),
        keras.layers.LeakyReLU(negative_slope=0.1),
        keras.layers.MaxPooling2D(2),
        keras.layers.Flatten(),
        keras.layers.Dense(4, activation="softmax"),
    ])
"""
FEDERATION = """
name = "patches"
[model]
path = "model.py"
[tiers]
whole = 1.0
half = 0.5
[data]
path = "patches.npz"
samples_per_node = 100
range = [-1.0, 1.0]
[[nodes]]
board = "esp32dev"
[[nodes]]
board = "uno"
"""
TEST_IMAGES = 400


def patches(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return noise in which one quarter is brighter, and which: some are hard to tell."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 4, count)
    images = generator.normal(110, 40, (count, 12, 12))
    for image, label in zip(images, labels, strict=True):
        image[6 * (label // 2) :][:6, 6 * (label % 2) :][:, :6] += 35
    return np.clip(images, 0, 255).astype(np.uint8), labels


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """A federation, in a folder of its own."""
    folder = tmp_path_factory.mktemp("patches")
    (folder / "model.py").write_text(MODEL)
    (folder / "federation.toml").write_text(FEDERATION)
    (x_train, y_train), (x_test, y_test) = patches(450, 1), patches(TEST_IMAGES, 2)
    np.savez(folder / "patches.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return load(federation_file.load(folder / "federation.toml"))


@pytest.fixture(scope="module")
def run(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that kept two rounds: of weights as they began, and of trained ones."""
    model, data = trained(inputs.federation, inputs.weights), inputs.dataset
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(data.decode(data.x_train)[..., None], data.y_train, epochs=8, verbose=0)
    folder = tmp_path_factory.mktemp("runs") / "patches"
    with Journal(folder) as journal:
        journal.write(RunStarted("patches", inputs.fingerprint, 4, (), 0))
        journal.write(journal.save(1, State(inputs.weights)))
        journal.write(journal.save(3, State(model.get_weights())))
    return folder


@pytest.fixture(scope="module")
def last(inputs: Inputs, run: Path) -> Kept:
    return kept(run, inputs)


@pytest.fixture(scope="module")
def written(inputs: Inputs, last: Kept, tmp_path_factory: pytest.TempPathFactory) -> list[Written]:
    return export(inputs, last, tmp_path_factory.mktemp("export"))


def file(written: list[Written], name: str) -> Written:
    return next(each for each in written if Path(each.path).name == name)


def test_every_model_is_written_in_every_format_and_answers_alike(written: list[Written]) -> None:
    names = [Path(each.path).name for each in written]
    stems = ("global", "model_whole", "model_half")
    assert names == [f"{stem}.{suffix}" for stem in stems for suffix in ("keras", "tflite", "h")]
    for keras_file, *others in zip(*[iter(written)] * 3, strict=True):
        assert keras_file.accuracy is not None and 0.3 < keras_file.accuracy < 1
        for other in others:
            assert other.accuracy == pytest.approx(keras_file.accuracy, abs=0.0151), other
    assert file(written, "global.keras").accuracy == file(written, "model_whole.keras").accuracy


PLAIN_KERAS = """
import sys, keras, numpy as np
model = keras.models.load_model(sys.argv[1])
np.save(sys.argv[3], model.predict(np.load(sys.argv[2]), verbose=0))
"""


def test_the_formats_give_the_same_probabilities(
    inputs: Inputs, written: list[Written], tmp_path: Path
) -> None:
    """Keras in a process that knows nothing of this project; TFLite's interpreter; the header on this machine."""
    x = inputs.dataset.decode(inputs.dataset.x_test)[..., None]
    np.save(tmp_path / "x.npy", x)
    path = file(written, "model_half.keras").path
    arguments = [path, str(tmp_path / "x.npy"), str(tmp_path / "y.npy")]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, "-c", PLAIN_KERAS, *arguments], cwd=tmp_path, check=True, env=environment)
    plain = np.load(tmp_path / "y.npy")
    np.testing.assert_allclose(plain.sum(axis=1), 1, atol=1e-5)
    quantised, _ = tflite_answers(Path(file(written, "model_half.tflite").path).read_bytes(), x)
    assert np.abs(quantised - plain).max() < 0.1
    logits = header_answers(Path(file(written, "model_half.h").path), inputs.dataset.x_test) / 256
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    assert np.abs(powers / powers.sum(axis=1, keepdims=True) - plain).max() < 0.1


def test_a_header_has_the_bits_of_the_engine(inputs: Inputs, last: Kept, written: list[Written]) -> None:
    tiers = inputs.federation.tier_list()
    made = plan(boards.load("esp32dev"), inputs.graph, tiers, tiers[0], inputs.federation.plan_settings())
    engine = Engine(made, last.weights)
    engine.weights = pack(made, made.sub_model.cut(last.weights))
    x = inputs.dataset.x_test
    found = header_answers(Path(file(written, "model_whole.h").path), x)
    np.testing.assert_array_equal(found, engine.logits(x.reshape(len(x), -1)))


def test_a_header_computes_as_the_boards_of_its_tier_do_or_as_it_is_told(
    inputs: Inputs, last: Kept, written: list[Written], tmp_path: Path
) -> None:
    kernels = {made.sub_model.tier.name: made.kernel for made in inputs.plans.values()}
    assert kernels == {"whole": "f32", "half": "fixed"}
    for name, kernel in (("model_whole.h", 0), ("model_half.h", 1), ("global.h", 0)):
        assert f"#define MODEL_FIXED {kernel}" in Path(file(written, name).path).read_text()
    (other,) = export(inputs, last, tmp_path, ["half"], ["header"], "f32")
    assert "#define MODEL_FIXED 0" in Path(other.path).read_text()


def test_ranges_are_chosen_by_images_that_no_node_holds(inputs: Inputs) -> None:
    seen = representative(inputs)
    assert seen.words == "200 training images that no node holds"
    assert not (seen.images[:, None] == inputs.dataset.x_test[None]).all(axis=(2, 3)).any()
    with_proxy = replace(inputs, proxy=inputs.dataset.x_train[:30])
    assert representative(with_proxy).words == "the 30 images of the proxy set"


def test_the_round_is_the_best_by_validation_images_unless_it_is_said(inputs: Inputs, tmp_path: Path) -> None:
    with Journal(tmp_path / "run") as journal:
        journal.write(RunStarted("patches", inputs.fingerprint, 4, (), 0))
        for number, right in ((1, 0.6), (2, 0.9), (3, 0.8)):
            journal.write(journal.save(number, State(inputs.weights)))
            journal.write(Evaluated(number, {"whole": right}, images="validation"))
    found = {which: kept(tmp_path / "run", inputs, which).round for which in (None, "best", "last", "1")}
    assert found == {None: 2, "best": 2, "last": 3, "1": 1}


@pytest.mark.parametrize(
    "round, tier, message",
    [
        ("2", "half", "--round 2: expected best, last, or a round that was kept: 1, 3"),
        ("best", "half", "--round best: this run has no validation images"),
        ("3", "tiny", "--tier tiny: no tier of .*federation.toml; expected global, whole, half"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(
    inputs: Inputs, run: Path, tmp_path: Path, round: str, tier: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        export(inputs, kept(run, inputs, round), tmp_path, [tier])


def test_a_folder_that_is_no_run_of_this_federation_is_refused(inputs: Inputs, run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match=r"no run is here .*has patches"):
        kept(run.with_name("other"), inputs)
    with Journal(tmp_path / "young") as journal:
        journal.write(RunStarted("patches", inputs.fingerprint, 4, (), 0))
    with pytest.raises(RunFileError, match="no round of this run is finished yet"):
        kept(tmp_path / "young", inputs)
    with Journal(tmp_path / "stranger") as journal:
        journal.write(RunStarted("patches", "0" * 64, 4, (), 0))
    with pytest.raises(RunFileError, match=r"did not begin with .*--federation"):
        kept(tmp_path / "stranger", inputs)


def test_a_checkpoint_that_was_changed_is_refused(inputs: Inputs, tmp_path: Path) -> None:
    with Journal(tmp_path / "run") as journal:
        journal.write(RunStarted("patches", inputs.fingerprint, 4, (), 0))
        journal.write(journal.save(1, State(inputs.weights)))
    checkpoint = tmp_path / "run" / "round-001.npz"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1] + b"x")
    with pytest.raises(RunFileError, match="absent, or not as the run wrote it"):
        kept(tmp_path / "run", inputs)
