"""What a run looks like while it works: a table in a terminal, a line a round elsewhere, and a picture of it."""

from __future__ import annotations

import io
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .errors import naming
from .events import (
    BoardOffered,
    Evaluated,
    Event,
    Images,
    MethodChosen,
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
    PlanNoted,
    PortLog,
    PortRefused,
    RoundAggregated,
    RoundStarted,
    RunEnded,
    RunStarted,
    StoppedEarly,
    TwinEnded,
    Warned,
)

# Blue and orange are told apart by nearly everybody; the words say the same.
STYLES = {
    "sending": "cyan",
    "training": "blue",
    "fetching": "cyan",
    "done": "bold",
    "lost": "yellow",
    "absent": "yellow",
    "refused": "yellow",
    "quarantined": "yellow",
}
REFRESHES = 5  # a second; the nodes need the processor more
PICTURE_WIDTH = 104  # columns


@dataclass
class NodeRow:
    """What is known of one node."""

    board: str = ""
    tier: str = ""
    state: str = "connecting"
    done: int = 0
    total: int = 0
    loss: float | None = None
    away: bool = False  # lost, and not back yet
    link: NodeProgress | None = None  # whose link figures are the last


@dataclass
class View:
    """A run as its events tell it; `render` draws it."""

    name: str = ""
    rounds: int = 0
    round: int = 0
    started: float = field(default_factory=time.monotonic)
    nodes: dict[str, NodeRow] = field(default_factory=dict)
    accuracy: dict[str, float] = field(default_factory=dict)
    evaluated: int = 0
    images: Images = "test"
    validates: bool = False  # has other images than those for the end, so that it is said which
    ended: bool = False
    how: dict[str, str] = field(default_factory=dict)  # by node: native, or what emulates the chip; empty: not said

    def __call__(self, event: Event) -> None:
        """Take in one event."""
        match event:
            case RunStarted():
                self.name, self.rounds, self.round = event.name, event.rounds, event.after_round
                for node in event.nodes:
                    self.row(node)
            case NodeConnected():
                row = self.row(event.node)
                row.board, row.tier, row.state = self.kind(event.node, event.board), event.tier, "idle"
            case NodeMissing():
                row = self.row(event.node)
                row.board, row.state = event.board, "absent"
            case RoundStarted():
                self.round = event.round
                for node in event.nodes:
                    row = self.row(node)
                    row.state, row.done, row.total = "lost" if row.away else "idle", 0, 0
            case NodeProgress():
                row = self.row(event.node)
                row.state, row.done, row.total = event.stage, event.done, event.total
                row.link = event
                if event.loss is not None and (event.done or event.stage != "training"):
                    row.loss = event.loss
            case NodeAnswered():
                row = self.row(event.node)
                row.state, row.loss = "done", event.loss
            case NodeFailed():
                self.row(event.node).state = "lost"
            case NodeLost():
                row = self.row(event.node)
                row.state, row.away = "lost", True
            case NodeBack():
                row = self.row(event.node)
                row.state, row.away = "idle", False
            case NodeRefused():
                self.row(event.node).state = "refused"
            case NodeQuarantined():
                self.row(event.node).state = "quarantined"
            case Evaluated():
                self.accuracy, self.evaluated, self.images = event.accuracy, event.round, event.images
                self.validates |= event.images == "validation"
            case RunEnded():
                self.ended = True

    def kind(self, node: str, board: str) -> str:
        """Return a node's board and, where that is to be told, what it runs in."""
        return f"{board} in {self.how[node]}" if self.how.get(node, "native") != "native" else board

    def row(self, node: str) -> NodeRow:
        """Return a node's row, made if it is new."""
        return self.nodes.setdefault(node, NodeRow())

    def liveliness(self) -> int:
        """How many different things the nodes do, and how many are halfway: the frame with most of both is shown."""
        rows = self.nodes.values()
        return len({row.state for row in rows}) + sum(0 < row.done < row.total for row in rows)

    def render(self, height: int | None = None, width: int = PICTURE_WIDTH) -> RenderableType:
        """Return the table, cut to `height` lines; in less than PICTURE_WIDTH columns without the boards."""
        title = Text.assemble(
            (self.name or "connecting", "bold"), f"  round {self.round} of {self.rounds}  ", _clock(self)
        )
        rows = list(self.nodes.items())
        shown = rows if height is None else rows[: max(1, height - 7)]
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))
        narrow = width < PICTURE_WIDTH
        for head in ("node",) if narrow else ("node", "board"):  # what is cut short if there is no room for all
            table.add_column(head, no_wrap=True)
        for head in ("tier", "state"):
            table.add_column(head, no_wrap=True, min_width=8)
        table.add_column("" if narrow else "progress", width=6 if narrow else 14)
        for head in ("loss", "kB/s", "ms", "resent", "CRC", "resets"):
            table.add_column(head, justify="right", no_wrap=True, min_width=5 if head in ("loss", "kB/s") else 3)
        for name, row in shown:
            what = (name, row.tier) if narrow else (name, row.board, row.tier)
            table.add_row(*what, Text(row.state, STYLES.get(row.state, "")), _bar(row), *_figures(row))
        parts: list[RenderableType] = [title, Text(), table]
        if len(rows) > len(shown):
            states = Counter(row.state for _, row in rows[len(shown) :])
            parts.append(Text(f"… and {', '.join(f'{count} {state}' for state, count in states.items())}", "dim"))
        return Group(*parts, Text(), Text(self.accuracy_line()))

    def accuracy_line(self) -> str:
        """Return the accuracy of every tier as of the last evaluation."""
        if not self.accuracy:
            return "accuracy: not yet"
        kind = f"{self.images} " if self.validates else ""
        return f"{kind}accuracy after round {self.evaluated}: " + shares(self.accuracy)


def shares(accuracy: dict[str, float]) -> str:
    """Return accuracies as people read them: "expanded 95.1 %  base 94.0 %"."""
    return "  ".join(f"{tier} {100 * value:.1f} %" for tier, value in accuracy.items())


def _clock(view: View) -> str:
    seconds = int(time.monotonic() - view.started)
    return f"{seconds // 60}:{seconds % 60:02d}"


def _bar(row: NodeRow) -> RenderableType:
    if row.state not in ("sending", "training", "fetching", "done"):
        return Text()
    finished = row.state == "done"
    total = max(row.total, 1)
    return ProgressBar(total, total if finished else min(row.done, total), complete_style="blue", finished_style="blue")


def _figures(row: NodeRow) -> tuple[str, ...]:
    """Return loss, kB/s, round trip in ms, retransmissions, damaged frames either way, and resets."""
    loss, link = "" if row.loss is None else f"{row.loss:.3f}", row.link
    if link is None:
        return loss, "", "", "", "", ""
    goodput = f"{link.goodput / 1000:,.0f}" if link.goodput else ""
    trip = "" if link.round_trip is None else f"{1000 * link.round_trip:.{1 if link.round_trip < 0.01 else 0}f}"
    return loss, goodput, trip, *(str(count) for count in (link.retransmissions, link.frames_rejected, link.resets))


def notice(event: Event) -> str | None:
    """Return the line that an event deserves in any log, or None."""
    match event:
        case PlanNoted():
            return event.text
        case NodeMissing():
            return f"{event.node}: no port answers for this {event.board}; the run begins without it"
        case BoardOffered():
            return f"{event.port} does not answer as a node; to make it one: {event.command}"
        case TwinEnded():
            return event.text
        case NodeFailed():
            return f"{event.node}: {event.reason}; round {event.round} goes on without it"
        case NodeLost():
            return f"{event.node}: {event.reason}; looking for it"
        case NodeBack():
            return f"{event.node}: back on {event.port}, {'where it was' if event.resumed else 'started anew'}"
        case NodeRefused():
            return f"{event.node}: {event.reason}; round {event.round} does not take its update"
        case NodeQuarantined():
            return f"{event.node}: {event.reason}; it is quarantined: no later round asks it"
        case Warned():
            return f"warning: {event.message}"
        case NodeAnswered() if event.saturated:
            held = f"a weight or logit was held at its limit {event.saturated:,} times"
            return f"{event.node}: {held} in round {event.round}; a smaller learning_rate may help"
        case NodeLog():
            return f"{event.node} says: {event.text}"
        case PortLog():
            return f"{event.port} says: {event.text}"
        case PortRefused():
            return event.reason
        case MethodChosen():
            return f"from round {event.round} on updates are joined by {event.method}: {event.reason}"
        case StoppedEarly():
            return f"no round after {event.round}: {event.reason}"
        case RoundAggregated() if not event.aggregated:
            return f"round {event.round} is not aggregated: {event.reason}"
    return None


class Watcher:
    """Shows a run: call it with every event, inside `with`. In a terminal a live table; elsewhere lines."""

    def __init__(self, console: Console | None = None, picture: Path | None = None) -> None:
        """Draw on `console` (None: stdout's); write the run's busiest last frame to the SVG file `picture`."""
        self.view = View()
        self._console = console or Console(highlight=False)
        self._picture = picture
        self._best: tuple[int, RenderableType] = (0, "")  # liveliness of the frame to show, and that
        self._aggregated: dict[int, RoundAggregated] = {}
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(_Frame(self.view, self._console), console=self._console, refresh_per_second=REFRESHES)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()  # leaves the last frame on the screen
        through = self.view.ended or self.view.round == self.view.rounds
        if self._picture is not None and self._best[0] and through:
            try:
                with naming(self._picture):
                    picture = svg(self._best[1], f"coordinator · {self.view.name}")
                    self._picture.write_text(picture, encoding="utf-8")
            except OSError:
                if error is None:  # else what ended the run is what there is to tell
                    raise

    def __call__(self, event: Event) -> None:
        """Take in one event of the run."""
        self.view(event)
        plain = self._plain(event) if self._live is None else None
        line = notice(event) or plain
        if line:
            self._console.print(line, markup=False, soft_wrap=True)
        if isinstance(event, RoundStarted):
            self._best = (0, "")  # which round is the last is not known before it is over
        if self._picture is not None and isinstance(event, NodeProgress):
            self._keep_frame()

    def _plain(self, event: Event) -> str | None:
        """Return the line for a log that is no terminal: one a round."""
        match event:
            case RunStarted():
                return f"{event.name}: {len(event.nodes)} nodes, {event.rounds} rounds"
            case NodeConnected():
                kind = self.view.kind(event.node, event.board)
                return f"{event.node}: {kind}, tier {event.tier}, batch {event.batch}, on {event.port}"
            case RoundAggregated():
                self._aggregated[event.round] = event
            case Evaluated():
                done = self._aggregated.pop(event.round, None)  # the next round may have ended meanwhile
                answered = f"{len(done.answered)} answered in {done.seconds:.1f} s, " if done else ""
                plain = event.images == "test" and (done or not event.round)  # else the test comes after the rounds
                what = "" if plain else f"{event.images} images: "
                return f"round {event.round}/{self.view.rounds}: {answered}{what}{shares(event.accuracy)}"
        return None

    def _keep_frame(self) -> None:
        liveliness = self.view.liveliness()
        if liveliness > self._best[0]:
            self._best = liveliness, self.view.render()


class _Frame:
    """A renderable that draws the view anew at each refresh."""

    def __init__(self, view: View, console: Console) -> None:
        self._view, self._console = view, console

    def __rich__(self) -> RenderableType:
        return self._view.render(self._console.height, self._console.width)


def svg(frame: RenderableType, title: str) -> str:
    """Return a picture of a terminal with `frame` in it, as wide as that needs; it names no font of the network."""
    roomy = Console(width=2 * PICTURE_WIDTH, file=io.StringIO())
    width = max(PICTURE_WIDTH, roomy.measure(frame).maximum)
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(frame)
    picture = console.export_svg(title=title, unique_id="live")
    return re.sub(r"@font-face \{.*?\n    \}\n", "", picture, flags=re.DOTALL)
