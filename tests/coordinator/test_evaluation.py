"""Accuracy of slices against Keras models of the same slices, and fast enough."""

import subprocess
import sys
import time

import numpy as np

from boards import PROJECT_ROOT
from codegen.model_file import load_graph, load_keras
from codegen.tiers import DEFAULT_TIERS, channel_order, sub_model, tiers_from
from coordinator.evaluation import Evaluator, accuracy, per_class

MODEL = PROJECT_ROOT / "examples" / "mnist" / "model.py"


def test_the_whole_model_is_keras(seconds: float = 1.5) -> None:
    graph, weights = load_graph(MODEL, None, 1)
    rng = np.random.default_rng(0)
    images = rng.random((10_000, 28, 28), np.float32)
    labels = load_keras(MODEL, 1).predict(images[..., None], batch_size=2000, verbose=0).argmax(axis=1)
    evaluator = Evaluator(images, labels, graph)
    cuts = [sub_model(graph, tier) for tier in tiers_from(DEFAULT_TIERS)]
    first = evaluator.accuracy(cuts, weights)
    assert first["expanded"] == 1.0 and 0.0 <= first["micro"] < 1.0
    begun = time.process_time()
    assert evaluator.accuracy(cuts, weights) == first
    assert time.process_time() - begun < 2 * seconds  # of two cores
    assert evaluator.accuracy(cuts, [weight * 0 for weight in weights])["expanded"] == (labels == 0).mean()


def test_a_slice_is_what_it_keeps() -> None:
    """Zeroing what a tier does not hold leaves its accuracy alone; so does permuting with the slices."""
    graph, weights = load_graph(MODEL, None, 1)
    rng = np.random.default_rng(0)
    images, labels = rng.random((500, 28, 28), np.float32), rng.integers(0, 10, 500)
    evaluator = Evaluator(images, labels, graph)
    for select in ("prefix", "rolling", "importance"):
        cut = sub_model(graph, tiers_from({"half": 0.5})[0], channel_order(graph, select, 3, weights))
        alone = [np.zeros_like(weight) for weight in weights]
        for whole, weight, axes in zip(alone, weights, cut.slices, strict=True):
            whole[np.ix_(*axes)] = weight[np.ix_(*axes)]
        assert evaluator.accuracy([cut], alone) == evaluator.accuracy([cut], weights)


def test_what_is_taken_for_what_is_counted() -> None:
    """Against Keras's own answers, counted one by one."""
    graph, weights = load_graph(MODEL, None, 1)
    rng = np.random.default_rng(0)
    images, labels = rng.random((2500, 28, 28), np.float32), rng.integers(0, 9, 2500)  # none of the last class
    answers = load_keras(MODEL, 1).predict(images[..., None], batch_size=2500, verbose=0).argmax(axis=1)
    cut = sub_model(graph, tiers_from({"all": 1.0})[0])
    counted = Evaluator(images, labels, graph).confusion([cut], weights)["all"]
    expected = np.zeros((10, 10), int)
    for label, answer in zip(labels, answers, strict=True):
        expected[label, answer] += 1
    np.testing.assert_array_equal(counted, expected)
    assert accuracy(counted) == (labels == answers).mean()
    *shares, last = per_class(counted)
    assert last is None
    assert shares == [round(float((answers[labels == at] == at).mean()), 4) for at in range(9)]


def test_tensorflow_does_not_greet_the_user() -> None:
    load_graph(MODEL, None, 1)  # from now on cached, so that nothing but the evaluation needs TensorFlow
    script = (
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from codegen.model_file import load_graph\n"
        "from codegen.tiers import Tier, sub_model\n"
        "from coordinator.evaluation import Evaluator\n"
        f"graph, weights = load_graph(Path({str(MODEL)!r}), None, 1)\n"
        "evaluator = Evaluator(np.zeros((1, 28, 28), np.float32), np.zeros(1), graph)\n"
        "tiers = [Tier(f't{at}', at / 8, None) for at in range(1, 9)]\n"  # of so many it warns that it compiles
        "evaluator.accuracy([sub_model(graph, tier) for tier in tiers], weights)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""
