"""Which nodes take no part any more: they gave too many updates that could not be believed. The journal remembers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from coordinator.events import NodeQuarantined, NodeRefused
from coordinator.journal import Line, of_kind


def quarantined(lines: Sequence[Line]) -> set[str]:
    """Return the nodes that the journal says are quarantined."""
    return {line["node"] for line in of_kind(lines, NodeQuarantined)}


def due(lines: Sequence[Line], nodes: Iterable[str], number: int, offences: int) -> list[NodeQuarantined]:
    """Return the quarantines to declare before round `number`: of `nodes` whose updates were refused in as many of the
    rounds before it as `offences` (0: nobody's ever are). A round that was run twice counts once.
    """
    refused: dict[str, dict[int, str]] = defaultdict(dict)
    for line in of_kind(lines, NodeRefused):
        if line["round"] < number:
            refused[line["node"]][line["round"]] = line["reason"]
    already = quarantined(lines)
    events = []
    for node in nodes:
        rounds = sorted(refused[node])
        if offences and len(rounds) >= offences and node not in already:
            last = rounds[-1]
            told = f"the updates of rounds {', '.join(map(str, rounds))} were refused; the last: {refused[node][last]}"
            events.append(NodeQuarantined(node, last, told))
    return events
