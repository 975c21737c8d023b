"""Which round is the best, and when a run ends, from its journal alone."""

import pytest

from coordinator.journal import Line
from coordinator.stopping import Standing, fruitless, improves, ranking, standing


def judged(
    shares: dict[int, float], aggregated: set[int] | None = None, images: str = "validation", narrow: float = 0.0
) -> list[Line]:
    """The lines of a run whose rounds these are, in each of which the narrow tier becomes so much better; a round that
    is not aggregated leaves no checkpoint."""
    lines: list[Line] = []
    for number, share in shares.items():
        if number and (aggregated is None or number in aggregated):
            lines.append({"event": "checkpoint_written", "round": number})
        accuracy = {"wide": share, "narrow": 0.2 + narrow * number}
        lines.append({"event": "evaluated", "round": number, "images": images, "accuracy": accuracy})
    return lines


@pytest.mark.parametrize(
    ("lines", "last", "best", "since"),
    [
        ([], 5, None, 0),
        (judged({0: 0.1, 1: 0.5, 2: 0.4}, images="test"), 2, None, 0),
        (judged({0: 0.1, 1: 0.5, 2: 0.9}), 2, 2, 0),
        (judged({0: 0.1, 1: 0.5, 2: 0.5, 3: 0.4}), 3, 1, 2),  # of equals the earlier
        (judged({0: 0.1, 1: 0.5, 2: 0.5, 3: 0.4}, narrow=0.1), 3, 2, 1),  # of equals that of the better narrow tiers
        (judged({0: 0.1, 1: 0.5, 2: 0.4, 3: 0.3}, narrow=0.2), 3, 1, 2),  # but the widest comes first
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
    assert ranking(lines, 1) == [Standing(1, 0.5, 0.35), Standing(0, 0.1, pytest.approx(0.15))]  # type: ignore[arg-type]
    for wide, narrow, better in ((0.51, 0.0, True), (0.5, 0.2, False), (0.5, 0.21, True), (0.49, 1.0, False)):
        assert improves(lines, standing(2, {"wide": wide, "narrow": narrow})) == better
    assert improves(lines, standing(1, {"wide": 0.5, "narrow": 0.2}))  # the first round, evaluated once more
