"""Which round is the best, and when a run ends, from its journal alone."""

import pytest

from coordinator.journal import Line
from coordinator.stopping import Standing, fruitless, improves, ranking


def judged(shares: dict[int, float], aggregated: set[int] | None = None, images: str = "validation") -> list[Line]:
    """The lines of a run whose rounds these are; a round that is not aggregated leaves no checkpoint."""
    lines: list[Line] = []
    for number, share in shares.items():
        if number and (aggregated is None or number in aggregated):
            lines.append({"event": "checkpoint_written", "round": number})
        accuracy = {"wide": share, "narrow": 1 - share}
        lines.append({"event": "evaluated", "round": number, "images": images, "accuracy": accuracy})
    return lines


@pytest.mark.parametrize(
    ("lines", "last", "best", "since"),
    [
        ([], 5, None, 0),
        (judged({0: 0.1, 1: 0.5, 2: 0.4}, images="test"), 2, None, 0),
        (judged({0: 0.1, 1: 0.5, 2: 0.9}), 2, 2, 0),
        (judged({0: 0.1, 1: 0.5, 2: 0.5, 3: 0.4}), 3, 1, 2),  # of equals the earlier
        (judged({0: 0.6, 1: 0.5, 2: 0.5}), 2, 0, 2),  # a trained model may only become worse
        (judged({0: 0.1, 1: 0.5, 2: 0.4, 3: 0.9}), 2, 1, 1),  # what a lost checkpoint's round came to does not count
        (judged({0: 0.1, 1: 0.5, 2: 0.5, 3: 0.5, 4: 0.4}, {1, 4}), 4, 1, 1),  # nor do rounds that changed nothing
        ([*judged({0: 0.1, 1: 0.9}), *judged({1: 0.5, 2: 0.6})], 2, 2, 0),  # of a round run twice the later counts
        ([{"event": "evaluated", "round": 1, "images": "validation", "accuracy": {}}], 1, None, 0),
        ([{"event": "evaluated", "round": 1, "accuracy": {"wide": 1.0}}], 1, None, 0),  # as older runs wrote it
    ],
)
def test_the_best_round(lines: list[Line], last: int, best: int | None, since: int) -> None:
    assert [each.round for each in ranking(lines, last)[:1]] == ([] if best is None else [best])
    assert fruitless(lines, last) == since


def test_better_is_more_than_equal() -> None:
    lines = judged({0: 0.1, 1: 0.5})
    assert ranking(lines, 1) == [Standing(1, 0.5), Standing(0, 0.1)]
    assert improves(lines, 2, 0.51) and not improves(lines, 2, 0.5)
    assert improves(lines, 1, 0.5)  # the first round, evaluated once more
