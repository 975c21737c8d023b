"""What a round's contributions come to, by every method, and that nothing else decides it than the state."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from codegen.tiers import sub_model
from coordinator.aggregation import Contribution
from coordinator.aggregation.distillation import Lesson, distil
from coordinator.aggregation.ensemble import Ensemble, rebuilt
from coordinator.aggregation.server import Server
from coordinator.aggregation.substructure import Substructure
from coordinator.errors import RunFailed
from coordinator.federation import Aggregation, Proxy
from coordinator.joining import GLOBAL, Joiner
from coordinator.state import Shapes, State, read_state
from tests.coordinator.test_distillation import GRAPH, IMAGES, TIERS, host, weights

UNLIKE, ALIKE = ((900, 50, 50), (50, 900, 50), (50, 50, 900)), ((300, 300, 400),) * 3
WIDE_ONLY = ((8000, 1, 1), (1, 1000, 1), (1, 1, 1000))  # wide nodes see hardly any of label 0
EPOCHS = 2
PROXY = Proxy(images=len(IMAGES), epochs=EPOCHS)


def contributions(number: int = 1, labels: Any = UNLIKE) -> list[Contribution]:
    rng, made = np.random.default_rng(number), []
    for node, tier, counts in zip("abc", (TIERS[0], TIERS[1], TIERS[1]), labels, strict=True):
        cut = sub_model(GRAPH, tier)
        delta = [rng.normal(0, 0.1, each.shape).astype(np.float32) for each in cut.graph.tensors if each.trainable]
        made.append(Contribution(node, cut, delta, 1000, counts))
    return made


def joiner(images: np.ndarray = IMAGES, proxy: Proxy = PROXY, **aggregation: Any) -> Joiner:
    return Joiner(GRAPH, Aggregation(**aggregation), proxy, images, lambda: {GLOBAL: host()}, 7)


@pytest.mark.parametrize(
    ("asked", "images", "labels", "chosen", "why"),
    [
        ("auto", IMAGES[:0], UNLIKE, "substructure", "there is no proxy set"),
        ("auto", IMAGES, ALIKE, "hybrid", "the ensemble does of less than 96% of the proxy images"),
        ("auto", IMAGES, WIDE_ONLY, "hybrid", r"other labels than all have \(skew 0.7\d ≥ 0.45\)"),
        ("hybrid", IMAGES, ALIKE, "hybrid", "as the federation file has it"),
        ("distillation", IMAGES, ALIKE, "distillation", "as the federation file has it"),
        ("substructure", IMAGES, UNLIKE, "substructure", "as the federation file has it"),
    ],
)
def test_the_labels_choose_unless_the_file_does(asked: Any, images: Any, labels: Any, chosen: str, why: str) -> None:
    joined = joiner(images, method=asked).join(1, State(weights(1)), contributions(labels=labels))
    assert joined.choice.method == chosen
    assert re.search(why, joined.choice.reason)


def test_models_that_share_nothing_are_always_distilled() -> None:
    own = {TIERS[0].name: sub_model(GRAPH, TIERS[0]).cut(weights(1))}
    state = State(weights(1), own=own)
    choice = joiner().choose(state, contributions(labels=ALIKE), state.weights, targets(state))
    assert (choice.method, choice.reason[:36]) == ("hybrid", "some nodes have models of their own,")


def test_a_mean_that_says_what_the_ensemble_does_is_not_distilled() -> None:
    state = State(weights(1))
    same = [replace(each, delta=[0 * part for part in each.delta]) for each in contributions(labels=ALIKE)]
    joined = joiner().join(1, state, [each for each in same if each.sub_model.tier == TIERS[1]])
    assert joined.choice.method == "substructure" and joined.state.targets is not None
    assert joined.state.weights[0].tobytes() == state.weights[0].tobytes()


def mean(state: State) -> list[np.ndarray]:
    rule = Substructure(GRAPH, state.weights)
    for each in contributions():
        rule.add(each)
    return rule.result()


def targets(state: State) -> np.ndarray:
    ensemble = Ensemble()
    for each in contributions():
        ensemble.add(host().logits(each.sub_model, rebuilt(each, state.weights), IMAGES))
    return ensemble.targets()


@pytest.mark.parametrize("method", ["substructure", "hybrid", "distillation"])
def test_each_method_is_made_of_its_parts(method: Any) -> None:
    state = State(weights(1))
    start = state.weights if method == "distillation" else mean(state)
    said = targets(state)
    expected = start
    if method != "substructure":
        expected = distil(host(), start, IMAGES, said, Lesson(EPOCHS, PROXY.learning_rate, (7, 3)))
    found = joiner(method=method).join(3, state, contributions()).state
    assert found.content() == State(expected, said).content()
    unrehearsed = PROXY.model_copy(update={"rehearsals": 0})
    lazy = joiner(method=method, proxy=unrehearsed).join(3, state, contributions()).state
    assert (lazy.targets is None) == (method == "substructure")


EVERYTHING: dict[str, Any] = {"method": "hybrid", "server": "adam", "average": 0.5}


def test_rounds_after_a_checkpoint_come_to_the_same_bits() -> None:
    shapes = Shapes([tensor.shape for tensor in GRAPH.tensors], (len(IMAGES), GRAPH.classes))
    whole, parted = State(weights(1)), State(weights(1))
    one = joiner(**EVERYTHING)
    for number in (1, 2, 3):
        whole = one.join(number, whole, contributions(number)).state
        parted = joiner(**EVERYTHING).join(number, parted, contributions(number)).state
        kept = read_state(parted.content(), shapes)
        assert kept is not None
        parted = kept
    assert whole.content() == parted.content()
    assert len(whole.server) == 2 and whole.targets is not None
    assert whole.average is not None and whole.result[2].tobytes() != whole.weights[2].tobytes()


def test_the_server_steps_before_distillation() -> None:
    state = State(weights(1))
    stepped, moments = Server("momentum", 0.5, 0.9).step(state.weights, mean(state), ())
    lesson = Lesson(EPOCHS, PROXY.learning_rate, (7, 1))
    found = joiner(method="hybrid", server="momentum", server_learning_rate=0.5).join(1, state, contributions()).state
    assert found.server[0][2].tobytes() == moments[0][2].tobytes()
    expected = distil(host(), stepped, IMAGES, targets(state), lesson)
    assert State(found.weights).content() == State(expected).content()


def test_weights_without_end_end_the_run() -> None:
    bad = [replace(each, delta=[part * np.float32(1e38) for part in each.delta]) for each in contributions()]
    with (
        np.errstate(over="ignore", invalid="ignore"),
        pytest.raises(RunFailed, match="round 2 ended in weights that are not finite; lower learning_rate of"),
    ):
        joiner(method="substructure", server="momentum", server_learning_rate=1e30, images=IMAGES[:0]).join(
            2, State(weights(1)), bad
        )
