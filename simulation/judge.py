"""What must be true of every run, whatever befell it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from coordinator.events import (
    CheckpointWritten,
    NodeFailed,
    NodeLost,
    NodeMissing,
    NodeQuarantined,
    NodeRefused,
    RoundAggregated,
    RunEnded,
)
from coordinator.journal import of_kind, read_journal, weights_sha256
from simulation.play import KILLED, Ending, Violation
from simulation.world import World

COMPLETED = "to the bit"  # as if nothing had happened
RESUMED = "killed, resumed to the bit"
REFUSED = "refused in words, resumed to the bit"
LOST = "node lost for a round"  # the bits are those of a run without it in that round
OUTCOMES = (COMPLETED, RESUMED, REFUSED, LOST)

WHY = (NodeFailed, NodeLost, NodeRefused, NodeQuarantined)  # what tells that a node gives nothing in a round


def judge(world: World, ending: Ending, folder: Path) -> str:
    """Return which of OUTCOMES a run that was held in `folder` came to. Raises Violation."""
    _judge_state(world, ending)
    _judge_journal(world, ending, folder)
    if any(len(names) < len(world.names) for names in ending.answered):
        return LOST
    if not set(ending.parts) - {"", KILLED}:
        return COMPLETED if len(ending.parts) == 1 else RESUMED
    return REFUSED


def _judge_state(world: World, ending: Ending) -> None:
    with tempfile.TemporaryDirectory() as folder:
        expected = world.reference(ending.answered, Path(folder))
    if ending.state.content() != expected.content():
        raise Violation(f"the state is not that of rounds that {ending.answered} answered")


def _judge_journal(world: World, ending: Ending, folder: Path) -> None:
    path = folder / "run" / "journal.jsonl"
    lines, size = read_journal(path)
    if size != path.stat().st_size:
        raise Violation("the journal of a run that was completed ends in half a line")
    digest = weights_sha256(ending.state.result)
    ended = of_kind(lines, RunEnded)
    if not ended or ended[-1]["weights_sha256"] != digest:
        raise Violation(f"the journal says that the run ended with {ended}; it did with {digest}")
    kept = {line["round"]: line["weights_sha256"] for line in of_kind(lines, CheckpointWritten)}
    last = {line["round"]: line["aggregated"] for line in of_kind(lines, RoundAggregated)}  # a kill may repeat a round
    aggregated = [number for number, worked in last.items() if worked]
    if set(kept) != set(aggregated) or kept[max(kept)] != digest:
        raise Violation(f"rounds {aggregated} were aggregated, and checkpoints of {kept} written; the end is {digest}")
    absent = {line["node"] for line in of_kind(lines, NodeMissing)}
    for line in of_kind(lines, RoundAggregated):
        silent = set(world.names) - set(line["answered"])
        said = {each["node"] for kind in WHY for each in of_kind(lines, kind) if each["round"] <= line["round"]}
        if not silent <= said | absent:
            raise Violation(f"round {line['round']} went on without {silent - said}, and nothing says why")
