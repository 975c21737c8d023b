"""The global model of a federation: its layers and initial weights, and which of them the boards train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from .federation import Federation

if TYPE_CHECKING:
    import numpy as np

    from codegen.graph import Graph
    from codegen.tiers import SubModel, Tier


class GlobalModel(NamedTuple):
    """Layers, weights in the order of their tensors, and what there is to say of them, a sentence each."""

    graph: Graph
    weights: list[np.ndarray]
    notes: tuple[str, ...]


def global_model(federation: Federation, board_ids: Sequence[str] | None = None) -> GlobalModel:
    """Read the model, from the cache if its file has not changed.

    `trainable = "auto"` freezes for the sake of `board_ids`, or of the federation's boards. Raises ModelError, and
    PlanError for auto.
    """
    import boards
    from codegen.freezing import auto
    from codegen.model_file import load_graph

    names = federation.model.trainable
    graph, weights = load_graph(federation.model_path, None if names == "auto" else names, federation.seed)
    ids = board_ids or dict.fromkeys(spec.board for spec in federation.nodes() if spec.model is None)
    if names != "auto" or not ids:
        return GlobalModel(graph, weights, ())
    tiers, settings = federation.tier_list(), federation.plan_settings()
    found = auto([boards.load(board) for board in ids], graph, weights, tiers, settings)
    stays = f"frozen layers stay as {federation.model.path} gives them; name a trained .keras file as [model] path"
    return GlobalModel(found.graph, weights, (found.sentence, *((stays,) if found.layers else ())))


class OwnModel(NamedTuple):
    """A model that nodes have of their own: its layers, its initial weights, and its only tier, which is all of it."""

    graph: Graph
    weights: list[np.ndarray]
    tier: Tier

    @property
    def cut(self) -> SubModel:
        """The tier's sub-model."""
        from codegen.tiers import sub_model

        return sub_model(self.graph, self.tier)


def own_models(federation: Federation, graph: Graph) -> dict[str, OwnModel]:
    """Read the models that nodes have instead of a tier of the global `graph`, by name. Raises ModelError."""
    from codegen.graph import ModelError
    from codegen.model_file import load_graph
    from codegen.tiers import Tier

    found = {}
    for name, path in federation.own_models.items():
        own, weights = load_graph(path, None, federation.seed)
        if (own.features, own.classes) != (graph.features, graph.classes):
            raise ModelError(
                f"{path}: takes {own.features} features to {own.classes} classes; expected {graph.features} and "
                f"{graph.classes}, as {federation.model_path} has: both learn from the same samples"
            )
        found[name] = OwnModel(own, weights, Tier(name, 1.0))
    return found
