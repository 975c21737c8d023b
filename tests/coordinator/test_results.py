"""What is told of a run that several coordinators worked on."""

import pytest

from coordinator.journal import Line
from coordinator.results import earlier_seconds


def line(event: str, time: float) -> Line:
    return {"event": event, "time": time}


@pytest.mark.parametrize(
    ("times", "seconds"),
    [
        ([], 0.0),
        ([("run_started", 100.0)], 0.0),
        ([("run_started", 100.0), ("evaluated", 103.5)], 3.5),
        ([("run_started", 100.0), ("evaluated", 103.5), ("run_started", 900.0), ("run_ended", 901.0)], 4.5),
    ],
)
def test_time_between_coordinators_does_not_count(times: list[tuple[str, float]], seconds: float) -> None:
    assert earlier_seconds([line(event, time) for event, time in times]) == pytest.approx(seconds)
