"""What a run has done, kept so that nothing journaled can be lost: journal.jsonl and one checkpoint a round.

A line is written only after what it tells is true on the disk. A checkpoint is written to a temporary file, synced,
renamed, its folder synced; only then does the journal name it with its SHA-256. After a crash at any instruction the
last line may be torn (it is dropped) and a checkpoint may be unnamed (it is overwritten). Lines that --resume goes by
are synced, with all before them; the others wait for the next of those, because every sync holds up all links.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import math
import os
import re
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from coordinator.errors import RunFileError, naming
from coordinator.events import (
    BoardOffered,
    CheckpointWritten,
    Event,
    NodeLog,
    NodeProgress,
    PortLog,
    RunEnded,
    RunStarted,
    TwinEnded,
)
from coordinator.state import Shapes, State, read_state

Line = dict[str, Any]

COUNTS_BELOW = 1e15  # bytes, samples, rounds: sums of them are still numbers that everything can take
SYNCED = (RunStarted, CheckpointWritten, RunEnded)
TIMES_BELOW = 1e11  # seconds since 1970 that are still a date


class JournalError(RunFileError):
    """A run directory that cannot be used; the message says which, and what to type."""


class Journal:
    """The journal of one run directory, locked while it is open. Use as a context manager."""

    def __init__(self, folder: Path, resume: bool = False) -> None:
        """Open or create `folder`; an existing journal is an error unless `resume`."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "journal.jsonl"
        self._failure: OSError | None = None  # of a write: nothing is written any more
        self._lock = (folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise JournalError(f"{folder}: another coordinator uses it; wait, or take another --run") from error
        try:
            with naming(self._path):
                self.lines = self._open(resume)
                self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
                sync_folder(folder)
        except BaseException:
            self._lock.close()
            raise

    def _open(self, resume: bool) -> list[Line]:
        if not self._path.exists():
            return []
        if not resume and self._path.stat().st_size:
            raise JournalError(f"{self.folder}: holds a run already; go on with --resume, or take another --run")
        lines, size = read_journal(self._path)
        with self._path.open("r+b") as file:
            os.ftruncate(file.fileno(), size)  # a torn last line must not be glued to the next one
            os.fsync(file.fileno())
        return lines

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the run directory."""
        os.close(self._file)
        self._lock.close()

    def write(self, event: Event) -> None:
        """Append an event, and sync it if --resume goes by it; progress and boards' own lines are not journaled."""
        if isinstance(event, NodeProgress | NodeLog | PortLog | BoardOffered | TwinEnded):
            return
        if self._failure is not None:
            raise self._failure  # a line after a torn one would make the journal unreadable
        line = {"event": event_name(type(event)), "time": round(time.time(), 3)} | dataclasses.asdict(event)
        try:
            with naming(self._path):
                _write_all(self._file, json.dumps(line, separators=(",", ":")).encode() + b"\n")
                if isinstance(event, SYNCED):
                    os.fsync(self._file)
        except OSError as error:
            self._failure = error
            raise
        self.lines.append(line)

    def save(self, number: int, state: State) -> CheckpointWritten:
        """Make the state after round `number` durable and return that fact, which is yet to be journaled."""
        path, content = self.folder / _checkpoint(number), state.content()
        write_durably(path, content)
        return CheckpointWritten(number, path.name, hashlib.sha256(content).hexdigest(), weights_sha256(state.result))

    def last_checkpoint(self, shapes: Shapes, before: float = math.inf) -> tuple[int, State] | None:
        """Return the last round, of those before round `before`, whose checkpoint is what was journaled, and the state
        after it; None if there is none."""
        for line in reversed([line for line in self.events(CheckpointWritten) if line["round"] < before]):
            state = self.read_checkpoint(line, shapes)
            if state is not None:
                return int(line["round"]), state
        return None

    def read_checkpoint(self, line: Line, shapes: Shapes) -> State | None:
        """Return the state that a checkpoint_written line names; None if the file is gone or not as it was."""
        return read_checkpoint(self.folder, line, shapes)

    def events(self, kind: type[Event]) -> list[Line]:
        """Return the journaled lines of one kind of event, oldest first."""
        return of_kind(self.lines, kind)


def _checkpoint(number: int) -> str:
    return f"round-{number:03d}.npz"


def read_checkpoint(folder: Path, line: Line, shapes: Shapes) -> State | None:
    """Return the state that a checkpoint_written line of a run's journal names; None if the file is gone or not as it
    was."""
    if line["file"] != _checkpoint(line["round"]):
        return None
    try:
        content = (folder / _checkpoint(line["round"])).read_bytes()
    except OSError:
        return None
    if hashlib.sha256(content).hexdigest() != line["sha256"]:
        return None
    return read_state(content, shapes)


def of_kind(lines: Sequence[Line], kind: type[Event]) -> list[Line]:
    """Return the lines of one kind of event, oldest first."""
    return [line for line in lines if line["event"] == event_name(kind)]


def event_name(kind: type[Event]) -> str:
    """RoundStarted is `round_started` in the journal."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


def read_journal(path: Path) -> tuple[list[Line], int]:
    """Return the lines of a journal and the bytes they take; what follows the last newline was torn and is left out.

    Raises JournalError if a whole line is not one of ours.
    """
    content = path.read_bytes()
    size = content.rfind(b"\n") + 1
    lines: list[Line] = []
    for number, text in enumerate(content[:size].splitlines(), 1):
        try:
            lines.append(parse_line(text))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise JournalError(
                f"{path}:{number}: not a line of a journal; take another run name, or remove the folder"
            ) from error
    return lines, size


def parse_line(text: bytes) -> Line:
    """Return a journal's line: "event", "time" and that event's fields, all of their types and no number out of
    bounds.

    Raises ValueError, TypeError, KeyError or RecursionError if it is anything else.
    """
    line: Line = json.loads(text, parse_int=_count, parse_float=_finite, parse_constant=_finite)
    _validators()[line["event"]].validate_json(text, strict=True)
    if type(line["time"]) not in (int, float) or not 0 <= line["time"] < TIMES_BELOW:
        raise ValueError(f"time is {line['time']!r}")
    return line


def _count(digits: str) -> int:
    if not abs(float(digits)) < COUNTS_BELOW:
        raise ValueError(f"{digits[:20]} is out of bounds")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:20]} is out of bounds")
    return value


@cache
def _validators() -> dict[str, TypeAdapter[Event]]:
    return {event_name(kind): TypeAdapter(kind) for kind in Event.__subclasses__()}


def weights_sha256(weights: Sequence[npt.NDArray[np.float32]]) -> str:
    """Return the SHA-256 of all tensors' bytes (float32, little-endian, C order), in order."""
    digest = hashlib.sha256()
    for tensor in weights:
        digest.update(np.ascontiguousarray(tensor, "<f4").tobytes())
    return digest.hexdigest()


def write_durably(path: Path, content: bytes) -> None:
    """Replace `path` by `content` so that a crash leaves the old or the new file, never a part."""
    temporary = path.with_name(path.name + ".tmp")
    with naming(path):
        with temporary.open("wb") as file:
            _write_all(file.fileno(), content)
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)


def _write_all(descriptor: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
