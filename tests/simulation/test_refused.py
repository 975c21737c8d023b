"""What a board says is not believed: other firmware, a stolen id, updates that cannot be true."""

import re
from pathlib import Path

import pytest

from coordinator.events import NodeRefused
from simulation.faults import Fault
from simulation.judge import LOST, REFUSED, judge
from simulation.world import World

SENTENCES = {
    "another protocol": r"sim1: its firmware speaks protocol 1, this host \d+; rebuild and flash it with",
    "another model": r"sim1: its firmware holds model 00000001 .*; rebuild it: ",
    "another firmware": r"sim1: its firmware is 00000001, built from other sources than these .*; rebuild it: ",
    "two nodes with one id": r"sim1 and sim2: both say they are \w{16} .*; unplug one",
}
LIES = {
    "NaN update": "sent 320 values that are not finite",
    "infinite update": "sent 320 values that are not finite",
    "huge update": "its update has norm .*, more than",
    "lying sample count": "its update is of 8000 samples; it has 8",
}


@pytest.mark.parametrize("kind", SENTENCES)
def test_what_does_not_belong_is_refused_in_words(small: World, tmp_path: Path, kind: str) -> None:
    ending = small.play([Fault(kind, node=1)], tmp_path)
    assert judge(small, ending, tmp_path) == REFUSED
    assert re.match(SENTENCES[kind], ending.parts[0]) and ending.parts[1:] == [""]


@pytest.mark.parametrize("kind", LIES)
def test_an_update_that_cannot_be_true_is_not_aggregated(small: World, tmp_path: Path, kind: str) -> None:
    ending = small.play([Fault(kind, at=2, node=1)], tmp_path)
    assert judge(small, ending, tmp_path) == LOST
    (refused,) = [event for event in ending.events if isinstance(event, NodeRefused)]
    assert (refused.node, refused.round) == (small.names[1], 2) and re.search(LIES[kind], refused.reason)
