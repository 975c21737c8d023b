"""What a run tells of trouble that no single node has, and what to change in the federation file.

Pure: labels, accuracies and directions in, sentences out. A limit is crossed for several rounds before it is told;
docs/experiments.md has the runs that the limits are from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from coordinator.events import Warned
from coordinator.federation import Federation
from coordinator.journal import Line, of_kind

APART = 0.5  # of the labels that a tier has, the share that the others' labels leave unmatched
FEW = 0.1  # times the share that a label has elsewhere: a tier has hardly any of it
CHANCE = 1.3  # times the accuracy of guessing
DEAD_ROUNDS = 3
BEHIND = 0.10  # of accuracy, below the next wider tier
BEHIND_ROUNDS = 5
AGAINST_ROUNDS = 3
SHOWN = 8  # labels, at most, in a sentence

Labels = Sequence[Sequence[int]]  # of each node: samples by class


@dataclass(frozen=True)
class Advice:
    """A sentence to be told once; `about` is what it is told of, whatever figures are in it."""

    about: str
    message: str


def on_labels(tiers: Mapping[str, Labels], federation: Federation) -> Iterator[Advice]:
    """Advise if the nodes of some `tiers` see other labels than those of the others, and nothing brings that together.

    An averaged parameter that both hold is then good for neither; a distilled one is.
    """
    if federation.proxy.images and federation.aggregation.method != "substructure":
        return
    totals = {tier: np.sum(np.asarray(counts, np.float64), axis=0) for tier, counts in tiers.items() if len(counts)}
    totals = {tier: total for tier, total in totals.items() if total.sum()}
    found = []
    for tier, own in totals.items():
        rest = sum((total for other, total in totals.items() if other != tier), np.zeros_like(own))
        if rest.sum() == 0:
            return
        mine, theirs = own / own.sum(), rest / rest.sum()
        lacks = np.flatnonzero(mine < FEW * theirs).tolist()
        if np.abs(mine - theirs).sum() / 2 >= APART and lacks:
            found.append(f"{tier} has hardly any of {labels(lacks)}")
    if found:
        yield Advice(
            "labels",
            f"tiers see different labels: {'; '.join(found)}. The mean of what they learn is good for neither: "
            + (
                'method = "hybrid" in [aggregation] teaches each tier what the others know'
                if federation.proxy.images
                else "a [proxy] table with images = 200 unlabelled ones teaches each tier what the others know"
            ),
        )


def on_slices(history: Sequence[Mapping[str, float]], classes: int, federation: Federation) -> Iterator[Advice]:
    """Advise if a tier's slice is dead or falls behind; `history`: accuracy by tier, widest first, of the rounds."""
    last = history[-DEAD_ROUNDS:]
    if len(last) < DEAD_ROUNDS:
        return
    dead = {tier for tier in last[-1] if all(each[tier] <= CHANCE / classes for each in last)}
    if dead == set(last[-1]):
        yield Advice(
            "no slice learns",
            f"no tier is better than chance after {len(history)} rounds: see whether the labels are right, and range "
            "in [data]; else a smaller learning_rate in [training] may help",
        )
        return
    for tier in last[-1]:
        if tier in dead:
            told = f"tier {tier} answers no better than chance, {DEAD_ROUNDS} rounds in a row: "
            yield Advice(f"dead {tier}", told + _remedy(tier, federation, "LeakyReLU in place of ReLU in the model"))
    last = history[-BEHIND_ROUNDS:]
    for wider, tier in pairwise(last[-1]):
        gap = min(each[wider] - each[tier] for each in last)
        if len(last) == BEHIND_ROUNDS and tier not in dead and gap > BEHIND:
            told = f"tier {tier} stays {100 * gap:.0f} points or more below {wider}, {BEHIND_ROUNDS} rounds in a row: "
            yield Advice(f"behind {tier}", told + _remedy(tier, federation, "more epochs in [training]"))


def on_directions(rounds: Sequence[Sequence[str]], federation: Federation) -> Iterator[Advice]:
    """Advise on nodes whose update pointed away from every other; `rounds`: which those were, round by round."""
    last = rounds[-AGAINST_ROUNDS:]
    if len(last) < AGAINST_ROUNDS:
        return
    robust = federation.aggregation.robust
    way_out = "" if robust == "krum" else '; if they are, robust = "krum" in [aggregation] can leave it out'
    for node in last[-1]:
        if all(node in each for each in last):
            told = f"{node}: its update pointed away from every other's, {AGAINST_ROUNDS} rounds in a row"
            yield Advice(f"against {node}", f"{told}; see whether its samples and labels are right{way_out}")


def due(lines: Sequence[Line], number: int, found: Iterable[Advice]) -> list[Warned]:
    """Return what of `found` a run has not told yet, as its journal says, to be told after round `number`."""
    told = {line["about"] for line in of_kind(lines, Warned)}
    return [Warned(number, each.about, each.message) for each in found if each.about not in told]


def labels(classes: Sequence[int]) -> str:
    """Return labels as people say them: "labels 0 to 4 and 7"."""
    runs: list[list[int]] = []
    for label in classes[:SHOWN]:
        if runs and label == runs[-1][-1] + 1:
            runs[-1].append(label)
        else:
            runs.append([label])
    words = [word for run in runs for word in ([f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run))]
    more = len(classes) - SHOWN
    words += [f"{more} more"] if more > 0 else []
    said = " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
    return f"label{'s' if len(classes) > 1 else ''} {said}"


def _remedy(tier: str, federation: Federation, else_try: str) -> str:
    """Return the first thing to change that the federation file does not have yet."""
    if not federation.training.nested:
        return "nested = true in [training] trains every narrower width on each node"
    if federation.aggregation.select != "prefix":
        return 'select = "prefix" in [aggregation] gives a tier the same channels every round'
    if not federation.proxy.images:
        return "a [proxy] table with images = 200 unlabelled ones has every width learn from all nodes"
    return f"{else_try}, or a larger {tier} in [tiers], may help"
