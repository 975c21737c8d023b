"""When a node is asked no more, by what the journal says."""

import pytest

from coordinator.journal import Line
from coordinator.quarantine import due, quarantined


def refused(node: str, *rounds: int) -> list[Line]:
    return [{"event": "node_refused", "node": node, "round": number, "reason": f"lie {number}"} for number in rounds]


@pytest.mark.parametrize(
    ("lines", "number", "offences", "expected"),
    [
        ([], 9, 3, []),
        (refused("a", 1, 4), 9, 3, []),
        (refused("a", 1, 4, 5), 6, 3, [("a", 5)]),
        (refused("a", 1, 4, 5), 5, 3, []),  # round 5 is done again
        (refused("a", 1, 1, 4), 9, 3, []),  # round 1 was done twice
        (refused("b", 2, 3) + refused("a", 1) + refused("a", 3), 4, 2, [("a", 3), ("b", 3)]),
        (refused("a", 1), 2, 1, [("a", 1)]),
        (refused("a", 1, 2, 3, 4), 5, 0, []),
        ([*refused("a", 1, 2, 3), {"event": "node_quarantined", "node": "a"}], 5, 3, []),  # it is said once
        (refused("stranger", 1, 2, 3), 5, 3, []),
    ],
)
def test_who_is_to_be_quarantined(
    lines: list[Line], number: int, offences: int, expected: list[tuple[str, int]]
) -> None:
    events = due(lines, ["a", "b"], number, offences)
    assert [(event.node, event.round) for event in events] == expected


def test_a_quarantine_says_why() -> None:
    (event,) = due(refused("a", 1, 4, 7), ["a"], 8, 3)
    assert event.reason == "the updates of rounds 1, 4, 7 were refused; the last: lie 7"


def test_a_quarantine_holds() -> None:
    assert quarantined([*refused("b", 1, 2, 3), {"event": "node_quarantined", "node": "a"}]) == {"a"}
