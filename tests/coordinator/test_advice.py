"""What a run warns of."""

from pathlib import Path
from typing import Any

import pytest

from coordinator import advice
from coordinator.events import Warned
from coordinator.federation import Federation, Proxy, parse
from coordinator.journal import Journal, read_journal

TIERS = ("expanded", "base", "micro")
EVEN = (10,) * 10
LOW, HIGH = (20,) * 5 + (0,) * 5, (0,) * 5 + (20,) * 5


def federation(**tables: dict[str, Any]) -> Federation:
    document = {
        "name": "tiny",
        "model": {"path": "model.py"},
        "data": {"path": "data.npz"},
        "nodes": [{"board": "uno"}],
        **tables,
    }
    return parse(document, "", Path("federation.toml"))


PLAIN = federation()
PROXY = PLAIN.model_copy(update={"proxy": Proxy()})
AVERAGED = federation(aggregation={"method": "substructure"}).model_copy(update={"proxy": Proxy()})
FLAT = federation(training={"nested": False})
ROLLING = federation(aggregation={"select": "rolling"})
KRUM = federation(aggregation={"robust": "krum"})

LABELS: dict[str, tuple[dict[str, list[tuple[int, ...]]], Federation, str]] = {
    "even": ({"expanded": [EVEN, EVEN], "micro": [EVEN]}, PLAIN, ""),
    "tier goes with label": (
        {"expanded": [HIGH, HIGH], "base": [HIGH], "micro": [LOW, LOW, LOW]},
        PLAIN,
        "tiers see different labels: expanded has hardly any of labels 0 to 4; base has hardly any of labels 0 to 4; "
        "micro has hardly any of labels 5 to 9. The mean of what they learn is good for neither: a [proxy] table",
    ),
    "the same, but it is distilled": ({"expanded": [HIGH], "micro": [LOW]}, PROXY, ""),
    "the same, with images that are not used": ({"expanded": [HIGH], "micro": [LOW]}, AVERAGED, 'method = "hybrid"'),
    "nodes differ, tiers do not": ({"expanded": [LOW, HIGH], "micro": [HIGH, LOW]}, PLAIN, ""),
    "a little uneven": ({"expanded": [(9, 11) * 5], "micro": [(11, 9) * 5]}, PLAIN, ""),
    "one tier": ({"expanded": [LOW], "base": []}, PLAIN, ""),
    "no samples": ({"expanded": [(0,) * 10], "base": [LOW]}, PLAIN, ""),
    "nobody": ({}, PLAIN, ""),
}


@pytest.mark.parametrize("case", LABELS)
def test_tiers_that_see_different_labels(case: str) -> None:
    tiers, settings, expected = LABELS[case]
    found = [each.message for each in advice.on_labels(tiers, settings)]
    assert len(found) == bool(expected) and all(expected in each for each in found)


def runs(*rounds: tuple[float, ...]) -> list[dict[str, float]]:
    return [dict(zip(TIERS, each, strict=True)) for each in rounds]


DEAD, BEHIND = [(0.9, 0.8, 0.11)], [(0.9, 0.85, 0.74)]
SLICES: dict[str, tuple[list[dict[str, float]], Federation, dict[str, str]]] = {
    "alive": (runs(*[(0.9, 0.88, 0.85)] * 9), PLAIN, {}),
    "dead": (runs(*DEAD * 3), PLAIN, {"dead micro": "a [proxy] table with images = 200"}),
    "dead, not nested": (runs(*DEAD * 3), FLAT, {"dead micro": "nested = true in [training]"}),
    "dead, rolling": (runs(*DEAD * 3), ROLLING, {"dead micro": 'select = "prefix" in [aggregation]'}),
    "dead, all done": (runs(*DEAD * 3), PROXY, {"dead micro": "LeakyReLU in place of ReLU in the model, or a larger"}),
    "dead, and far behind": (runs(*DEAD * 9), PLAIN, {"dead micro": "no better than chance, 3 rounds in a row"}),
    "dead at first": (runs(*DEAD * 2, (0.9, 0.8, 0.75)), PLAIN, {}),
    "too early": (runs(*DEAD * 2), PLAIN, {}),
    "all dead": (runs(*[(0.1, 0.1, 0.1)] * 3), PLAIN, {"no slice learns": "after 3 rounds: see whether the labels"}),
    "behind": (runs(*BEHIND * 5), PLAIN, {"behind micro": "tier micro stays 11 points or more below base, 5 rounds"}),
    "behind, all done": (runs(*BEHIND * 5), PROXY, {"behind micro": "more epochs in [training], or a larger micro in"}),
    "behind for four rounds": (runs((0.9, 0.85, 0.8), *BEHIND * 4), PLAIN, {}),
    "catches up": (runs(*BEHIND * 4, (0.9, 0.85, 0.8)), PLAIN, {}),
    "the wide one is behind": (runs(*[(0.5, 0.85, 0.84)] * 9), PLAIN, {}),
    "nothing yet": ([], PLAIN, {}),
}


@pytest.mark.parametrize("case", SLICES)
def test_slices_that_are_dead_or_fall_behind(case: str) -> None:
    history, settings, expected = SLICES[case]
    found = {each.about: each.message for each in advice.on_slices(history, 10, settings)}
    assert found.keys() == expected.keys()
    assert all(expected[about] in message for about, message in found.items())


DIRECTIONS: dict[str, tuple[list[tuple[str, ...]], Federation, dict[str, str]]] = {
    "three rounds": ([("a", "b"), ("a",), ("b", "a")], PLAIN, {"against a": 'robust = "krum" in [aggregation]'}),
    "krum already": ([("a",)] * 3, KRUM, {"against a": "whether its samples and labels are right"}),
    "not in a row": ([("a",), ("a",), (), ("a",)], PLAIN, {}),
    "long ago": ([("a",), ("a",), ("a",), ()], PLAIN, {}),
    "too early": ([("a",), ("a",)], PLAIN, {}),
}


@pytest.mark.parametrize("case", DIRECTIONS)
def test_updates_that_point_away(case: str) -> None:
    rounds, settings, expected = DIRECTIONS[case]
    found = {each.about: each.message for each in advice.on_directions(rounds, settings)}
    assert found.keys() == expected.keys()
    assert all(expected[about] in message for about, message in found.items())


def test_a_run_tells_each_thing_once_whatever_the_figures(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        for number, points in enumerate((0.74, 0.70, 0.66), 5):
            found = advice.on_slices(runs(*[(0.9, 0.85, points)] * 5), 10, PLAIN)
            for event in advice.due(journal.lines, number, found):
                journal.write(event)
        journal.write(Warned(9, "labels", "tiers see different labels"))
    lines, _ = read_journal(tmp_path / "journal.jsonl")
    assert [(line["round"], line["about"]) for line in lines] == [(5, "behind micro"), (9, "labels")]


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ([3], "label 3"),
        ([3, 4], "labels 3 and 4"),
        ([0, 1, 2], "labels 0 to 2"),
        ([0, 1, 2, 5, 7, 8], "labels 0 to 2, 5, 7 and 8"),
        (list(range(0, 40, 2)), "labels 0, 2, 4, 6, 8, 10, 12, 14 and 12 more"),
    ],
)
def test_labels_as_people_say_them(classes: list[int], words: str) -> None:
    assert advice.labels(classes) == words
