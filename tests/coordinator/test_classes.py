"""What the report shows class by class."""

import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from coordinator.class_plots import class_panel, confusion_plot, heat_map
from coordinator.events import Evaluated, Event, NodeConnected, RoundAggregated, RunStarted
from coordinator.journal import Journal, Line
from coordinator.report import write_report
from coordinator.report_classes import class_section, never_seen

SVG = "{http://www.w3.org/2000/svg}"
TIERS = ("wide", "half")


def connected(node: str, tier: str, labels: tuple[int, ...]) -> NodeConnected:
    return NodeConnected(node, "uno", tier, "00" * 8, "port", sum(labels), 1, "weights", "m", "f", labels)


HELD = {"a": (3, 0, 0, 0), "b": (0, 2, 0, 0), "c": (0, 0, 1, 0)}
NODES = [connected(node, "wide" if node == "a" else "half", labels) for node, labels in HELD.items()]


def journaled(folder: Path, events: Sequence[Event]) -> list[Line]:
    with Journal(folder) as journal:
        for event in events:
            journal.write(event)
        return journal.lines


@pytest.mark.parametrize(
    ("answered", "nested", "unseen"),
    [
        (("a", "b", "c"), True, {"wide": [1, 2, 3], "half": [3]}),
        (("a", "b", "c"), False, {"wide": [1, 2, 3], "half": [0, 3]}),
        (("a", "b"), True, {"wide": [1, 2, 3], "half": [2, 3]}),  # c was there, but never gave anything
        ((), True, {"wide": [0, 1, 2, 3], "half": [0, 1, 2, 3]}),
    ],
)
def test_classes_that_a_width_never_saw(
    tmp_path: Path, answered: tuple[str, ...], nested: bool, unseen: dict[str, list[int]]
) -> None:
    lines = journaled(tmp_path, [*NODES, RoundAggregated(1, answered, bool(answered), "", 1.0)])
    assert never_seen(lines, TIERS, nested) == unseen


def evaluated(number: int, classes: int, confusion: bool = True, images: str = "test") -> Evaluated:
    rng = np.random.default_rng(number)
    matrices = {tier: rng.integers(0, 9, (classes, classes)) + 50 * np.eye(classes, dtype=int) for tier in TIERS}
    shares: dict[str, list[float | None]] = {
        tier: [round(float(row[at] / row.sum()), 4) for at, row in enumerate(matrix)]
        for tier, matrix in matrices.items()
    }
    return Evaluated(
        number, dict.fromkeys(TIERS, 0.5), 0.1, images, shares,  # type: ignore[arg-type]
        {tier: matrix.tolist() for tier, matrix in matrices.items()} if confusion else {},
    )  # fmt: skip


@pytest.mark.parametrize(("classes", "panels", "matrices"), [(2, 2, 2), (10, 10, 2), (100, 12, 2), (101, 12, 0)])
def test_a_page_shows_what_it_has_room_for(tmp_path: Path, classes: int, panels: int, matrices: int) -> None:
    rounds = [evaluated(number, classes, number == 2) for number in range(3)]
    lines = journaled(tmp_path, [RunStarted("run", "f" * 64, 2, ("a", "b", "c")), *NODES, *rounds])
    section = class_section(lines, [line for line in lines if line["event"] == "evaluated"], nested=True)
    assert section is not None
    assert (len(section.panels), section.left_out, len(section.matrices)) == (panels, classes - panels, matrices)
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert page.count("confusion matrix") == matrices and ("too many classes" in page) == (classes > 100)


def test_the_end_is_told_by_the_test_images_and_the_course_by_validation(tmp_path: Path) -> None:
    rounds = [evaluated(number, 4, images="validation") for number in range(4)]
    lines = journaled(tmp_path, [*NODES, *rounds, evaluated(2, 4)])
    section = class_section(lines, [line for line in lines if line["event"] == "evaluated"], nested=True)
    assert section is not None and (section.images, section.round) == ("test", 2)
    assert (section.later_round, len(section.later)) == (3, 2)  # the last one, which is not what came out
    for panel in section.panels:
        lines_of = list(ElementTree.fromstring(panel).iter(f"{SVG}polyline"))
        assert [len(line.attrib["points"].split()) for line in lines_of] == [3, 3]  # the untrained model is left out


def test_a_matrix_says_what_it_counts() -> None:
    counts = [[5, 0, 1], [0, 0, 0], [2, 0, 7]]
    picture = ElementTree.fromstring(confusion_plot(counts, "<wide>", {1}))
    titles = [title.text for title in picture.iter(f"{SVG}title")]
    assert titles == [
        f"{counts[row][column]} of {sum(counts[row])} images of {row} are taken for {column}"
        for row, column in product(range(3), repeat=2)
        if counts[row][column]
    ]
    texts = [text.text for text in picture.iter(f"{SVG}text")]
    assert "<wide>" in texts and "1∗" in texts and "0∗" not in texts
    strengths = {rect.attrib["class"]: float(rect.attrib.get("fill-opacity", 0)) for rect in picture.iter(f"{SVG}rect")}
    assert 0 < strengths["right"] < 1 and 0 < strengths["wrong"] < 1


def test_a_heat_map_marks_what_was_never_seen() -> None:
    picture = heat_map({"wide": [0.5, None, 1.0], "half": [0.0]}, {"wide": [0]})
    found = re.findall(r'fill-opacity="([\d.]+)".*?>([\d.]+)(∗?)</text>', picture)
    assert found == [("0.707", "50.0", "∗"), ("0.000", "100.0", ""), ("1.000", "0.0", "")]
    ElementTree.fromstring(picture)


@pytest.mark.parametrize("points", [[], [(1, 0.5)], [(1, -3.0), (9, 7.0)], [(r, 0.9) for r in range(1, 300)]])
def test_a_panel_keeps_within_its_frame(points: list[tuple[int, float]]) -> None:
    picture = ElementTree.fromstring(class_panel(3, {"wide": points}, 0.4))
    _, _, width, height = map(float, picture.attrib["viewBox"].split())
    for line in picture.iter(f"{SVG}polyline"):
        for x, y in (map(float, pair.split(",")) for pair in line.attrib["points"].split()):
            assert 0 <= x <= width and 0 <= y <= height


@pytest.mark.parametrize(
    "event",
    [
        Evaluated(1, {"wide": 0.5}, 0.1, "test", {"wide": []}, {"wide": []}),
        Evaluated(1, {"wide": 0.5}, 0.1, "test", {"wide": [None, None]}, {"wide": [[1, 2], [3]]}),
        Evaluated(1, {"wide": 0.5}, 0.1, "test", {"wide": [7.0, -1e300]}, {"wide": [[-5, 5], [0, -(10**14)]]}),
        Evaluated(1, {"wide": 0.5}, 0.1, "test", {"other": [0.5], "half": [0.1, 0.2]}, {"<i>": [[1]]}),
        Evaluated(1, {}, 0.1, "validation", {}, {}),
    ],
)
def test_a_journal_that_makes_no_sense_is_a_page_all_the_same(tmp_path: Path, event: Evaluated) -> None:
    journaled(tmp_path, [RunStarted("run", "f" * 64, 2, ("a",)), *NODES, evaluated(0, 4), event])
    assert "<i>" not in write_report(tmp_path).read_text(encoding="utf-8")
