"""A model of a node's own: read, planned, generated, and taught by what all models say of the proxy set."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from boards import PROJECT_ROOT
from codegen.graph import Graph, ModelError
from codegen.planner import PlanError, Training
from codegen.tiers import Tier, sub_model
from coordinator import federation
from coordinator.aggregation import Contribution, Weights
from coordinator.aggregation.ensemble import HostModel
from coordinator.federation import Aggregation, Federation, Proxy
from coordinator.global_model import global_model, own_models
from coordinator.joining import GLOBAL, Joiner
from coordinator.results import load
from coordinator.state import State
from tests.coordinator.test_cli import _run
from tests.coordinator.test_rounds import GRAPH, OWN, draw, weights

MIXED = PROJECT_ROOT / "examples" / "mixed" / "federation.toml"


def described(folder: Path, own: str, board: str = "megaatmega2560") -> Federation:
    """The example with another model of a node's own."""
    text = MIXED.read_text().replace('"../', f'"{MIXED.parent.parent}/').replace("count = 3", "").split("[[nodes]]")[:2]
    node = f'\nboard = "{board}"\nmodel = "own.py"\n'
    (folder / "own.py").write_text(own)
    (folder / "federation.toml").write_text("[[nodes]]".join([*text, node]).replace("min_nodes = 3", ""))
    return federation.load(folder / "federation.toml")


def test_each_kind_of_node_has_a_plan() -> None:
    inputs = load(federation.load(MIXED))
    tiers = {kind: (plan.board.id, plan.sub_model.tier.name) for kind, plan in inputs.plans.items()}
    assert tiers == {
        "esp32dev": ("esp32dev", "expanded"),
        "megaatmega2560+mlp": ("megaatmega2560", "mlp"),
    }
    assert inputs.plans["megaatmega2560+mlp"].sub_model.graph == inputs.own["mlp"].graph
    assert inputs.shapes.own == {"mlp": [tensor.shape for tensor in inputs.own["mlp"].weights]}
    assert list(inputs.state.own) == ["mlp"]


def test_nodes_of_one_board_may_have_different_models(tmp_path: Path) -> None:
    settings = described(tmp_path, (MIXED.parent / "mlp.py").read_text(), "esp32dev")
    assert [(spec.name, spec.kind) for spec in settings.nodes()] == [
        ("esp32dev-1", "esp32dev"), ("esp32dev-2", "esp32dev+own")
    ]  # fmt: skip
    plans = load(settings).plans
    assert plans["esp32dev"].model_hash != plans["esp32dev+own"].model_hash


DENSE = """
import keras

def build():
    return keras.Sequential([keras.Input({shape}), keras.layers.Dense({classes}, name="logits")])
"""


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (DENSE.format(shape=(783,), classes=10), "own.py: takes 783 features to 10 classes; expected 784"),
        (DENSE.format(shape=(784,), classes=9), "own.py: takes 784 features to 9 classes; expected 784 and"),
        ("build = 1", "own.py: build() returned NoneType"),
    ],
)
def test_what_cannot_learn_from_the_same_samples_is_refused(tmp_path: Path, model: str, said: str) -> None:
    settings = described(tmp_path, model)
    with pytest.raises(ModelError) as refusal:
        own_models(settings, global_model(settings).graph)
    assert said in str(refusal.value)


def test_what_does_not_fit_is_refused_by_its_bytes(tmp_path: Path) -> None:
    large = DENSE.format(shape=(784,), classes=10)
    said = r"tier own needs [\d,]+ bytes of RAM more than uno has; no tier fits: make the model smaller"
    with pytest.raises(PlanError, match=said):
        load(described(tmp_path, large, "uno"))


def test_plan_and_generate_know_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    boards = ("-b", "esp32dev", "-b", "megaatmega2560", "-b", "uno")
    code, out, _ = _run(["plan", "--json", *boards, "-f", str(MIXED)], capsys)
    rows = json.loads(out)
    assert code == 0 and [row["tier"] for row in rows] == ["expanded", "base", "mlp"] * 3
    assert [(row["board"], row["tier"]) for row in rows if row["chosen"]] == [
        ("esp32dev", "expanded"), ("megaatmega2560", "mlp")
    ]  # fmt: skip
    build = ["generate", "-b", "esp32dev", "-f", str(MIXED), "-o", str(tmp_path)]
    for model, tier in ((["--model", "mlp.py"], "mlp"), ([], "expanded")):
        assert _run([*build, *model], capsys)[0] == 0
        assert f'#define MODEL_TIER "{tier}"' in (tmp_path / "model.h").read_text()
    code, _, err = _run([*build, "--model", "other.py"], capsys)
    assert code == 2 and "--model other.py: no node of" in err


def says(graph: Graph, tensors: Weights, images: np.ndarray) -> np.ndarray:
    """Centred logits in float64."""
    x = images.reshape(len(images), -1) / 255
    for layer, (kernel, bias) in zip(graph.layers, zip(tensors[::2], tensors[1::2], strict=True), strict=True):
        x = x @ kernel.astype(np.float64) + bias
        x = np.where(x < 0, layer.slope * x, x)
    return np.asarray(x - x.mean(axis=1, keepdims=True))


def shares(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def test_models_that_share_nothing_learn_from_each_other() -> None:
    images = np.random.default_rng(1).integers(0, 256, (40, 12), np.uint8)
    state = State(weights(), own={"own": draw(OWN)})
    tiers = {GLOBAL: (GRAPH, Tier("expanded", 1.0), state.weights), "own": (OWN, Tier("own", 1.0), state.own["own"])}
    models = {name: partial(HostModel, graph, [tier], start) for name, (graph, tier, start) in tiers.items()}
    joiner = Joiner(
        GRAPH, Aggregation(method="hybrid"), Proxy(images=40, epochs=60, learning_rate=0.03), images,
        lambda: {name: made(Training()) for name, made in models.items()},
    )  # fmt: skip
    contributions = [
        Contribution(name, sub_model(graph, tier), [0 * tensor for tensor in start], 10, (4, 3, 3))
        for name, (graph, tier, start) in tiers.items()
    ]
    joined = joiner.join(1, state, contributions).state
    wanted = shares(np.mean([says(graph, start, images) for graph, _, start in tiers.values()], axis=0))
    assert joined.targets is not None
    np.testing.assert_allclose(joined.targets / 255, wanted, atol=1.01 / 255)
    for graph, before, after in ((GRAPH, state.weights, joined.weights), (OWN, state.own["own"], joined.own["own"])):
        apart = [np.abs(shares(says(graph, tensors, images)) - wanted).mean() for tensors in (before, after)]
        assert apart[1] < apart[0] / 2
