"""What each node did over a whole run, counted from the journal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from coordinator.events import NodeAnswered, NodeQuarantined, NodeRefused, NodeTraffic, RoundAggregated
from coordinator.journal import Line, of_kind


@dataclass(frozen=True)
class Tally:
    """One node's figures, resumptions included. Of a round run twice the later answer counts, but all traffic."""

    rounds: int  # that it has answered and was believed in
    loss: float | None  # of the last answer
    saturated: int  # times that a fixed-point weight or logit was held at its limit
    refused: int  # rounds in which its update was not believed
    quarantined: str  # why; empty if it is not
    bytes_down: int
    bytes_up: int
    retransmissions: int
    frames_rejected: int  # that came damaged from the node
    node_rejected: int  # that came damaged to the node
    resets: int
    goodput: float | None  # bytes a second of a transfer's content; median of the rounds
    round_trip: float | None  # seconds, median of the rounds


def tally(lines: Sequence[Line], node: str) -> Tally:
    """Count what the journal says of one node."""
    own = [line for line in lines if line.get("node") == node]
    answers = {line["round"]: line for line in of_kind(own, NodeAnswered)}
    closed = {line["round"]: line["answered"] for line in of_kind(lines, RoundAggregated)}
    traffic = of_kind(own, NodeTraffic)
    losses = [line["loss"] for line in of_kind(own, NodeAnswered)]
    reasons = [line["reason"] for line in of_kind(own, NodeQuarantined)]

    def total(key: str) -> int:
        return sum(line.get(key, 0) for line in traffic)

    return Tally(
        rounds=sum(node in answered for answered in closed.values()),
        loss=losses[-1] if losses else None,
        saturated=sum(line.get("saturated", 0) for line in answers.values()),
        refused=len({line["round"] for line in of_kind(own, NodeRefused)}),
        quarantined=reasons[-1] if reasons else "",
        bytes_down=total("bytes_down"),
        bytes_up=total("bytes_up"),
        retransmissions=total("retransmissions"),
        frames_rejected=total("frames_rejected"),
        node_rejected=total("node_rejected"),
        resets=total("resets"),
        goodput=_median(line.get("goodput") for line in traffic),
        round_trip=_median(line.get("round_trip") for line in traffic),
    )


def _median(values: Any) -> float | None:
    known = [value for value in values if value]
    return median(known) if known else None
