"""What a session counts of its link."""

import math

import pytest

from codegen.protocol import Status
from coordinator.link.flows import LinkStatistics


def status(boot: int, rejected: int) -> Status:
    return Status(0, 0, boot, 0, 0, math.nan, rejected, 0)


@pytest.mark.parametrize(
    ("said", "rejected", "resets"),
    [
        ([], 0, 0),
        ([(7, 500)], 0, 0),  # another run's
        ([(7, 500), (7, 503), (7, 503), (7, 504)], 4, 0),
        ([(7, 65_530), (7, 3)], 9, 0),  # u16 wraps
        ([(7, 5), (7, 4), (7, 6)], 1, 0),  # an older STATUS came late
        ([(7, 5), (7, 6), (8, 2), (8, 4)], 5, 1),  # started anew, and counts from 0
        ([(7, 0), (8, 0), (7, 0)], 0, 2),
    ],
)
def test_what_a_node_says_it_rejected(said: list[tuple[int, int]], rejected: int, resets: int) -> None:
    stats = LinkStatistics()
    for boot, count in said:
        stats.heard(status(boot, count))
    assert (stats.node_rejected, stats.resets) == (rejected, resets)


@pytest.mark.parametrize(("boot", "resets"), [(7, 1), (9, 2)])
def test_a_new_session_counts_on(boot: int, resets: int) -> None:
    first = LinkStatistics(100, 50, 3, 2, goodput=9.5, round_trip=0.25)
    for said in (status(6, 4), status(7, 5)):
        first.heard(said)
    second = LinkStatistics(10, 5, 1, 1)
    second.booted(boot)
    second.go_on_from(first)
    assert (second.bytes_down, second.bytes_up, second.retransmissions, second.frames_rejected) == (110, 55, 4, 3)
    assert (second.node_rejected, second.resets, second.goodput, second.round_trip) == (5, resets, 9.5, 0.25)
