"""What a run's report shows class by class: how each tier answers, and what it never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import class_plots
from .events import NodeConnected, RoundAggregated
from .journal import Line, of_kind
from .pretty import spans

PANELS = 12  # classes whose course is shown: with more, those that are hardest
MOST_CLASSES = 100  # of a matrix; beyond, its cells are not to be told apart


@dataclass(frozen=True)
class ClassSection:
    """A section of the page; pictures are SVG."""

    images: str  # what was shown to the model
    round: int
    heat: str
    panels: list[str]
    left_out: int  # classes without a panel
    matrices: list[str]
    later: list[str]  # those of the last round by the validation images, where that is not the one above
    later_round: int
    too_many: bool  # classes for matrices
    unseen: list[str]  # a tier and its classes
    style: str


def class_section(lines: Sequence[Line], evaluated: Sequence[Line], nested: bool) -> ClassSection | None:
    """Return the section from what was evaluated, in order, the result last; None if it says nothing of classes."""
    told = [line for line in evaluated if line.get("per_class")]
    if not told:
        return None
    last = told[-1]
    shares: dict[str, list[float | None]] = last["per_class"]
    classes = max(map(len, shares.values()))
    unseen = {tier: [at for at in found if at < classes] for tier, found in never_seen(lines, shares, nested).items()}
    course = {line["round"]: line for line in told if line.get("images") == told[0].get("images")}
    later = course[max(course)]
    chosen = _hardest(next(iter(shares.values())), PANELS)
    return ClassSection(
        images=last.get("images", "test"),
        round=last["round"],
        heat=class_plots.heat_map(shares, unseen),
        panels=_panels(course, list(shares), chosen),
        left_out=classes - len(chosen),
        matrices=_matrices(last, unseen),
        later=_matrices(later, unseen) if later["round"] != last["round"] else [],
        later_round=later["round"],
        too_many=classes > MOST_CLASSES,
        unseen=[f"{tier} {spans(found)}" for tier, found in unseen.items() if found],
        style=class_plots.style(),
    )


def never_seen(lines: Sequence[Line], tiers: Sequence[str] | Mapping[str, Any], nested: bool) -> dict[str, list[int]]:
    """Return by tier the classes of which no node that trains at its width, and was believed in a round, has a sample.

    `tiers` stand widest first; `nested`: a node trains at all widths up to its own.
    """
    took_part = {node for line in of_kind(lines, RoundAggregated) if line["aggregated"] for node in line["answered"]}
    held: dict[str, set[int]] = {}
    known = 0
    for line in of_kind(lines, NodeConnected):
        labels = line.get("labels", ())
        known = max(known, len(labels))
        if line["node"] in took_part:
            held.setdefault(line["tier"], set()).update(at for at, count in enumerate(labels) if count)
    found = {}
    wider: set[int] = set()
    for tier in tiers:
        wider |= held.get(tier, set())
        seen = wider if nested else held.get(tier, set())
        found[tier] = sorted(set(range(known)) - seen)
    return found


def _matrices(line: Line, unseen: Mapping[str, Sequence[int]]) -> list[str]:
    return [
        class_plots.confusion_plot(matrix, tier, unseen.get(tier, ()))
        for tier, matrix in line.get("confusion", {}).items()
        if len(matrix) <= MOST_CLASSES and all(len(row) == len(matrix) for row in matrix)
    ]


def _hardest(shares: Sequence[float | None], most: int) -> list[int]:
    """Return the classes with the fewest right answers, at most so many, in their own order."""
    there = [(share, at) for at, share in enumerate(shares) if share is not None]
    return sorted(at for _, at in sorted(there)[:most])


def _panels(course: Mapping[int, Line], tiers: Sequence[str], classes: Sequence[int]) -> list[str]:
    """Return a picture of each class; the untrained model is left out if there is anything else."""
    shown = {number: line["per_class"] for number, line in sorted(course.items()) if number > 0 or len(course) == 1}
    pictures = []
    values: dict[int, dict[str, list[tuple[int, float]]]] = {}
    for at in classes:
        values[at] = {tier: [] for tier in tiers}
        for number, shares in shown.items():
            for tier in tiers:
                share = shares[tier][at] if at < len(shares.get(tier, ())) else None
                if share is not None:
                    values[at][tier].append((number, share))
    lowest = min((share for line in values.values() for points in line.values() for _, share in points), default=0.0)
    low = max(0.0, min(0.9, int(lowest * 10) / 10))  # one scale for all
    for at, line in values.items():
        pictures.append(class_plots.class_panel(at, line, low))
    return pictures
