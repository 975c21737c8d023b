"""What a disk makes of a run's files when the coordinator is killed, the power fails, or there is no room left.

A run writes its files by os.write and makes them durable by fsync and rename, so those are the places where it can be
cut off: `Disk` counts them. What was written but not yet synced may be there afterwards wholly, in part, or not at all.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


class Killed(BaseException):
    """The coordinator is no more."""


@dataclass(eq=False)
class Cut:
    """Something happens at disk operation `at`: a `share` (0 to 1) of what that operation was to do is done.

    error: of the operation and those after it, `lasts` altogether; 0: the coordinator is killed. power: the computer's
    fails, and only a share is left of what was not yet synced.
    """

    at: int
    share: float
    error: int = 0
    power: bool = False
    lasts: int = 1
    happened: bool = False


class Disk:
    """The disk under one run's folder. Counts writes, fsyncs and renames from 1; `operations` is how many there have
    been."""

    def __init__(self, folder: Path, cuts: list[Cut], on_kill: Callable[[], None]) -> None:
        self.operations = 0
        self._folder = folder
        self._cuts = cuts
        self._on_kill = on_kill
        self._durable: dict[Path, bytes] = {}  # as of the last fsync
        self._renamed: tuple[Path, Path] | None = None  # not durable before the folder is synced
        self._snapshot: dict[Path, bytes] | None = None  # of a coordinator that was killed
        self._failing: Cut | None = None

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """Have this process's write, fsync and rename go through here."""
        fsync, replace, write = os.fsync, os.replace, os.write

        def put(descriptor: int, data: bytes) -> int:
            if self._path(descriptor) is not None:
                self._operate(lambda share: write(descriptor, data[: round(share * len(data))]))
            return write(descriptor, data)

        def rename(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
            self._rename(Path(source), Path(target), replace)

        os.fsync, os.replace, os.write = self._fsync, rename, put  # type: ignore[assignment]
        try:
            yield
        finally:
            os.fsync, os.replace, os.write = fsync, replace, write

    def restart(self) -> None:
        """The machine is up again, with room on the disk: the files are what had become of them."""
        if self._snapshot is not None:
            for path in self._files():
                if path not in self._snapshot:
                    path.unlink()
            for path, content in self._snapshot.items():
                path.write_bytes(content)
        self._snapshot = self._failing = self._renamed = None
        self._durable = {path: path.read_bytes() for path in self._files()}

    def _files(self) -> list[Path]:
        return [path for path in self._folder.rglob("*") if path.is_file()]

    def _path(self, descriptor: int) -> Path | None:
        """Return which of the run's files a descriptor is of; None if of none."""
        meant = os.fstat(descriptor)
        return next((path for path in (self._folder, *self._files()) if os.path.samestat(path.stat(), meant)), None)

    def _fsync(self, descriptor: int) -> None:
        path = self._path(descriptor)
        assert path is not None
        if path == self._folder:
            self._operate(lambda _: None)
            if self._renamed is not None:
                source, target = self._renamed
                self._durable[target] = self._durable.pop(source)
                self._renamed = None
        else:
            self._operate(lambda _: None)
            self._durable[path] = path.read_bytes()

    def _rename(self, source: Path, target: Path, replace: Callable[[Path, Path], None]) -> None:
        def happens(share: float) -> None:
            if share >= 0.5:
                replace(source, target)

        self._operate(happens)
        replace(source, target)
        self._renamed = source, target

    def _tear(self, path: Path, share: float) -> None:
        """Keep what was durable and a share of what was not."""
        before, now = self._durable.get(path, b""), path.read_bytes()
        keep = len(before) + round(share * (len(now) - len(before)))
        os.truncate(path, keep if now.startswith(before) else round(share * len(now)))

    def _lose(self, share: float) -> None:
        """The power fails: what was not synced is there in part."""
        for path in self._files():
            if self._renamed is None or path != self._renamed[1]:
                self._tear(path, share)
        if self._renamed is None or share >= 0.5:
            return
        source, target = self._renamed
        source.write_bytes(target.read_bytes())
        if target in self._durable:
            target.write_bytes(self._durable[target])
        else:
            target.unlink()

    def _operate(self, partly: Callable[[float], object]) -> None:
        """Count an operation; `partly` leaves behind what a cut makes of it."""
        if self._snapshot is not None:
            raise Killed
        self.operations += 1
        for cut in self._cuts:
            if cut.at == self.operations and not cut.happened:
                cut.happened = True
                self._failing = cut
        cut_now = self._failing
        if cut_now is None:
            return
        if not cut_now.error:
            partly(cut_now.share)
            if cut_now.power:
                self._lose(cut_now.share)
            self._snapshot = {path: path.read_bytes() for path in self._files()}
            self._on_kill()
            raise Killed
        if self.operations >= cut_now.at + cut_now.lasts:
            self._failing = None
            return
        partly(cut_now.share)
        raise OSError(cut_now.error, os.strerror(cut_now.error))


NO_ROOM, READ_ONLY = errno.ENOSPC, errno.EROFS
