"""The rows of benchmarks.fleet: which nodes take part, on what boards, and what their federation file says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.attackers import Attack
from codegen.tiers import DEFAULT_TIERS

TIERS = tuple(DEFAULT_TIERS)
FLEET = ("expanded",) * 2 + ("base",) * 3 + ("compact",) * 2 + ("micro",) * 3
SMALL = ("compact", "micro")  # tiers of boards that may have no room for a gradient buffer, or no floating point
PROXY = 200  # unlabelled images, of those rows whose name does not say how many
SPLITS = ("iid", "dirichlet", "shards", "tier")

Boards = Literal["ordinary", "batch1", "fixed"]


@dataclass(frozen=True)
class Variant:
    """A run of the benchmark: ten nodes, and the tables of their federation file."""

    tiers: tuple[str | None, ...] = FLEET  # of each node; None: it takes no part
    small: Boards = "ordinary"  # of the tiers in SMALL
    training: Mapping[str, Any] = field(default_factory=dict)
    aggregation: Mapping[str, Any] = field(default_factory=dict)
    proxy: int = 0  # images
    attack: Attack | None = None  # of ATTACKERS nodes
    judged: str | None = None  # the only tier whose accuracy counts


LOSSES = {"plain": False, "masked": True}
PLAIN: Mapping[str, Any] = {  # what the references train by, as published methods do; all else trains as the example
    "learning_rate": 0.1, "learning_rate_schedule": "constant", "max_gradient_norm": 0.0, "shift": 0, "nested": False,
}  # fmt: skip


def _plain(tiers: tuple[str | None, ...], masked: bool, judged: str | None = None) -> Variant:
    """Return nodes with nothing in the loss for narrower tiers."""
    method = {"method": "substructure"}
    return Variant(tiers, training={**PLAIN, "logit_adjustment": masked}, aggregation=method, judged=judged)


def _equal(tier: str, masked: bool) -> Variant:
    return _plain((tier,) * len(FLEET), masked, tier)


REFERENCES = ("all_expanded", "own_width")
ALONE = tuple(tier if tier == "expanded" else None for tier in FLEET)

METHODS: dict[str, dict[str, Variant]] = {  # a row: its variants, of which each tier's best counts
    "all_expanded": {f"all_expanded_{name}": _equal("expanded", masked) for name, masked in LOSSES.items()},
    "own_width": {f"all_{tier}_{name}": _equal(tier, masked) for tier in TIERS for name, masked in LOSSES.items()},
    "only_large": {f"only_large_{name}": _plain(ALONE, masked) for name, masked in LOSSES.items()},
    "substructure": {f"substructure_{name}": _plain(FLEET, masked) for name, masked in LOSSES.items()},
    "nested": {"nested": Variant(aggregation={"method": "substructure"})},
    **{method: {method: Variant(aggregation={"method": method}, proxy=PROXY)} for method in ("distillation", "hybrid")},
    "default": {"default": Variant(proxy=PROXY)},
    "default_1000": {"default_1000": Variant(proxy=1000)},
    "default_0": {"default_0": Variant()},
    "default_batch1": {"default_batch1": Variant(small="batch1", proxy=PROXY)},
    "default_fixed": {"default_fixed": Variant(small="fixed", proxy=PROXY)},
}

ATTACKERS = 2
ATTACKS: tuple[Attack, ...] = ("flip", "random")
RULES = ("none", "clip", "median", "trimmed_mean", "krum")
UNDER_ATTACK: dict[str, dict[str, Variant]] = {  # rows that must be asked for
    f"{attack}_{rule}": {
        f"{attack}_{rule}": Variant(aggregation={"method": "substructure", "robust": rule}, attack=attack)
    }
    for attack in ATTACKS
    for rule in RULES
}
ROWS = {**METHODS, **UNDER_ATTACK}


def variants() -> dict[str, Variant]:
    """Return all variants by name."""
    return {name: variant for row in ROWS.values() for name, variant in row.items()}


def best_of(method: str) -> tuple[str, ...]:
    """Return the names of a row's variants."""
    return tuple(ROWS[method])
