"""Nodes that are found elsewhere, twice, or changed; ports that lead to others."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
from functools import partial
from pathlib import Path

import pytest

from coordinator import roster, rounds, runs
from coordinator.errors import HINTS
from coordinator.events import (
    Event,
    NodeAnswered,
    NodeBack,
    NodeConnected,
    NodeFailed,
    NodeLost,
    NodeMissing,
    PortRefused,
    RoundStarted,
)
from simulation.cable import Cable
from simulation.clock import run_virtually
from simulation.faults import FOR_EVER, Fault
from simulation.judge import LOST, judge
from simulation.play import PARTS, Ending, Violation
from simulation.world import FEDERATION, World
from tests.simulation.watched import Watched, made

MEGA, ESP, UNO = "megaatmega2560-1", "esp32dev-1", "uno_r4_minima-1"
ALL = ((MEGA, ESP, UNO),) * 2
SPARE = "sim3"


def of(ending: Ending, kind: type[Event]) -> list[Event]:
    return [event for event in ending.events if isinstance(event, kind)]


def refusals(ending: Ending) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for event in ending.events:
        if isinstance(event, PortRefused):
            found.setdefault(event.port, []).append(event.reason)
    return found


def spare(play: Watched, small: World, folder: Path, at: int, **changes: str) -> Cable:
    """Return one more cable of the run, not plugged in, and behind it another board like node `at`."""
    cable = Cable(SPARE, dataclasses.replace(small.nodes(made(folder / "spare"))[at], **changes))  # type: ignore[arg-type]
    cable.plugged = False
    play.cables[SPARE] = cable
    return cable


def replace(play: Watched, other: Cable) -> None:
    """Plug `other` in and pull out a node's cable for a while."""
    play.cables["sim1"].pull()
    other.plug()
    play.later(6.0, play.cables["sim1"].plug)


@pytest.mark.parametrize("pulled", [True, False], ids=["ports vanish", "ports stay"])
def test_swapped_cables_swap_the_ports(small: World, tmp_path: Path, pulled: bool) -> None:
    """Both nodes go on where they were, on each other's port."""
    play = Watched(small, tmp_path)
    esp, uno = play.cables["sim1"], play.cables["sim2"]

    def swap() -> None:
        for cable in (esp, uno) if pulled else ():
            cable.pull()
            play.later(0.5, cable.plug)
        if pulled:
            esp.swap(uno)
        else:
            esp.silent = uno.silent = True
            esp.swap(uno)
            play.later(1.5, esp.speak)
            play.later(1.5, uno.speak)

    play.when_training(ESP, swap)
    ending = play.hold()
    assert ending.answered == ALL
    assert ending.state.content() == small.reference(ALL, made(tmp_path / "reference")).content()
    back = {event.node: event.port for event in ending.events if isinstance(event, NodeBack)}
    assert back == {ESP: "sim2", UNO: "sim1"}


def test_a_node_that_moves_to_another_port_is_found_there(small: World, tmp_path: Path) -> None:
    play = Watched(small, tmp_path)
    other = spare(play, small, tmp_path, 1)

    def move() -> None:
        play.cables["sim1"].pull()
        other.attach(play.cables["sim1"].node)
        play.later(1.0, other.plug)

    play.when_training(ESP, move)
    ending = play.hold()
    assert refusals(ending)[SPARE] == ["sim3: there is no such port; `coordinator ports` lists what is there"]
    (back,) = of(ending, NodeBack)
    assert back == NodeBack(ESP, 1, SPARE, resumed=True)
    assert ending.answered == ALL


@pytest.mark.parametrize(
    ("at", "changes", "words"),
    [
        (0, {}, "sim3: says it is .* as sim0 does; the second is left alone, unplug one"),
        (0, {"uid": "00000000000000ff"}, "sim3: 00000000000000ff is a megaatmega2560 that is no node of this run"),
    ],
    ids=["two of one id", "a stranger"],
)
def test_who_is_met_in_a_search_is_refused_in_words(
    small: World, tmp_path: Path, at: int, changes: dict[str, str], words: str
) -> None:
    play = Watched(small, tmp_path)
    other = spare(play, small, tmp_path, at, **changes)
    play.when_training(ESP, partial(replace, play, other))
    ending = play.hold()
    absent, refused = refusals(ending)[SPARE]
    assert "there is no such port" in absent
    assert re.match(words, refused)
    assert ending.answered == ALL


def test_a_disk_that_is_full_when_a_stranger_is_met_is_said(small: World, tmp_path: Path) -> None:
    """By whoever journals next: the search has nobody to tell."""
    for at in range(15, 24):  # round 1
        folder = made(tmp_path / str(at))
        play = Watched(small, made(folder / "run"), Fault("full", at, size=1_000_000))
        other = spare(play, small, folder, 0, uid="00000000000000ff")
        play.when_training(ESP, partial(replace, play, other))
        ending = play.hold()
        assert ending.parts == [
            f"{folder / 'run' / 'run' / 'journal.jsonl'}: {os.strerror(errno.ENOSPC)}{HINTS[errno.ENOSPC]}",
            "",
        ], at


def test_a_board_with_other_firmware_ends_its_own_part_alone(
    small: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play = Watched(small, tmp_path)

    def flash() -> None:
        monkeypatch.setattr(roster, "sources_hash", lambda: 0xBAD)
        play.cables["sim1"].pull()
        play.later(0.5, play.cables["sim1"].plug)

    play.when_training(ESP, flash)
    ending = play.hold()
    failed = [event for event in ending.events if isinstance(event, NodeFailed)]
    assert {event.node for event in failed} == {ESP}
    assert all("built from other sources than these (00000bad); rebuild it" in event.reason for event in failed)
    assert ending.answered == ((MEGA, UNO),) * 2 and ending.parts == [""]


def test_a_straggler_is_dropped_at_its_deadline_and_its_late_answer_with_it(
    small: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It speaks all the time, so it is not lost; it is only slow, in the first round."""
    monkeypatch.setattr(rounds, "PATIENCE_SECONDS", 2.0)
    play = Watched(small, tmp_path)
    node = play.cables["sim1"].node

    def slow(event: Event) -> None:
        if isinstance(event, RoundStarted):
            node.on_step = lambda _: node.hang(0.7) if event.round == 1 else None

    play.act = slow
    ending = play.hold()
    (failed,) = [event for event in ending.events if isinstance(event, NodeFailed)]
    assert (failed.node, failed.round) == (ESP, 1) and re.match(
        r"no update within \d s, 4 times its plan", failed.reason
    )
    assert not [event for event in ending.events if isinstance(event, NodeLost)]
    assert ending.answered == ((MEGA, UNO), (MEGA, ESP, UNO))
    assert [event.round for event in ending.events if isinstance(event, NodeAnswered) and event.node == ESP] == [2]
    whole = small.reference(ending.answered, made(tmp_path / "reference"))
    assert ending.state.content() == whole.content()


def test_when_all_cables_are_out_the_run_says_so_and_goes_on_later(
    small: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "BARREN_ROUNDS", 1)
    places = [frames // 3 for frames in small.extent.frames]  # in the first round
    faults = [Fault("unplug", at, node, seconds=FOR_EVER) for node, at in enumerate(places)]
    ending = small.play(faults, tmp_path)
    assert "1 rounds in a row had too few answers; look at the nodes, then go on with --resume" in ending.parts[0]
    assert ending.parts[1:] == [""] and ending.answered == ALL
    assert ending.state.content() == small.reference(ALL, made(tmp_path / "reference")).content()


MISSING = [
    ("unplug", "sim1: the port vanished (unplugged)"),
    ("silence", "sim1: no Tierfed node answers in 2.5 s (nothing comes)"),
    ("busy port", "sim1: busy: another program has it open"),
]


@pytest.mark.parametrize(("kind", "words"), MISSING, ids=[kind for kind, _ in MISSING])
def test_a_node_that_is_missing_at_first_joins_a_later_round(
    small: World, tmp_path: Path, kind: str, words: str
) -> None:
    """What becomes of its port while it is greeted costs it the rounds until it is found, not the run."""
    world = World(tmp_path / "world", FEDERATION.replace("rounds = 2", "rounds = 4"), like=small)
    play = Watched(world, made(tmp_path / "run"), Fault(kind, 1, 1, seconds=14.0))
    other = play.cables["sim2"].node

    def linger(event: Event) -> None:
        if isinstance(event, RoundStarted):  # which may take long enough
            other.on_step = lambda _: other.hang(0.7)

    play.act = linger
    ending = play.hold()
    assert judge(world, ending, tmp_path / "run") == LOST
    assert ending.answered[0] == (MEGA, UNO) and ending.answered[-1] == (MEGA, ESP, UNO)
    told = [event for event in ending.events if isinstance(event, NodeMissing | NodeConnected)]
    assert [event.node for event in told] == [MEGA, ESP, UNO, ESP]
    assert [isinstance(event, NodeMissing) for event in told] == [False, True, False, False]
    assert list(refusals(ending)) == ["sim1"] and refusals(ending)["sim1"][0].startswith(words)


def test_of_ports_that_were_not_named_those_that_answer_are_refused_in_words(
    small: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def held() -> roster.Roster:
        nodes = small.nodes(made(tmp_path / "nodes"))
        others = small.nodes(made(tmp_path / "others"))[:2]
        others[0] = dataclasses.replace(others[0], uid="00000000000000ff")
        cables = {f"sim{at}": Cable(f"sim{at}", node) for at, node in enumerate([*nodes, *others])}
        for name, cable in cables.items():
            cable.silent = name == "sim4"
            cable.node.start()
        cables["sim2"].plugged = False
        monkeypatch.setattr(roster, "likely_ports", lambda: list(cables))
        there = await roster.assemble(
            small.federation, small.inputs.plans, [roster.AUTO], lambda _: None,
            open_port=lambda name, baud: cables[name].open(baud),
        )  # fmt: skip
        await there.close()
        for cable in cables.values():
            cable.node.stop()
        return there

    there = run_virtually(held)
    assert [node.name for node in there.nodes] == [MEGA, ESP]
    assert list(there.refused) == ["sim2", "sim3"] and there.silent == ["sim4"]
    assert "there is no such port" in str(there.refused["sim2"])
    assert "for which the federation file has no node left" in str(there.refused["sim3"])


def test_a_run_that_quarantine_leaves_too_few_nodes_ends_at_once_and_whenever_it_is_resumed(
    small: World, tmp_path: Path
) -> None:
    strict = FEDERATION.replace("min_nodes = 2", "min_nodes = 3\nquarantine = 1")
    play = Watched(World(tmp_path / "world", strict, like=small), made(tmp_path / "run"), Fault("NaN update", 1, 1))
    with pytest.raises(Violation) as held:
        play.hold()
    assert str(held.value).count(f"{ESP} quarantined, so 2 nodes are left and a round needs 3 (min_nodes)") == PARTS
    assert len([event for _, event in play.times if isinstance(event, RoundStarted)]) == 1
