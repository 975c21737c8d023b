"""What the live table shows of a run's events, in a terminal, in a log and as a picture."""

import io
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from coordinator.errors import RunFileError
from coordinator.events import (
    Evaluated,
    Event,
    NodeAnswered,
    NodeBack,
    NodeConnected,
    NodeFailed,
    NodeLog,
    NodeLost,
    NodeMissing,
    NodeProgress,
    NodeQuarantined,
    NodeRefused,
    RoundAggregated,
    RoundStarted,
    RunEnded,
    RunStarted,
    StoppedEarly,
    Warned,
)
from coordinator.live import View, Watcher, notice, svg

RUN: list[Event] = [
    RunStarted("mnist", "f" * 64, 2, ("big", "small", "gone")),
    NodeConnected("big", "esp32dev", "expanded", "00" * 8, "/dev/ttyUSB0", 1000, 8, "delta_q8", "a", "b"),
    NodeConnected("small", "megaatmega2560", "micro", "01" * 8, "/dev/ttyACM0", 300, 1, "weights", "a", "b"),
    NodeMissing("gone", "uno_r4_minima"),
    Evaluated(0, {"expanded": 0.1, "micro": 0.11}),
    RoundStarted(1, ("big", "small"), 0.1),
    NodeProgress("big", 1, "sending", 100, 1000, None, 48_200.0, 2),
    NodeProgress("big", 1, "training", 500, 1000, 1.234, 48_200.0, 2, 0.0213, 5, 1),
    NodeProgress("small", 1, "training", 0, 300, 0.0, 11_000.0, 0),
    NodeLog("small", "brownout [red]detected"),
    NodeAnswered("big", 1, 1000, 0.9, 2.0),
    NodeFailed("small", 1, "the port vanished"),
    RoundAggregated(1, ("big",), True, "", 12.34),
    RoundStarted(2, ("big", "small"), 0.1),
    NodeProgress("big", 2, "training", 10, 1000, 0.8, 50_000.0, 2),
    NodeProgress("small", 2, "sending", 10, 300, None, 11_000.0, 0),
    Evaluated(1, {"expanded": 0.9123, "micro": 0.85}),
    NodeAnswered("big", 2, 1000, 0.7, 2.0),
    NodeAnswered("small", 2, 300, 0.9, 2.0),
    RoundAggregated(2, ("big", "small"), False, "1 of 3 nodes answered; min_nodes is 2", 3.0),
    Evaluated(2, {"expanded": 0.92, "micro": 0.86}),
    RunEnded(2, 20.0, "0" * 64),
]


def _upto(kind: type[Event], times: int = 1) -> list[Event]:
    places = [index for index, event in enumerate(RUN) if isinstance(event, kind)]
    return RUN[: places[times - 1] + 1]


def _text(view: View, height: int | None = None) -> str:
    console = Console(file=io.StringIO(), width=110, record=True)
    console.print(view.render(height))
    return console.export_text()


def _view(events: list[Event]) -> View:
    view = View()
    for event in events:
        view(event)
    return view


def test_a_frame_tells_what_every_node_does() -> None:
    lines = _text(_view(_upto(NodeProgress, 2))).splitlines()
    assert lines[0].startswith("mnist  round 1 of 2  0:0")
    assert re.fullmatch(r"big +esp32dev +expanded +training +[━╸╺]+ +1\.234 +48 +21 +2 +5 +1 *", lines[3])
    assert re.fullmatch(r"small +megaatmega2560 +micro +idle *", lines[4])
    assert re.fullmatch(r"gone +uno_r4_minima +absent *", lines[5])
    assert lines[-1].strip() == "accuracy after round 0: expanded 10.0 %  micro 11.0 %"


def test_eighty_columns_hold_every_state_and_figure() -> None:
    long = "megaatmega2560-1"
    view = _view(
        [
            RunStarted("mnist", "f", 1, (long,)),
            NodeConnected(long, "megaatmega2560", "expanded", "uid", "port", 9, 8, "weights", "m", "f"),
            NodeProgress(long, 1, "connecting", 0, 1, 12.345, 1_234_567.0, 12345, 1.5, 999, 10),
            NodeQuarantined(long, 1, "it lies"),
        ]
    )
    console = Console(file=io.StringIO(), width=80, record=True)
    console.print(view.render(width=80))
    head = "node +tier +state +loss +kB/s +ms +resent +CRC +resets *\n"
    figures = r" +12\.345 +1,235 +1500 +12345 +999 +10 *\n"
    assert re.search(rf"{head}{long} +expanded +quarantined{figures}", console.export_text())


def test_a_frame_after_a_round() -> None:
    text = _text(_view(_upto(RoundAggregated)))
    assert re.search(r"big .* done .* 0\.900 ", text)
    assert re.search(r"small .* lost ", text)


BEFALLEN: list[tuple[Event, str, str]] = [
    (NodeLost("big", 2, "the port vanished"), "lost", "big: the port vanished; looking for it"),
    (NodeBack("big", 2, "/dev/ttyUSB1", True), "idle", "big: back on /dev/ttyUSB1, where it was"),
    (NodeBack("big", 2, "/dev/ttyUSB1", False), "idle", "big: back on /dev/ttyUSB1, started anew"),
    (NodeRefused("big", 2, "it lies"), "refused", "big: it lies; round 2 does not take its update"),
    (
        NodeQuarantined("big", 2, "it lies"),
        "quarantined",
        "big: it lies; it is quarantined: no later round asks it",
    ),
]


@pytest.mark.parametrize(("event", "state", "line"), BEFALLEN)
def test_what_befalls_a_node_is_said_and_shown(event: Event, state: str, line: str) -> None:
    view = _view([*_upto(RoundStarted, 2), event])
    assert re.search(rf"big +esp32dev +expanded +{state} ", _text(view))
    assert notice(event) == line


def test_what_is_wrong_with_the_run_is_said() -> None:
    assert notice(Warned(3, "dead micro", "tier micro is dead")) == "warning: tier micro is dead"


def test_a_node_that_is_not_back_stays_lost() -> None:
    lost = [*_upto(RoundStarted), NodeLost("big", 1, "the port vanished"), RoundStarted(2, ("big", "small"), 0.1)]
    assert re.search(r"big .* lost ", _text(_view(lost)))
    again: list[Event] = [NodeBack("big", 2, "/dev/ttyUSB0", True), RoundStarted(3, ("big", "small"), 0.1)]
    assert re.search(r"big .* idle ", _text(_view([*lost, *again])))


def test_a_new_round_starts_idle_and_keeps_the_loss() -> None:
    assert re.search(r"big .* idle +0\.900 ", _text(_view(_upto(RoundStarted, 2))))


def test_nodes_that_do_not_fit_the_terminal_are_counted() -> None:
    view = _view([RunStarted("big fleet", "f", 1, tuple(f"node-{i}" for i in range(64)))])
    text = _text(view, height=20)
    assert len(text.splitlines()) <= 20
    assert "node-12" in text
    assert "node-13" not in text
    assert "… and 51 connecting" in text


def test_a_log_has_a_line_a_round_and_every_mishap() -> None:
    out = io.StringIO()
    with Watcher(Console(file=out, width=40)) as watcher:
        for event in RUN:
            watcher(event)
    assert out.getvalue().splitlines() == [
        "mnist: 3 nodes, 2 rounds",
        "big: esp32dev, tier expanded, batch 8, on /dev/ttyUSB0",
        "small: megaatmega2560, tier micro, batch 1, on /dev/ttyACM0",
        "gone: no port answers for this uno_r4_minima; the run begins without it",
        "round 0/2: expanded 10.0 %  micro 11.0 %",
        "small says: brownout [red]detected",
        "small: the port vanished; round 1 goes on without it",
        "round 1/2: 1 answered in 12.3 s, expanded 91.2 %  micro 85.0 %",
        "round 2 is not aggregated: 1 of 3 nodes answered; min_nodes is 2",
        "round 2/2: 2 answered in 3.0 s, expanded 92.0 %  micro 86.0 %",
    ]


def test_a_terminal_has_a_table_and_the_mishaps_above_it() -> None:
    out = io.StringIO()
    with Watcher(Console(file=out, width=110, height=30, force_terminal=True)) as watcher:
        for event in RUN:
            watcher(event)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert "small: the port vanished" in text
    assert "round 1/2" not in text
    assert "accuracy after round 2: expanded 92.0 %  micro 86.0 %" in text


def test_the_picture_is_of_the_busiest_moment_of_the_last_round(tmp_path: Path) -> None:
    picture = tmp_path / "live.svg"
    with Watcher(Console(file=io.StringIO()), picture) as watcher:
        for event in RUN:
            watcher(event)
    shown = "".join(ElementTree.fromstring(picture.read_text(encoding="utf-8")).itertext()).replace("\xa0", " ")
    for word in ("training", "sending", "absent", "round 2 of 2"):
        assert word in shown


def test_a_run_that_stops_early_has_a_picture_of_its_last_round(tmp_path: Path) -> None:
    picture = tmp_path / "live.svg"
    with Watcher(Console(file=io.StringIO()), picture) as watcher:
        for event in [*_upto(RoundAggregated), StoppedEarly(1, "it is no better"), RunEnded(1, 9.0, "0" * 64)]:
            watcher(event)
    shown = "".join(ElementTree.fromstring(picture.read_text(encoding="utf-8")).itertext()).replace("\xa0", " ")
    assert "round 1 of 2" in shown and "sending" in shown


def test_what_the_validation_images_say_is_told_apart_from_the_test() -> None:
    """In the log and in the table; the test comes last, of a round that may be long over."""
    rounds = [Evaluated(number, {"wide": number / 10}, images="validation") for number in range(3)]
    done = [RoundAggregated(number, ("big",), True, "", 3.0) for number in (1, 2)]
    stopped = StoppedEarly(2, "10.00 % is still the best")
    events = [rounds[0], done[0], rounds[1], done[1], rounds[2], stopped, Evaluated(1, {"wide": 0.15})]
    out = io.StringIO()
    watcher = Watcher(Console(file=out, width=40))
    lines = []
    for event in events:
        watcher(event)
        lines.append(watcher.view.accuracy_line())
    assert out.getvalue().splitlines() == [
        "round 0/0: validation images: wide 0.0 %",
        "round 1/0: 1 answered in 3.0 s, validation images: wide 10.0 %",
        "round 2/0: 1 answered in 3.0 s, validation images: wide 20.0 %",
        "no round after 2: 10.00 % is still the best",
        "round 1/0: test images: wide 15.0 %",
    ]
    assert lines[-2:] == ["validation accuracy after round 2: wide 20.0 %", "test accuracy after round 1: wide 15.0 %"]


def test_a_run_that_never_came_to_its_last_round_has_no_picture(tmp_path: Path) -> None:
    with Watcher(Console(file=io.StringIO()), tmp_path / "live.svg") as watcher:
        for event in _upto(RoundAggregated):
            watcher(event)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_cannot_be_written_does_not_hide_what_ended_the_run(tmp_path: Path) -> None:
    for ending in (None, RunFileError("the disk is full")):
        with (
            pytest.raises(OSError if ending is None else RunFileError),
            Watcher(Console(file=io.StringIO()), tmp_path) as watcher,
        ):
            for event in RUN:
                watcher(event)
            if ending:
                raise ending


def test_a_picture_fetches_nothing() -> None:
    picture = svg(_view(RUN).render(), "title")
    assert "url(http" not in picture
    assert "@font-face" not in picture
