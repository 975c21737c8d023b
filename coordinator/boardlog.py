"""What boards and ports said in a run, a file each: log/NAME.log in the run's folder. Not synced, unlike the journal:
a crash may cost the last lines, and a full disk costs no round."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from coordinator.events import Event, NodeLog, PortLog, RoundStarted

FOLDER = "log"  # in the run's folder
MOST_BYTES = 1_000_000  # of a file; the one before it is kept, too, so that a chatterbox fills no disk
MOST_CHARACTERS = 500  # of a line

_LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d) (\d+) (.*)")


@dataclass(frozen=True)
class Said:
    """A line of a board's log."""

    time: str  # local, ISO 8601
    round: int  # 0: before the first
    text: str


class BoardLogs:
    """Keeps the lines of a run: call it with every event."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._round = 0

    def __call__(self, event: Event) -> None:
        """Take in one event."""
        match event:
            case RoundStarted():
                self._round = event.round
            case NodeLog():
                self._append(event.node, event.text)
            case PortLog():
                self._append(event.port, event.text)

    def _append(self, name: str, text: str) -> None:
        shown = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text[:MOST_CHARACTERS])
        line = f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {self._round} {shown}\n"
        path = log_file(self._run, name)
        with contextlib.suppress(OSError):
            path.parent.mkdir(exist_ok=True)
            if path.exists() and path.stat().st_size > MOST_BYTES:
                path.replace(_before(path))
            with path.open("a", encoding="utf-8") as file:
                file.write(line)


def log_file(run: Path, name: str) -> Path:
    """Return where the lines of a node or a port are kept: /dev/ttyUSB0 in log/dev_ttyUSB0.log."""
    return run / FOLDER / (re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("_.") + ".log")


def _before(path: Path) -> Path:
    return path.with_name(path.name + ".1")


def names(run: Path) -> list[str]:
    """Return who has said something in a run."""
    return sorted(path.stem for path in (run / FOLDER).glob("*.log"))


def read(run: Path, name: str) -> list[Said]:
    """Return all lines that are kept of a node or a port, oldest first."""
    path = log_file(run, name)
    return [line for each in (_before(path), path) if each.is_file() for line in _lines(each.read_bytes())]


def follow(run: Path, name: str, interval: float = 0.25) -> Iterator[Said]:
    """Yield all lines, then those that come, for ever. interval: seconds between two looks."""
    path, done = log_file(run, name), 0
    if _before(path).is_file():
        yield from _lines(_before(path).read_bytes())
    while True:
        content = path.read_bytes() if path.is_file() else b""
        if len(content) < done:  # a new file was begun
            done = 0
        whole = content.rfind(b"\n") + 1
        yield from _lines(content[done:whole])
        done = whole
        time.sleep(interval)


def _lines(content: bytes) -> Iterator[Said]:
    for line in content.decode("utf-8", errors="replace").splitlines():
        found = _LINE.fullmatch(line)
        if found:  # else a crash tore it
            yield Said(found[1], int(found[2]), found[3])
