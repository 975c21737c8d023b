"""What a man in the middle makes of what he has seen. Each call makes an attack that begins anew."""

from __future__ import annotations

from collections.abc import Iterable

from codegen.protocol import Ack, Adjust, FrameType, Hello, State, Status
from coordinator.link.frames import Frame
from coordinator.roster import named_uid
from simulation.cable import Way
from tests.federation.man import Attack, Man, changed, made, other_crc, read

VICTIM, TWIN = "esp32dev-1", "esp32dev-2"  # two boards of a kind


def other_blob(kind: FrameType, announced: str) -> Attack:
    """A bit of a blob is flipped on its way, and the CRC-32 made to fit in the `kind` of message that announces it."""
    way: Way = "down" if kind is FrameType.BEGIN else "up"

    def attack(_man: Man, node: str, where: Way, frame: Frame) -> Iterable[Frame]:
        if node == VICTIM and frame.type == kind:
            message = read(frame)
            change = bytes(2) + b"\x40" + bytes(message.size - 3)
            return [changed(frame, **{announced: other_crc(message.crc, change)})]
        if (node, where, frame.type, frame.chunk) == (VICTIM, way, FrameType.DATA, 0):
            data = frame.payload
            return [frame._replace(payload=data[:2] + bytes([data[2] ^ 0x40]) + data[3:])]
        return [frame]

    return attack


def earlier_update() -> Attack:
    """In round 2 the host is given the update of round 1."""
    return _answer_fetch(VICTIM, recorded=1, played=2)


def update_of_another() -> Attack:
    """The host is given the update of another node of the same board and round."""
    return _answer_fetch(TWIN, recorded=1, played=1)


def _answer_fetch(source: str, recorded: int, played: int) -> Attack:
    kept: list[Frame] = []
    answering: set[int] = set()  # transfers

    def attack(man: Man, node: str, way: Way, frame: Frame) -> Iterable[Frame]:
        update = frame.type in (FrameType.OFFER, FrameType.DATA)
        if (node, way) == (source, "up") and update and man.round(source) == recorded:
            kept.append(frame)
        if (node, way) != (VICTIM, "down"):
            return [frame]
        if frame.type == FrameType.FETCH and read(frame).round == played:
            answering.add(frame.transfer)

            def offer() -> None:
                man.tell_host(VICTIM, changed(kept[0]._replace(transfer=frame.transfer), round=played))

            man.later(0.9, offer)  # when the other one has been heard
            return []
        if frame.type == FrameType.ACK and frame.transfer in answering:
            man.tell_host(VICTIM, *(each._replace(transfer=frame.transfer) for each in kept[1:]))
            return []
        return [frame]

    return attack


def earlier_weights() -> Attack:
    """In round 2 the node is given the weights of round 1, with all that came with them."""
    kept: dict[tuple[int, int], Frame] = {}

    def attack(man: Man, node: str, way: Way, frame: Frame) -> Iterable[Frame]:
        if (node, way) != (VICTIM, "down") or frame.type not in (FrameType.BEGIN, FrameType.DATA, FrameType.COMMIT):
            return [frame]
        before = kept.setdefault((frame.type, frame.chunk), frame)
        if man.round(node) == 1:
            return [frame]
        if frame.type == FrameType.DATA:
            return [frame._replace(payload=before.payload)]
        return [changed(before._replace(transfer=frame.transfer), round=2)]

    return attack


def late_adjustment() -> Attack:
    """The weights have been accepted; then the labels are weighed otherwise."""

    def attack(_man: Man, node: str, _way: Way, frame: Frame) -> Iterable[Frame]:
        starts = (node, frame.type) == (VICTIM, FrameType.TRAIN)
        return [made(Adjust(0, (0.1, -0.1)), 255), frame] if starts else [frame]

    return attack


def crossed(rename: bool) -> Attack:
    """What is sent to one node reaches another one of the same board, and the other way round; he may rename them."""
    other = {VICTIM: TWIN, TWIN: VICTIM}

    def attack(man: Man, node: str, way: Way, frame: Frame) -> Iterable[Frame]:
        if node not in other:
            return [frame]
        if way == "down":
            man.tell_node(other[node], frame)
        else:
            uid = bytes.fromhex(named_uid(other[node]))
            renames = rename and frame.type == FrameType.HELLO
            man.tell_host(other[node], changed(frame, uid=uid) if renames else frame)
        return []

    return attack


def exchanged() -> Attack:
    """Frames of a transfer overtake each other."""
    held: dict[tuple[str, Way], Frame] = {}

    def attack(_man: Man, node: str, way: Way, frame: Frame) -> Iterable[Frame]:
        before = held.pop((node, way), None)
        if before is None and frame.type == FrameType.DATA:
            held[node, way] = frame
            return []
        return [frame] if before is None else [frame, before]

    return attack


def doubled() -> Attack:
    """Everything comes twice."""
    return lambda _man, _node, _way, frame: [frame, frame]


def keeps_the_old_update() -> Attack:
    """The node hears of the round, but of no weights; the host is told that all is well."""
    doing: dict[int, State] = {FrameType.ABORT: State.IDLE, FrameType.COMMIT: State.LOADED, FrameType.TRAIN: State.DONE}

    def attack(man: Man, node: str, way: Way, frame: Frame) -> Iterable[Frame]:
        if node != VICTIM:
            return [frame]
        if (way, frame.type) == ("up", FrameType.STATUS):  # as if it knew nothing of the round yet
            return [changed(frame, state=State.READY)]
        state = doing.get(frame.type) if way == "down" else None
        if state is not None:
            boot = read(man.passed(node, "up", Hello)[-1]).boot
            man.tell_host(node, made(Status(state, 1, boot, 8, 8, 0.0, 0, 0), frame.transfer))
            return []
        if way == "down" and frame.type in (FrameType.BEGIN, FrameType.DATA):
            man.tell_host(node, made(Ack(0, 0), frame.transfer, frame.chunk + (frame.type == FrameType.DATA)))
            return []
        return [frame]

    return attack
