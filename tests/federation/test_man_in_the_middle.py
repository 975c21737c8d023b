"""Whatever a man in the middle does, nothing of his is aggregated: a run ends with the bits that it has without him, or
without those whom he attacked in the rounds in which he did."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from codegen.protocol import (
    MESSAGES,
    Abort,
    Ack,
    Adjust,
    Authenticate,
    Baud,
    Begin,
    Challenge,
    Commit,
    Encoding,
    Error,
    ErrorCode,
    Fetch,
    FrameType,
    Hello,
    HelloRequest,
    Labels,
    LabelsRequest,
    Log,
    Message,
    Offer,
    Proof,
    Samples,
    Setup,
    State,
    Status,
    StatusRequest,
    Train,
    TransferKind,
)
from coordinator import federation, state
from coordinator.keys import make_keys
from coordinator.link.frames import Decoder, Frame, encode
from simulation.cable import Way
from simulation.node import SimulatedNode
from simulation.world import FEDERATION, World
from tests.federation.attacks import (
    TWIN,
    VICTIM,
    crossed,
    doubled,
    earlier_update,
    earlier_weights,
    exchanged,
    keeps_the_old_update,
    late_adjustment,
    other_blob,
    update_of_another,
)
from tests.federation.man import Attack, Man, Outcome, attacked, changed, hold, made, powered, read
from tests.simulation.conftest import small

__all__ = ["small"]

TWO_OF_A_KIND = FEDERATION.replace('board = "esp32dev"', 'board = "esp32dev"\ncount = 2')
NOBODY: Attack = lambda _man, _node, _way, frame: [frame]  # noqa: E731


@pytest.fixture(scope="module")
def keyed(small: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A federation whose nodes have keys."""
    world = World(tmp_path_factory.mktemp("keyed"), TWO_OF_A_KIND, like=small)
    make_keys(world.federation, world.names)
    return world


@pytest.fixture(scope="module")
def open_world(keyed: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The same without keys."""
    folder = tmp_path_factory.mktemp("open")
    world = copy(keyed)
    world.federation = federation.load(Path(shutil.copy(keyed.federation.path, folder)))
    return world


def same(world: World, outcome: Outcome, folder: Path) -> bool:
    """Whether the weights are those of rounds in which only those are asked who answered, with nobody in the middle."""
    return outcome.state.content() == world.reference(outcome.answered, folder).content()


def judge(world: World, outcome: Outcome, folder: Path) -> None:
    """Hold a run to what it promises: the bits, and a reason for everybody who is missing."""
    assert same(world, outcome, folder)
    for number, names in enumerate(outcome.answered, 1):
        for name in set(world.names) - set(names):
            assert outcome.refused.get(name) or outcome.failures[name, number]


def said(outcome: Outcome) -> str:
    """Return what became of the attacked: "whole", or that it was refused or lost, and why."""
    if VICTIM in outcome.refused:
        return f"refused: {outcome.refused[VICTIM]}"
    reasons = [reason for (node, _), reason in sorted(outcome.failures.items()) if node in (VICTIM, TWIN)]
    return f"lost: {reasons[0]}" if reasons else "whole"


def test_nobody_in_the_middle(keyed: World, open_world: World, tmp_path: Path) -> None:
    outcome, man = attacked(keyed, tmp_path, NOBODY)
    assert (said(outcome), man.acts) == ("whole", 0)
    assert all(man.passed(name, "down", Authenticate) and any(offer_macs(man, name)) for name in keyed.names)
    without, man = attacked(open_world, tmp_path, NOBODY)
    assert not any(man.passed(name, "down", Challenge) or any(offer_macs(man, name)) for name in keyed.names)
    assert outcome.state.content() == without.state.content()  # nothing aggregated depends on keys and nonces


def offer_macs(man: Man, node: str) -> list[int]:
    return [byte for frame in man.passed(node, "up", Offer) for byte in read(frame).mac]


# Every field of every message

WRONG_PROOF = "refused: .* says that it is [0-9a-f]{16}, and its proof is wrong; esp32dev-1 has a key: flash it"
NOT_OURS = "lost: .* it has a key, and what arrived before COMMIT does not fit it"
NOT_ITS = "lost: .* its update is not of this round, these weights and the labels that it said, or it was changed"
REFUSED = "lost: the node refused: "
FIELDS: list[tuple[type[Message], str, object, str]] = [
    (HelloRequest, "protocol", 9, "whole"),
    (Hello, "protocol", 3, "refused: .*speaks protocol 3"),
    (Hello, "mtu", 100, WRONG_PROOF),
    (Hello, "window", 1, WRONG_PROOF),
    (Hello, "encodings", 1, WRONG_PROOF),
    (Hello, "boot", 7, WRONG_PROOF),
    (Hello, "uid", bytes(8), "refused: .*: 0{16} is no board of esp32dev-1, which has a key; flash it with that"),
    (Hello, "firmware", 7, WRONG_PROOF),
    (Hello, "model", 7, WRONG_PROOF),
    (Hello, "samples", 9, WRONG_PROOF),
    (Hello, "batch", 1, WRONG_PROOF),
    (Hello, "kernel", 1, WRONG_PROOF),
    (Hello, "parameters", 7, WRONG_PROOF),
    (Hello, "source", 1, WRONG_PROOF),
    (Hello, "proxy", 9, WRONG_PROOF),
    (Hello, "board", "uno_r4_minima", WRONG_PROOF),
    (Hello, "tier", "half", WRONG_PROOF),
    (Challenge, "nonce", bytes(16), WRONG_PROOF),
    (Proof, "nonce", bytes(16), WRONG_PROOF),
    (Proof, "mac", bytes(16), WRONG_PROOF),
    (Authenticate, "mac", bytes(16), "refused: .*does not prove it .*wants proof of it before AUTHENTICATE"),
    (LabelsRequest, "first", 1, "refused: .*it has counts for 0 labels"),
    (Labels, "first", 1, "refused: .*it has counts for 0 labels"),
    (Labels, "counts", (8, 0, 0, 0), NOT_ITS),
    (Setup, "round", 9, "lost: "),
    (Setup, "seed", 7, NOT_OURS),
    (Setup, "learning_rate", 9.0, NOT_OURS),
    (Setup, "momentum", 0.9, NOT_OURS),
    (Setup, "epochs", 3, NOT_OURS),
    (Setup, "batch", 1, NOT_OURS),
    (Setup, "encoding", 0, NOT_OURS),
    (Setup, "nested", 0, NOT_OURS),
    (Setup, "rehearsals", 1, NOT_OURS),
    (Setup, "max_norm", 1.0, NOT_OURS),
    (Setup, "shift", 1, NOT_OURS),
    (Adjust, "first", 1, REFUSED),
    (Adjust, "values", (5.0, -5.0, 0.0, 0.0), NOT_OURS),
    (Begin, "kind", TransferKind.SAMPLE, REFUSED),
    (Begin, "payload", 100, "lost: "),
    (Begin, "round", 9, REFUSED),
    (Begin, "size", 100, REFUSED),
    (Begin, "crc", 7, REFUSED + "the transfer arrived damaged"),
    (Commit, "round", 9, REFUSED),
    (Commit, "mac", bytes(16), NOT_OURS),
    (Train, "round", 9, REFUSED),
    (Fetch, "round", 9, REFUSED),
    (Fetch, "encoding", Encoding.WEIGHTS, "lost: .*offers an update of round 1 in encoding 0; asked for were"),
    (Fetch, "payload", 100, "lost: "),
    (Offer, "round", 9, "lost: .*offers an update of round 9"),
    (Offer, "encoding", 0, "lost: .*offers an update of round 1 in encoding 0"),
    (Offer, "size", 100, "lost: "),
    (Offer, "crc", 7, "lost: .*arrived damaged twice"),
    (Offer, "samples", 800, NOT_ITS),
    (Offer, "loss", 0.0, NOT_ITS),
    (Offer, "saturated", 7, NOT_ITS),
    (Offer, "mac", bytes(16), NOT_ITS),
    (Status, "state", State.IDLE, "lost: "),
    (Status, "round", 9, "lost: "),
    (Status, "boot", 7, "lost: it started anew twice"),
    (Status, "done", 7, "whole"),
    (Status, "total", 7, "whole"),
    (Status, "loss", 7.0, "whole"),
    (Status, "rejected", 7, "whole"),
    (Status, "saturated", 7, "whole"),
    (Baud, "rate", 9600, "whole"),
    (Ack, "map", 0xFFFF, "whole"),
    (Ack, "stalled", 1, "whole"),
]
SELDOM: set[type[Message]] = {Samples, StatusRequest, Abort, Log, Error}  # not in these runs, or without a field


def test_every_field_is_in_the_table() -> None:
    there = {(message, field.name) for message in MESSAGES if message not in SELDOM for field in fields(message)}
    assert {(message, name) for message, name, _, _ in FIELDS} == there


@pytest.mark.parametrize(
    ("message", "field", "value", "words"), FIELDS, ids=[f"{case[0].type.name}.{case[1]}" for case in FIELDS]
)
def test_a_field_that_is_changed(
    keyed: World, tmp_path: Path, message: type[Message], field: str, value: object, words: str
) -> None:
    def attack(_man: Man, node: str, _way: Way, frame: Frame) -> Iterable[Frame]:
        mine = node == VICTIM and frame.type == message.type
        return [changed(frame, **{field: value}) if mine else frame]

    outcome, man = attacked(keyed, tmp_path, attack)
    assert man.acts > 0
    assert re.match(words, said(outcome)), said(outcome)
    judge(keyed, outcome, tmp_path)


# What he makes of what he has seen

CRAFTED: list[tuple[str, Callable[[], Attack], str, bool]] = [  # with keys it ends so; without, does he have his way?
    ("other weights", lambda: other_blob(FrameType.BEGIN, "crc"), NOT_OURS, True),
    ("another update", lambda: other_blob(FrameType.OFFER, "crc"), NOT_ITS, True),
    ("earlier update", earlier_update, NOT_ITS, True),
    ("another node's update", update_of_another, NOT_ITS, True),
    ("earlier weights", earlier_weights, NOT_OURS, True),
    ("late adjustment", late_adjustment, NOT_ITS, True),
    ("swapped nodes", lambda: crossed(rename=True), "refused: .*its proof is wrong", True),
    ("swapped cables", lambda: crossed(rename=False), "whole", False),
    ("reordered", exchanged, "whole", False),
    ("doubled", doubled, "whole", False),
]


@pytest.mark.parametrize(("make", "words"), [case[1:3] for case in CRAFTED], ids=[case[0] for case in CRAFTED])
def test_what_he_makes_of_what_he_saw_is_of_no_use(
    keyed: World, tmp_path: Path, make: Callable[[], Attack], words: str
) -> None:
    outcome, man = attacked(keyed, tmp_path, make())
    assert man.acts > 0
    assert re.match(words, said(outcome)), said(outcome)
    judge(keyed, outcome, tmp_path)


@pytest.mark.parametrize(("make", "wins"), [pytest.param(case[1], case[3], id=case[0]) for case in CRAFTED])
def test_without_keys_he_has_his_way(open_world: World, tmp_path: Path, make: Callable[[], Attack], wins: bool) -> None:
    outcome, _ = attacked(open_world, tmp_path, make())
    assert (said(outcome), same(open_world, outcome, tmp_path)) == ("whole", not wins)


def test_a_recorded_run_is_not_another(keyed: World, tmp_path: Path) -> None:
    """He plays a node, with the very answers that it gave in an earlier run."""
    _, before = attacked(keyed, tmp_path, NOBODY)

    def attack(man: Man, node: str, way: Way, frame: Frame) -> Iterable[Frame]:
        if node != VICTIM:
            return [frame]
        if way == "down":
            man.tell_host(node, *(each._replace(transfer=frame.transfer) for each in before.answers(node, frame)))
        return []

    outcome, man = attacked(keyed, tmp_path, attack)
    assert re.match(WRONG_PROOF, said(outcome)), said(outcome)
    assert len(man.passed(VICTIM, "down", Challenge)) == 1


def test_a_coordinator_is_not_played_to_a_node_that_has_restarted(keyed: World, tmp_path: Path) -> None:
    async def play(nodes: list[SimulatedNode]) -> None:
        _, man = await hold(keyed, nodes, NOBODY)
        node = next(node for node in nodes if node.name == VICTIM)
        decoder, answers, steps = Decoder(), list[Frame](), node.steps
        node.write = lambda data, _rate: answers.extend(decoder.feed(data))
        node.start()
        for _, way, frame in [each for each in man.seen if each[0] == VICTIM]:
            if way == "down":
                node.hear(b"\0" + encode(*frame))
                await asyncio.sleep(0.1)
        refused = {read(frame).code for frame in answers if frame.type == FrameType.ERROR}
        states = {read(frame).state for frame in answers if frame.type == FrameType.STATUS}
        assert ErrorCode.UNAUTHENTICATED in refused and states <= {State.IDLE}
        assert FrameType.OFFER not in {frame.type for frame in answers} and node.steps == steps

    powered(keyed, tmp_path, play)


def test_what_a_node_learnt_from_other_weights_does_not_count(keyed: World, tmp_path: Path) -> None:
    """A second run begins with other weights; he keeps them from the node, which still has its update of the first."""
    halved = state.State([tensor * np.float32(0.5) for tensor in keyed.inputs.weights])

    async def play(nodes: list[SimulatedNode]) -> tuple[Outcome, Outcome]:
        first, _ = await hold(keyed, nodes, NOBODY, rounds=1)
        assert said(first) == "whole"
        second, man = await hold(keyed, nodes, keeps_the_old_update(), halved, rounds=1)
        assert man.passed(VICTIM, "up", Offer)
        return first, second

    _, outcome = powered(keyed, tmp_path, play)
    assert re.match(NOT_ITS, said(outcome)), said(outcome)
    others = [name for name in keyed.names if name != VICTIM]
    without, _ = powered(keyed, tmp_path, lambda nodes: hold(keyed, nodes, NOBODY, halved, rounds=1, asked=others))
    assert outcome.state.content() == without.state.content()


# What he makes up

MOMENTS = (FrameType.SETUP, FrameType.DATA, FrameType.COMMIT, FrameType.TRAIN, FrameType.FETCH)
TO_NODE: list[Message] = [
    HelloRequest(), LabelsRequest(0), StatusRequest(), Abort(), Train(1), Fetch(1, Encoding.WEIGHTS, 200), Baud(9600),
    Setup(1, 7, 9.0, 0.0, 1, 4, Encoding.DELTA_Q8, 1), Adjust(0, (9.0, -9.0, 9.0, -9.0)), Commit(1), Samples(3),
    Begin(TransferKind.WEIGHTS, 248, 1, 1280, 7), Challenge(bytes(16)), Authenticate(bytes(16)), Ack(0xFFFFFFFF, 1),
]  # fmt: skip
SERIOUS = (ErrorCode.BAD_CRC, ErrorCode.NOT_FINITE, ErrorCode.UNAUTHENTICATED, ErrorCode.WRONG_MAC, 99)
TO_HOST: list[Message] = [
    Status(State.DONE, 1, 1, 8, 8, 0.0, 0, 0), Status(State.IDLE, 0, 7, 0, 0, 0.0, 0, 0), Ack(0, 0), Log("hello"),
    Labels(0, (8, 0, 0, 0)), Offer(1, Encoding.DELTA_Q8, 8, 0, 8, 0.0, 0), Proof(bytes(16), bytes(16)),
    *(Error(code, 7) for code in SERIOUS),
]  # fmt: skip


def forged(message: Message, moment: FrameType, transfer: int | None, to_node: bool) -> Attack:
    """He says something of his own when the host speaks. transfer: its number, None for that of what the host says."""

    def attack(man: Man, node: str, way: Way, frame: Frame) -> Iterable[Frame]:
        if (node, way, frame.type) == (VICTIM, "down", moment):
            forgery = made(message, frame.transfer if transfer is None else transfer)
            if to_node:
                return [forgery, frame, forgery]
            man.tell_host(node, forgery)
        return [frame]

    return attack


@pytest.mark.parametrize("message", TO_NODE, ids=[message.type.name for message in TO_NODE])
def test_what_is_forged_for_a_node(keyed: World, tmp_path: Path, message: Message) -> None:
    for moment in MOMENTS:
        outcome, man = attacked(keyed, tmp_path, forged(message, moment, 255, to_node=True))
        assert man.acts > 0
        judge(keyed, outcome, tmp_path)


@pytest.mark.parametrize("message", TO_HOST, ids=lambda each: f"{each.type.name}-{getattr(each, 'code', 0)}")
def test_what_is_forged_for_the_coordinator(keyed: World, tmp_path: Path, message: Message) -> None:
    for moment in MOMENTS:
        for transfer in (None, 0) if isinstance(message, Status | Error) else (None,):
            outcome, man = attacked(keyed, tmp_path, forged(message, moment, transfer, to_node=False))
            assert man.acts > 0
            judge(keyed, outcome, tmp_path)
