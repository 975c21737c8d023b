"""What happens in a run, as plain values, for the live table, the journal and the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Images = Literal["test", "validation"]
Stage = Literal["connecting", "idle", "sending", "training", "fetching", "done", "lost"]


@dataclass(frozen=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True)
class RunStarted(Event):
    """A run begins, or goes on after `after_round` (0: from the start)."""

    name: str
    federation: str  # hash of all that the run depends on
    rounds: int
    nodes: tuple[str, ...]
    after_round: int = 0


@dataclass(frozen=True)
class PlanNoted(Event):
    """What the plan has to say of the whole federation, as the run begins."""

    text: str


@dataclass(frozen=True)
class NodeConnected(Event):
    """A node answered HELLO and is what the plan expects."""

    node: str
    board: str
    tier: str
    uid: str  # 16 hexadecimal digits
    port: str
    samples: int
    batch: int
    encoding: str
    model: str  # hash of the sub-model, 8 hexadecimal digits
    firmware: str
    labels: tuple[int, ...] = ()  # its samples, by class
    proxy: int = 0  # unlabelled images that it holds to rehearse


@dataclass(frozen=True)
class NodeLost(Event):
    """A node's port vanished or fell silent within a round; it is looked for. `reason` is a sentence."""

    node: str
    round: int
    reason: str


@dataclass(frozen=True)
class NodeBack(Event):
    """A node that was lost answers again. `resumed`: it still holds the round; else it started anew."""

    node: str
    round: int
    port: str
    resumed: bool


@dataclass(frozen=True)
class PortRefused(Event):
    """A port that the run does not use; `reason` is a sentence that names it."""

    port: str
    reason: str


@dataclass(frozen=True)
class NodeMissing(Event):
    """The federation file lists a node that no port answers for; the run begins without it."""

    node: str
    board: str


@dataclass(frozen=True)
class BoardOffered(Event):
    """A port looks like the board of a missing node, but nobody answers there. Not journaled."""

    port: str
    command: str  # that flashes it


@dataclass(frozen=True)
class TwinEnded(Event):
    """An emulated board's process ended by itself; `text` is a sentence. Not journaled."""

    text: str


@dataclass(frozen=True)
class NodeLog(Event):
    """A line that a board wrote for people. Not journaled."""

    node: str
    text: str


@dataclass(frozen=True)
class PortLog(Event):
    """A line that came from a port before a node answered there: boot text, or garbage. Not journaled."""

    port: str
    text: str


@dataclass(frozen=True)
class RoundStarted(Event):
    """Orders go out to the nodes."""

    round: int
    nodes: tuple[str, ...]
    learning_rate: float


@dataclass(frozen=True)
class NodeProgress(Event):
    """Where a node is in its round. `done` of `total` are bytes while sending and fetching, samples while training; the
    link's counts are from the beginning of the run, its times and rates the last ones. Not journaled."""

    node: str
    round: int
    stage: Stage
    done: int = 0
    total: int = 0
    loss: float | None = None
    goodput: float = 0.0  # bytes a second
    retransmissions: int = 0
    round_trip: float | None = None  # seconds
    frames_rejected: int = 0  # that came damaged, either way
    resets: int = 0  # times that the node started anew


@dataclass(frozen=True)
class NodeTraffic(Event):
    """What a node's part of one round cost on the wire, whether it answered or not."""

    node: str
    round: int
    bytes_down: int
    bytes_up: int
    retransmissions: int
    frames_rejected: int  # that came damaged from the node
    node_rejected: int = 0  # that came damaged to the node, by its own count
    goodput: float = 0.0  # bytes a second of the last transfer's content
    round_trip: float | None = None  # smoothed, in seconds; None before the first transfer
    resets: int = 0  # times that the node started anew


@dataclass(frozen=True)
class NodeAnswered(Event):
    """A valid update has arrived."""

    node: str
    round: int
    samples: int
    loss: float
    seconds: float
    saturated: int = 0  # times that a fixed-point weight or logit was held at its limit


@dataclass(frozen=True)
class NodeFailed(Event):
    """A node gives nothing in this round; `reason` is a sentence."""

    node: str
    round: int
    reason: str


@dataclass(frozen=True)
class NodeRefused(Event):
    """What a node gave in this round cannot be true and is not believed: an offence; `reason` is a sentence."""

    node: str
    round: int
    reason: str


@dataclass(frozen=True)
class NodeQuarantined(Event):
    """A node has offended too often and takes no part in the rounds after this one; `reason` is a sentence."""

    node: str
    round: int
    reason: str


@dataclass(frozen=True)
class RoundAggregated(Event):
    """A round is over. `aggregated` is false if too few answered; `reason` then says so and the weights stay."""

    round: int
    answered: tuple[str, ...]
    aggregated: bool
    reason: str
    seconds: float


@dataclass(frozen=True)
class CheckpointWritten(Event):
    """The global weights after a round are on the disk. `sha256` is the file's, `weights_sha256` the tensors'."""

    round: int
    file: str
    sha256: str
    weights_sha256: str


@dataclass(frozen=True)
class MethodChosen(Event):
    """From round `round` on, what the nodes give is joined by this method; `reason` follows it and a colon."""

    round: int
    method: str
    reason: str


@dataclass(frozen=True)
class Evaluated(Event):
    """How every tier's slice of the global model after a round answers `images`; round 0 is the initial model.

    `confusion` is [class shown][class answered], and kept of the last round and of each that was the best so far.
    """

    round: int
    accuracy: dict[str, float]  # 0 to 1, by tier, widest first
    seconds: float = 0.0
    images: Images = "test"  # validation: labelled training images that no node holds
    per_class: dict[str, list[float | None]] = field(default_factory=dict)  # the same; None: no image of the class
    confusion: dict[str, list[list[int]]] = field(default_factory=dict)


@dataclass(frozen=True)
class StoppedEarly(Event):
    """No round after this one is run, though more were asked for; `reason` is a sentence."""

    round: int
    reason: str


@dataclass(frozen=True)
class Warned(Event):
    """Something is wrong with the run, though every node does its part; `message` says what to change. Told once of
    each thing that it is `about`."""

    round: int
    about: str
    message: str


@dataclass(frozen=True)
class RunEnded(Event):
    """All rounds are done and the files are written."""

    rounds: int
    seconds: float
    weights_sha256: str


Observer = Callable[[Event], None]
