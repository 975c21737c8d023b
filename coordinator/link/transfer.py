"""Transfers: a blob in chunks, a window of them in flight, each sent again when it is known to be lost. No I/O.

A chunk is lost if one sent later has arrived: the wire keeps order. Silence for longer than the retransmission timeout
means that everything in flight is lost. Chunks may change their length on the way: what has come without a gap stays.
firmware/link/transfer.c is the same in C.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from codegen.protocol import FRAME_OVERHEAD, WINDOW_MAX
from coordinator.link.path import Path, RoundTrip

MAP_BITS = WINDOW_MAX  # chunks past the first missing one that an acknowledgement can name
CHUNKS_MAX = 65535
WORTH_A_CHANGE = 8192  # bytes still to move, for which another payload may pay

Clock = Callable[[], float]


def _chunks(size: int, payload: int) -> int:
    """Return how many chunks that takes; ValueError if there are not so many numbers."""
    count = -(-size // payload)
    if count > CHUNKS_MAX:
        raise ValueError(f"{size} bytes in chunks of {payload}; at most {CHUNKS_MAX * payload}")
    return count


class Timed:
    """The timer that both ends share: when silence has lasted too long, and for how long nothing moved."""

    def __init__(self, clock: Clock, path: Path, least: float = 0.0) -> None:
        """least: seconds that a silence must last."""
        self.path = path
        self.round_trip = path.round_trip
        self._clock = clock
        self._least = least
        self._progress = self._since = clock()
        self.silences = 0  # timeouts since the transfer last moved on

    @property
    def quiet(self) -> float:
        """Seconds since the transfer last moved on."""
        return self._clock() - self._progress

    @property
    def deadline(self) -> float:
        """The clock's time at which to call `expire`."""
        timeout = max(self.round_trip.timeout, self._least) * (1 << self.silences)
        return self._since + min(timeout, RoundTrip.MAXIMUM)

    def expire(self) -> None:
        """The deadline has passed."""
        self._expired()

    def alive(self) -> None:
        """Something came, though nothing that moves the transfer on."""
        self._heard(moved=False)

    def _heard(self, moved: bool) -> None:
        self._since = self._clock()
        if moved:
            self._progress = self._since
            self.silences = 0

    def _expired(self) -> None:
        self._since = self._clock()
        self.silences = min(self.silences + 1, 8)


class _Sending(NamedTuple):
    """One sending of a chunk; `flight`: chunks in flight with it."""

    serial: int
    when: float
    flight: int


class Sender(Timed):
    """Sends `blob` in chunks of `payload` bytes, at most WINDOW_MAX of them in flight.

    Raises ValueError if the blob needs more chunks than there are numbers.
    """

    def __init__(self, blob: bytes, payload: int, clock: Clock, path: Path | None = None) -> None:
        super().__init__(clock, path or Path())
        self.count = _chunks(len(blob), payload)
        self.payload = payload
        self.retransmitted = 0
        self.next = 0  # first chunk not acknowledged
        self._blob = memoryview(blob)
        self._fresh = 0  # first chunk never sent
        self._serial = 0  # counts what was sent
        self._sent: dict[int, _Sending] = {}  # in flight: the last sending
        self._newest = -1  # serial of the last sending that is known to have arrived
        self._probe: tuple[int, float] | None = None  # a chunk that was sent into a silent wire, once, and when
        self._due: set[int] = set()
        self._arrived: set[int] = set()  # in flight, but known to have arrived
        self._reordered = False  # chunks in flight were not all sent in the order of their numbers
        self._closings: dict[int, _Sending] = {}  # COMMITs, by number
        self._opening: _Sending | None = None  # the BEGIN that changed the payload, until it is answered

    @property
    def done(self) -> bool:
        """Everything has arrived."""
        return self.next >= self.count

    @property
    def out(self) -> bool:
        """Everything has been sent, and nothing is known to be lost."""
        return self._fresh >= self.count and not self._due

    @property
    def _flight(self) -> int:
        return len(self._sent) - len(self._arrived) - len(self._due)

    def ready(self) -> list[tuple[int, memoryview]]:
        """Return what to send now, as (chunk, bytes); it counts as sent."""
        silent = not self._sent
        flight = self._flight
        room = max(self.path.flight - flight, 0)
        picked = sorted(self._due)[:room]
        fresh = range(self._fresh, min(self.next + WINDOW_MAX, self.count, self._fresh + room - len(picked)))
        if not picked and not fresh:
            return []
        self.retransmitted += len(picked)
        now = self._clock()
        if silent:
            self._since = now
        if fresh and (silent or (self._probe is None and self.round_trip.smoothed is None)):
            self._probe = (fresh.start, now)
        self._reordered |= bool(picked)
        self._fresh = max(self._fresh, fresh.stop)
        self._due.difference_update(picked)
        for chunk in (*picked, *fresh):
            flight += 1
            self._sent[chunk] = _Sending(self._serial, now, flight)
            self._serial += 1
        size = self.payload
        return [(chunk, self._blob[chunk * size : (chunk + 1) * size]) for chunk in (*picked, *fresh)]

    def close(self) -> int:
        """A COMMIT is being sent; return its number."""
        number = self._serial % 255 + 1
        self._closings[number] = _Sending(self._serial, self._clock(), 0)
        self._serial += 1
        return number

    def acknowledge(self, next: int, map: int, early: int = 0) -> None:
        """Take an acknowledgement: all before `next` have arrived, and next + 1 + i for each bit i of `map`; `early`
        answers the COMMIT of that number, which came before all chunks had."""
        if next < self.next or next > self.count or (next <= self._fresh and (map << 1) >> (self._fresh - next)):
            return  # out of date, or nonsense
        if next > self._fresh:  # it has them from before: go on from there
            self._fresh, map = next, 0
        known = [self._sent.pop(chunk) for chunk in range(self.next, next) if chunk in self._sent]
        self._due.difference_update(range(self.next, next))
        if self._probe and next > self._probe[0]:
            self.round_trip.sample(self._clock() - self._probe[1])
            self._probe = None
        arrived = {next + 1 + bit for bit in range(MAP_BITS) if map >> bit & 1} if map else set()
        self._heard(moved=next > self.next or not arrived <= self._arrived)
        self.path.count(len(known), 0, self.payload)
        known += [self._sent[chunk] for chunk in arrived - self._arrived]
        self.next, self._arrived = next, arrived
        self._learn(max(known, default=None))
        if early in self._closings:
            self._newest = max(self._newest, self._closings.pop(early).serial)
        elif not (arrived or self._reordered or self._opening):
            return
        if self._opening:
            self._newest = max(self._newest, self._opening.serial)
        self._find_lost()
        self._opening = None

    def _learn(self, newest: _Sending | None) -> None:
        if newest and newest.serial > self._newest:
            self._newest = newest.serial
            if newest.flight:
                self.path.acknowledged(newest.flight, self._clock() - newest.when)

    def _find_lost(self) -> None:
        """Mark as due what was sent before the newest that is known to have arrived."""
        lost = {chunk for chunk, sent in self._sent.items() if sent.serial < self._newest} - self._arrived
        if not self._opening:  # else what was in flight had another length
            self.path.count(0, len(lost - self._due), self.payload)
        self._due = (self._due | lost) - self._arrived
        if self._probe and self._probe[0] in self._due:
            self._probe = None
        serials = [self._sent[chunk].serial for chunk in sorted(self._sent)]
        self._reordered = serials != sorted(serials)

    def expire(self) -> None:
        """The deadline has passed: everything in flight is due again."""
        self._due = self._sent.keys() - self._arrived
        self._probe = None
        self._expired()

    def wanted_payload(self, mtu: int) -> int:
        """Return the payload that is best for what is left: then `resize`, right behind another BEGIN."""
        if (self.count - self.next) * self.payload < WORTH_A_CHANGE:
            return self.payload
        # A chunk that is lost twice in a row should not stop the wire: the window holds three round trips.
        least = 3 * self.path.content * (self.payload + FRAME_OVERHEAD) / WINDOW_MAX - FRAME_OVERHEAD
        return self.path.best_payload(self.payload, max(least, len(self._blob) / CHUNKS_MAX), mtu)

    def resize(self, payload: int) -> None:
        """Go on in chunks of another length, right behind a BEGIN that says so. What is in flight counts as sent before
        that BEGIN: its answer tells what of it has arrived."""
        size, here, sent = len(self._blob), self.next * self.payload, self._fresh * self.payload
        self.count = _chunks(size, payload)
        self.next = self.count if here >= size else here // payload  # rounded down, but whole stays whole
        self._fresh = min(self.count if sent >= size else sent // payload, self.next + WINDOW_MAX)
        self.path.resized(self.payload, payload)
        self.payload = payload
        old = _Sending(self._serial, self._clock(), 0)
        self._opening = _Sending(self._serial + 1, self._clock(), 0)
        self._serial += 2
        self._sent = dict.fromkeys(range(self.next, self._fresh), old)
        self._due, self._arrived, self._probe, self._reordered = set(), set(), None, False
        self._closings.clear()


class Receiver(Timed):
    """Collects a blob of `size` bytes that comes in chunks of `payload`; `head` is its beginning, if that is here.

    Raises ValueError if that takes more chunks than there are numbers.
    """

    def __init__(self, size: int, payload: int, clock: Clock, path: Path | None = None, head: bytes = b"") -> None:
        super().__init__(clock, path or Path())
        self.count = _chunks(size, payload)
        self.payload = payload
        self.blob = bytearray(head) + bytes(size - len(head))
        self.next = self.count if len(head) == size else len(head) // payload  # first chunk missing
        self.map = 0  # bit i: chunk next + 1 + i is here
        self.retransmitted = 0  # chunks that came after a later one
        self._last = self.next - 1
        self._stalled = False
        self._asked: float | None = self._since
        self._began: float | None = None  # when the first chunk came
        self._here = 0  # bytes that have come since

    @property
    def done(self) -> bool:
        return self.next >= self.count

    def accept(self, chunk: int, data: bytes) -> bool:
        """Put a chunk in its place; False if it is not wanted: a duplicate, out of the window, of a wrong length."""
        ahead = chunk - self.next
        start = chunk * self.payload
        again = chunk <= self._last
        self.retransmitted += again
        self._heard(moved=False)
        if not 0 <= ahead <= MAP_BITS or chunk >= self.count or len(data) != min(self.payload, len(self.blob) - start):
            return False
        if ahead:
            bit = 1 << (ahead - 1)
            if self.map & bit:
                return False
            self.map |= bit
        else:
            arrived = self.map << 1 | 1
            run = (~arrived & (arrived + 1)).bit_length() - 1  # ones at the end
            self.next += run
            self.map = arrived >> run + 1
        self.blob[start : start + len(data)] = data
        self._last = max(self._last, chunk)
        self.path.count(1, again, self.payload)
        if self._began is None:
            self._began = self._clock()
        else:
            self._here += len(data)
        if self._asked is not None:
            self.round_trip.sample(self._clock() - self._asked)
            self._asked = None
        self._heard(moved=True)
        return True

    def acknowledgement(self) -> tuple[int, int, bool]:
        """Return (next, map, stalled) as they stand. `stalled` once a silence: each makes all in flight come again."""
        stalled, self._stalled = self._stalled, False
        return self.next, self.map, stalled

    def expire(self) -> None:
        """The deadline has passed: ask for everything that was in flight."""
        self._stalled = True
        self._asked = None
        self._expired()

    def wanted_payload(self, mtu: int, window: int) -> int:
        """As the sender's; `window`: chunks that the node keeps in flight."""
        trip = self.round_trip.smoothed
        if (self.count - self.next) * self.payload < WORTH_A_CHANGE or trip is None or self._began is None:
            return self.payload
        rate = self._here / max(self._clock() - self._began, 1e-9)
        least = max(3 * rate * trip / window - FRAME_OVERHEAD, len(self.blob) / CHUNKS_MAX)
        return self.path.best_payload(self.payload, least, mtu)

    def resize(self, payload: int) -> None:
        """Go on in chunks of another length: FETCH them from `next` on. What has come without a gap stays."""
        size, here = len(self.blob), self.next * self.payload
        self.count = _chunks(size, payload)
        self.next, self.map = self.count if here >= size else here // payload, 0
        self._last = self.next - 1
        self.path.resized(self.payload, payload)
        self.payload = payload
