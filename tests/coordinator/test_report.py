"""The report and its plot, made from a journal alone."""

import dataclasses
import json
import math
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from coordinator.cli import main
from coordinator.errors import RunFileError
from coordinator.events import (
    Event,
    MethodChosen,
    NodeAnswered,
    NodeFailed,
    NodeRefused,
    NodeTraffic,
    PlanNoted,
    RoundAggregated,
    StoppedEarly,
    Warned,
)
from coordinator.journal import Journal
from coordinator.live import notice
from coordinator.plot import BOTTOM, HEIGHT, LABEL_GAP, LEFT, RIGHT, TOP, WIDTH, line_plot
from coordinator.report import LinkLine, history, link_table, node_table, warnings, write_pictures, write_report
from tests.coordinator.test_live import RUN

TRAFFIC = [
    NodeTraffic("big", 1, 80_000, 21_500, 2, 3, 3, 40_000.0, None, 0),
    NodeTraffic("big", 2, 80_000, 21_500, 1, 1, 0, 60_000.0, 0.0205, 1),
]


def _run(folder: Path, events: list[Event]) -> Path:
    with Journal(folder) as journal:
        for event in events:
            journal.write(event)
    return folder


class _Links(HTMLParser):
    """Collects what a page would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note elements that load something."""
        if tag in ("script", "link", "iframe", "img") or any(name in ("src", "href", "onload") for name, _ in attrs):
            self.found.append(tag)


def test_a_page_of_a_whole_run(tmp_path: Path) -> None:
    folder = _run(tmp_path / "run", [*RUN, *TRAFFIC])
    (folder / "federation.json").write_text(json.dumps({"name": "mnist", "training": {"rounds": 2, "x": None}}))
    page = write_report(folder).read_text(encoding="utf-8")
    links = _Links()
    links.feed(page)
    assert links.found == []
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    text = re.sub(r"<[^>]+>", " ", page)
    for said in ("2 of 2 rounds in 20.0 s", "92.00 %", "training.rounds", "Round 1 went on without small: the port"):
        assert said in text
    assert "not finished" not in text


def test_an_interrupted_run_has_a_page_too(tmp_path: Path) -> None:
    page = write_report(_run(tmp_path / "run", RUN[:10])).read_text(encoding="utf-8")
    assert "not finished" in page
    assert write_report(_run(tmp_path / "early", RUN[:1])).read_text(encoding="utf-8").count("Nothing has been") == 1


def test_names_of_others_are_not_markup(tmp_path: Path) -> None:
    started = dataclasses.replace(RUN[0], name="<script>alert(1)</script>", nodes=("<b>",))  # type: ignore[call-arg]
    page = write_report(_run(tmp_path / "run", [started, *RUN[4:5]])).read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<b>&lt;" not in page
    assert "&lt;b&gt;" in page


def test_the_tables_add_up_the_rounds(tmp_path: Path) -> None:
    refused = [NodeRefused("small", 1, "it lies"), NodeRefused("small", 1, "it lies")]
    with Journal(_run(tmp_path / "run", [*RUN, *TRAFFIC, *refused]), resume=True) as journal:
        big, small, gone = node_table(journal.lines)
        links = link_table(journal.lines)
    assert (big.rounds, big.refused, big.loss) == (2, 0, "0.7000")
    assert (small.tier, small.samples, small.rounds, small.refused) == ("micro", "300", 1, 1)
    assert (gone.board, gone.tier, gone.rounds) == ("uno_r4_minima", "", 0)
    assert links == [LinkLine("big", "160.0", "43.0", "50.0", "20.5", 3, 3, 4, 1)]


def test_a_round_run_again_after_a_crash_counts_once(tmp_path: Path) -> None:
    with Journal(_run(tmp_path / "run", [*RUN[:-1], *RUN[11:]]), resume=True) as journal:
        rows, found = history(journal.lines), warnings(journal.lines)
    assert [row.round for row in rows] == [0, 1, 2]
    assert rows[-1].accuracy == {"expanded": 0.92, "micro": 0.86}
    assert found[0] == "gone: no port answered for this uno_r4_minima."


def test_what_the_plan_noted_is_said_once_however_often_the_run_began(tmp_path: Path) -> None:
    noted = PlanNoted("auto: conv1 is frozen, because uno would be short by 9 bytes of RAM")
    with Journal(_run(tmp_path / "run", [RUN[0], noted, RUN[0], noted]), resume=True) as journal:
        assert warnings(journal.lines) == [f"A{noted.text[1:]}."]
    assert notice(noted) == noted.text


def test_what_was_held_at_its_limit_is_said_in_the_log_and_on_the_page(tmp_path: Path) -> None:
    answers = [NodeAnswered("small", number, 300, 0.9, 2.0, held) for number, held in ((1, 0), (2, 1234))]
    with Journal(_run(tmp_path / "run", [RUN[0], *answers]), resume=True) as journal:
        (found,) = warnings(journal.lines)
    assert found == "small: a weight or logit was held at its limit 1,234 times in round 2."
    assert [notice(answer) for answer in answers] == [None, f"{found[:-1]}; a smaller learning_rate may help"]


def test_a_journal_from_before_fixed_point_is_read(tmp_path: Path) -> None:
    folder = _run(tmp_path / "run", RUN)
    path = folder / "journal.jsonl"
    path.write_text(path.read_text().replace(',"saturated":0', ""))
    with Journal(folder, resume=True) as journal:
        assert all("saturated" not in line for line in journal.lines)
        assert not any("held at its limit" in found for found in warnings(journal.lines))


def test_how_updates_are_joined_and_what_is_rehearsed(tmp_path: Path) -> None:
    chosen = [MethodChosen(1, "substructure", "they are alike"), MethodChosen(3, "hybrid", "they are unlike")]
    connected = dataclasses.replace(RUN[1], proxy=20)  # type: ignore[call-arg]
    text = re.sub(r"<[^>]+>", " ", write_report(_run(tmp_path / "run", [*RUN, *chosen])).read_text(encoding="utf-8"))
    assert "joined by substructure: they are alike. From round 3 on updates are joined by hybrid: they" in text
    assert "Proxy images" not in text
    text = write_report(_run(tmp_path / "other", [RUN[0], connected])).read_text(encoding="utf-8")
    assert "<th>proxy</th>" in text and "<td>20</td>" in text
    assert notice(chosen[1]) == "from round 3 on updates are joined by hybrid: they are unlike"


def test_what_is_the_same_in_many_rounds_is_said_once(tmp_path: Path) -> None:
    gone = [NodeFailed("small", number, "the port vanished") for number in (2, 3, 4, 6)]
    other = NodeFailed("small", 5, "it fell silent")
    barren = [RoundAggregated(number, (), False, "nobody answered", 1.0) for number in (3, 4)]
    stopped = StoppedEarly(6, "it is no better")
    with Journal(_run(tmp_path / "run", [RUN[0], *gone, other, *barren, stopped]), resume=True) as journal:
        journal.write(Warned(5, "labels", "tiers see different labels"))
        assert warnings(journal.lines) == [
            "Rounds 2 to 4, 6 went on without small: the port vanished.",
            "Round 5 went on without small: it fell silent.",
            "Nothing was aggregated in rounds 3, 4: nobody answered.",
            "The run ended after round 6: it is no better.",
            "After round 5: tiers see different labels.",
        ]


@pytest.mark.parametrize("content", [None, "", "{}\n", "not JSON\n"])
def test_what_is_no_run(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "journal.jsonl").write_text(content)
    with pytest.raises(RunFileError):
        write_report(tmp_path)


def test_pictures_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _run(tmp_path / "run", RUN)
    assert [path.name for path in write_pictures(folder, tmp_path / "a")] == ["accuracy.svg"]
    (folder / "live.svg").write_text("<svg/>")
    with pytest.raises(SystemExit) as ended:
        main(["report", str(folder), "--pictures", str(tmp_path / "b")])
    assert ended.value.code == 0
    assert capsys.readouterr().out.split() == [
        str(folder / "report.html"), str(tmp_path / "b" / "accuracy.svg"), str(tmp_path / "b" / "live.svg")
    ]  # fmt: skip


LINES = {
    "typical": {f"tier{i}": [(r, 1 - 0.5 * math.exp(-r / 3) - 0.01 * i) for r in range(1, 11)] for i in range(4)},
    "one point": {"a": [(1, 0.5)]},
    "chance to perfect": {"a": [(1, 0.0), (2, 1.0)]},
    "all the same": {name: [(1, 0.9), (2, 0.9)] for name in "abcdefgh"},
    "all perfect": {"a": [(1, 1.0), (2, 1.0)]},
    "a line without points": {"a": [(1, 0.5)], "b": []},
    "nothing": {},
    "many rounds": {"a": [(r, 0.9) for r in range(1, 1001)]},
}


@pytest.mark.parametrize("lines", LINES.values(), ids=LINES)
def test_a_plot_keeps_within_its_frame(lines: dict[str, list[tuple[float, float]]]) -> None:
    picture = ElementTree.fromstring(line_plot(lines, "round", "accuracy & more"))
    space = "{http://www.w3.org/2000/svg}"
    for line in picture.iter(f"{space}polyline"):
        for x, y in (map(float, pair.split(",")) for pair in line.attrib["points"].split()):
            assert LEFT - 0.1 <= x <= WIDTH - RIGHT + 0.1
            assert TOP - 0.1 <= y <= HEIGHT - BOTTOM + 0.1
    names = sorted(float(e.attrib["y"]) for e in picture.iter(f"{space}text") if e.attrib.get("class") == "name")
    assert len(names) == sum(bool(points) for points in lines.values())
    assert all(b - a >= LABEL_GAP - 0.2 for a, b in pairwise(names))
