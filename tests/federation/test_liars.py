"""A node that lies: a real twin whose update is another one by the time that it is decoded."""

import asyncio
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from codegen.protocol import Encoding, Offer
from coordinator import roster, runs
from coordinator.emulation import Twins
from coordinator.events import Event, NodeQuarantined, NodeRefused, RoundAggregated, RoundStarted
from coordinator.link.flows import Partial
from coordinator.link.session import Session
from coordinator.nodes import LinkNode
from coordinator.results import Summary
from coordinator.rounds import Order, Update
from tests.federation.world import World

pytestmark = pytest.mark.e2e

LIAR = "esp32dev-2"
CHANGES = {"rounds": 5, "encoding": "delta_f32"}
Lie = Callable[[Offer, bytes], tuple[Offer, bytes]]


def values(change: Callable[[np.ndarray], np.ndarray]) -> Lie:
    return lambda offer, blob: (offer, change(np.frombuffer(blob, "<f4").copy()).astype("<f4").tobytes())


def ending_in(value: float) -> Lie:
    return lambda offer, blob: (offer, blob[:-4] + struct.pack("<f", value))


LIES: dict[str, tuple[Lie, str]] = {
    "nan": (ending_in(np.nan), "sent 1 values that are not finite"),
    "infinity": (ending_in(np.inf), "sent 1 values that are not finite"),
    "huge": (values(lambda delta: 100 * delta), "its update has norm "),
    "flipped": (values(lambda delta: -delta), "its update points the other way: cosine -"),
    "samples": (lambda offer, blob: (replace(offer, samples=6000), blob), "its update is of 6000 samples; it has 60"),
    "short": (lambda offer, blob: (offer, blob[:-4]), "bytes of delta_f32"),
}


class Stopped(Exception):  # noqa: N818 - what it is
    """The run has come to where a test wants it to end."""


def play(
    world: World, folder: Path, leave_out: str = "", stop: int = 100, resume: bool = False
) -> tuple[Summary, list[Event]]:
    """Run without the node `leave_out`; raises Stopped when round `stop` begins."""
    described, events = world.describe(**CHANGES), list[Event]()

    def observe(event: Event) -> None:
        events.append(event)
        if isinstance(event, RoundStarted) and event.round == stop:
            raise Stopped

    async def run() -> Summary:
        async with Twins(described, world.programs, folder / "shards") as twins:
            ports = [twin.port for twin in twins.twins if twin.name != leave_out]
            return await runs.run(described, ports, folder, observer=observe, resume=resume)

    return asyncio.run(run()), events


def deceive(monkeypatch: pytest.MonkeyPatch, lie: Lie, rounds: range) -> None:
    """Have LIAR's updates of these rounds replaced between the wire and the decoder."""

    class Liar(LinkNode):
        async def _train(self, session: Session, order: Order) -> Update:
            async def lying(number: int, encoding: Encoding, partial: Partial) -> tuple[Offer, bytes]:
                offer, blob = await Session.fetch(session, number, encoding, partial)
                return lie(offer, blob) if self.name == LIAR and number in rounds else (offer, blob)

            monkeypatch.setattr(session, "fetch", lying)
            return await super()._train(session, order)

    monkeypatch.setattr(roster, "LinkNode", Liar)


@pytest.fixture(scope="module")
def without(world: World, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the hash of the weights of a run in which LIAR is not there."""
    return play(world, tmp_path_factory.mktemp("without"), LIAR)[0].weights_sha256


@pytest.mark.parametrize("lie", LIES)
def test_a_liar_is_never_believed_and_asked_three_times(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without: str, lie: str
) -> None:
    change, sentence = LIES[lie]
    deceive(monkeypatch, change, range(1, 100))
    summary, events = play(world, tmp_path)
    assert summary.weights_sha256 == without

    refused = [event for event in events if isinstance(event, NodeRefused)]
    assert [(event.node, event.round) for event in refused] == [(LIAR, 1), (LIAR, 2), (LIAR, 3)]
    assert all(sentence in event.reason for event in refused)
    assert [LIAR in event.nodes for event in events if isinstance(event, RoundStarted)] == [True] * 3 + [False] * 2
    assert not any(LIAR in event.answered for event in events if isinstance(event, RoundAggregated))

    (quarantined,) = [event for event in events if isinstance(event, NodeQuarantined)]
    why = f"the updates of rounds 1, 2, 3 were refused; the last: {refused[-1].reason}"
    assert (quarantined.node, quarantined.round, quarantined.reason) == (LIAR, 3, why)
    told = {node.name: (node.rounds_answered, node.rounds_refused, node.quarantined) for node in summary.nodes}
    assert told[LIAR] == (0, 3, why)
    assert all(each == (5, 0, "") for name, each in told.items() if name != LIAR)
    assert sentence in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_quarantine_outlives_the_coordinator(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without: str
) -> None:
    deceive(monkeypatch, LIES["nan"][0], range(1, 4))
    with pytest.raises(Stopped):
        play(world, tmp_path, stop=5)
    summary, events = play(world, tmp_path, resume=True)
    assert [event.nodes.count(LIAR) for event in events if isinstance(event, RoundStarted)] == [0]
    assert not any(isinstance(event, NodeQuarantined) for event in events)  # it has been said
    assert summary.weights_sha256 == without
    assert {node.name: bool(node.quarantined) for node in summary.nodes}[LIAR]
