"""From a round's contributions to the next state, as [aggregation] and [proxy] have it. Blocks: for a worker thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from codegen.graph import Graph
from codegen.tiers import SubModel
from coordinator.aggregation import Contribution, Weights
from coordinator.aggregation.robust import aggregator
from coordinator.aggregation.server import Server, averaged
from coordinator.aggregation.weighting import weighted
from coordinator.errors import RunFailed
from coordinator.federation import Aggregation, Method, Proxy
from coordinator.skew import APART, skew
from coordinator.state import State, Targets

if TYPE_CHECKING:
    from coordinator.aggregation.ensemble import HostModel, Images
    from coordinator.results import Inputs

AGREED = 0.96  # share of the proxy images of which the mean says what the ensemble does: distillation adds nothing
PASSES = 8000  # images that a distillation goes over, if the file does not say how often
GLOBAL = ""  # where a model that nodes have of their own has its name


@dataclass(frozen=True)
class Choice:
    """What a round's contributions are joined by, and why that, in words that follow it and a colon."""

    method: Method  # never auto
    reason: str


@dataclass(frozen=True)
class Joined:
    """What a round's contributions came to."""

    state: State
    choice: Choice


def model_of(cut: SubModel, state: State) -> str:
    """Return which model a sub-model is of: one that its node has of its own, or GLOBAL."""
    return cut.tier.name if cut.tier.name in state.own else GLOBAL


class Joiner:
    """Joins the contributions of a round, which are in the order of the federation file. The same ones give the same
    bits; nothing is kept from one round to the next but compiled code."""

    def __init__(
        self,
        graph: Graph,
        aggregation: Aggregation = Aggregation(),  # noqa: B008 - it is frozen
        proxy: Proxy = Proxy(images=0),  # noqa: B008
        images: Images | None = None,
        models: Callable[[], Mapping[str, HostModel]] = dict,
        seed: int = 0,
    ) -> None:
        """Take the proxy images and what compiles the models that are to say something of them: the global one and
        those that nodes have of their own, by name."""
        self._graph, self._aggregation, self._proxy, self._seed = graph, aggregation, proxy, seed
        self._images = np.zeros((0,), np.uint8) if images is None else images
        self._compile = models
        self._compiled: Mapping[str, HostModel] | None = None
        self._lock = threading.Lock()
        rule, rate = aggregation.server, aggregation.server_learning_rate
        self._server = Server(rule, rate, aggregation.server_momentum)

    def warm(self) -> None:
        """Compile what will be needed; the first round's training hides it. Raises CompilerError."""
        if len(self._images):
            self._models()

    def _models(self) -> Mapping[str, HostModel]:
        with self._lock:
            if self._compiled is None:
                self._compiled = self._compile()
            return self._compiled

    def choose(
        self, state: State, contributions: Sequence[Contribution], weights: Weights, targets: Targets | None
    ) -> Choice:
        """Return the method of a round that began with `state`: the contributions' mean is `weights`, and `targets` is
        what their ensemble says of the proxy images."""
        asked = self._aggregation.method
        if asked != "auto":
            return Choice(asked, "as the federation file has it")
        if targets is None:
            return Choice("substructure", "there is no proxy set")
        if any(model_of(each.sub_model, state) != GLOBAL for each in contributions):
            return Choice("hybrid", "some nodes have models of their own, which have no mean with the others")
        sizes = [each.sub_model.graph.parameters for each in contributions]
        found = skew([each.label_counts for each in contributions], sizes)
        if found >= APART:
            return Choice("hybrid", f"some tiers learn from other labels than all have (skew {found:.2f} ≥ {APART:g})")
        model = self._models()[GLOBAL]
        model.load(weights)
        alike = float((model.engine.logits(self._images).argmax(1) == targets.argmax(1)).mean())
        if alike >= AGREED:
            return Choice("substructure", f"the mean says what the ensemble does of {AGREED:.0%} of the proxy images")
        return Choice("hybrid", f"the mean says what the ensemble does of less than {AGREED:.0%} of the proxy images")

    def join(self, number: int, state: State, contributions: Sequence[Contribution]) -> Joined:
        """Return the state after round `number`, which began with `state`. Raises CompilerError, and RunFailed if
        its weights are not finite."""
        models = {GLOBAL: state.weights, **state.own, **self._means(state, contributions)}
        stepped, server = self._server.step(state.weights, models[GLOBAL], state.server)
        targets = self._targets(state, contributions) if self._teaches() else None
        choice = self.choose(state, contributions, stepped, targets)
        if choice.method == "distillation":
            models, server = {GLOBAL: state.weights, **state.own}, state.server
        else:
            models[GLOBAL] = stepped
        if targets is not None and choice.method != "substructure":
            models = {name: self._distilled(number, name, weights, targets) for name, weights in models.items()}
        if not all(np.isfinite(tensor).all() for weights in models.values() for tensor in weights):
            raise RunFailed(
                f"round {number} ended in weights that are not finite; lower learning_rate of [proxy], or "
                "server_learning_rate of [aggregation]"
            )
        weights = models.pop(GLOBAL)
        average = averaged(state.average, weights, self._aggregation.average)
        return Joined(State(weights, targets, average, server, models), choice)

    def _means(self, state: State, contributions: Sequence[Contribution]) -> dict[str, Weights]:
        """Return what can be averaged with each other: the weights of every model that somebody trained, by name."""
        parts: dict[str, list[Contribution]] = {}
        for each in contributions:
            parts.setdefault(model_of(each.sub_model, state), []).append(each)
        return {name: self._mean(name, state, alike) for name, alike in parts.items()}

    def _mean(self, name: str, state: State, contributions: Sequence[Contribution]) -> Weights:
        graph = contributions[0].sub_model.graph if name else self._graph  # its only tier is all of an own model
        rule, faulty = self._aggregation.robust, self._aggregation.faulty
        made = aggregator(rule, graph, state.own[name] if name else state.weights, faulty)
        for each in weighted(contributions, self._aggregation.weights):
            made.add(each)
        return made.result()

    def _teaches(self) -> bool:
        """Whether somebody may learn from the ensemble: the global model, or nodes that rehearse."""
        return len(self._images) > 0 and (self._aggregation.method != "substructure" or self._proxy.rehearsals != 0)

    def _targets(self, state: State, contributions: Sequence[Contribution]) -> Targets:
        from coordinator.aggregation.ensemble import Ensemble, rebuilt

        models, ensemble = self._models(), Ensemble(self._aggregation.robust != "none")
        for each in contributions:
            name = model_of(each.sub_model, state)
            tensors = rebuilt(each, state.own[name] if name else state.weights)
            ensemble.add(models[name].logits(each.sub_model, tensors, self._images))
        return ensemble.targets()

    def _distilled(self, number: int, name: str, weights: Weights, targets: Targets) -> Weights:
        from coordinator.aggregation.distillation import Lesson, distil

        epochs = self._proxy.epochs or -(-PASSES // len(self._images))
        lesson = Lesson(epochs, self._proxy.learning_rate, (self._seed, number))
        return distil(self._models()[name], weights, self._images, targets, lesson)


def joiner(inputs: Inputs) -> Joiner:
    """Return what joins the rounds of a run."""
    federation = inputs.federation

    def models() -> dict[str, HostModel]:
        from coordinator.aggregation.ensemble import HostModel

        settings = federation.plan_settings()
        found = {GLOBAL: HostModel(inputs.graph, federation.tier_list(), inputs.weights, settings)}
        for name, own in inputs.own.items():
            found[name] = HostModel(own.graph, (own.tier,), own.weights, settings)
        return found

    return Joiner(inputs.graph, federation.aggregation, federation.proxy, inputs.proxy, models, federation.seed)
