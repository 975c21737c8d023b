"""Transfers: a blob in chunks, a window of them in flight, each sent again when it is known to be lost. No I/O.

A chunk is lost if one sent later has arrived: the wire keeps order. Silence for longer than the retransmission timeout
means that everything in flight is lost. firmware/link/transfer.c is the same in C.
"""

from __future__ import annotations

from collections.abc import Callable

MAP_BITS = 32  # chunks past the first missing one that an acknowledgement can name
CHUNKS_MAX = 65535

Clock = Callable[[], float]


class RoundTrip:
    """Retransmission timeout from measured round trips (RFC 6298), in seconds.

    Only what was sent into a silent wire is measured: in a full window a chunk waits behind the others, but then
    something arrives at every moment, and silence is what the timeout is for.
    """

    INITIAL, MINIMUM, MAXIMUM = 0.5, 0.1, 2.0

    def __init__(self) -> None:
        self.smoothed: float | None = None
        self._variation = 0.0
        self.timeout = self.INITIAL

    def sample(self, seconds: float) -> None:
        """Learn from one round trip of something that was sent once."""
        if self.smoothed is None:
            self.smoothed, self._variation = seconds, seconds / 2
        else:
            self._variation += (abs(self.smoothed - seconds) - self._variation) / 4
            self.smoothed += (seconds - self.smoothed) / 8
        self.timeout = min(max(self.smoothed + 4 * self._variation, self.MINIMUM), self.MAXIMUM)


class _Timed:
    """The timer that both ends share: when silence has lasted too long, and for how long nothing moved."""

    def __init__(self, clock: Clock, round_trip: RoundTrip) -> None:
        self.round_trip = round_trip
        self._clock = clock
        self._progress = self._since = clock()
        self.silences = 0  # timeouts since the transfer last moved on

    @property
    def quiet(self) -> float:
        """Seconds since the transfer last moved on."""
        return self._clock() - self._progress

    @property
    def deadline(self) -> float:
        """The clock's time at which to call `expire`."""
        return self._since + min(self.round_trip.timeout * (1 << self.silences), RoundTrip.MAXIMUM)

    def _heard(self, moved: bool) -> None:
        self._since = self._clock()
        if moved:
            self._progress = self._since
            self.silences = 0

    def _expired(self) -> None:
        self._since = self._clock()
        self.silences = min(self.silences + 1, 8)


class Sender(_Timed):
    """Sends `blob` in chunks of `payload` bytes, at most `window` of them in flight.

    Raises ValueError if the blob needs more chunks than there are numbers.
    """

    def __init__(
        self, blob: bytes, payload: int, window: int, clock: Clock, round_trip: RoundTrip | None = None
    ) -> None:
        super().__init__(clock, round_trip or RoundTrip())
        self.count = -(-len(blob) // payload)
        if self.count > CHUNKS_MAX:
            raise ValueError(f"{len(blob)} bytes in chunks of {payload}; at most {CHUNKS_MAX * payload}")
        self.retransmitted = 0
        self.next = 0  # first chunk not acknowledged
        self._blob = memoryview(blob)
        self._payload = payload
        self._window = min(window, MAP_BITS)
        self._fresh = 0  # first chunk never sent
        self._serial = 0  # counts chunks sent
        self._sent: dict[int, int] = {}  # in flight: serial of the last sending
        self._probe: tuple[int, float] | None = None  # a chunk that was sent into a silent wire, once, and when
        self._due: set[int] = set()
        self._arrived: set[int] = set()  # in flight, but known to have arrived
        self._reordered = False  # chunks in flight were not all sent in the order of their numbers

    @property
    def done(self) -> bool:
        return self.next >= self.count

    def ready(self) -> list[tuple[int, memoryview]]:
        """Return what to send now, as (chunk, bytes); it counts as sent."""
        picked = sorted(self._due)
        self.retransmitted += len(picked)
        fresh = range(self._fresh, min(self.next + self._window, self.count))
        if not picked and not fresh:
            return []
        silent = not self._sent
        if silent:
            self._since = self._clock()
        if fresh and (silent or (self._probe is None and self.round_trip.smoothed is None)):
            self._probe = (fresh.start, self._clock())
        self._reordered |= bool(picked)
        self._fresh = max(self._fresh, fresh.stop)
        self._due.clear()
        for chunk in (*picked, *fresh):
            self._sent[chunk] = self._serial
            self._serial += 1
        size = self._payload
        return [(chunk, self._blob[chunk * size : (chunk + 1) * size]) for chunk in (*picked, *fresh)]

    def acknowledge(self, next: int, map: int) -> None:
        """Take an acknowledgement: all before `next` have arrived, and next + 1 + i for each bit i of `map`."""
        if next < self.next or next > self.count or (next <= self._fresh and (map << 1) >> (self._fresh - next)):
            return  # out of date, or nonsense
        if next > self._fresh:  # it has them from before: go on from there
            self._fresh, map = next, 0
        newest = max((self._sent.pop(chunk, -1) for chunk in range(self.next, next)), default=-1)
        if self._probe and next > self._probe[0]:
            self.round_trip.sample(self._clock() - self._probe[1])
            self._probe = None
        arrived = {next + 1 + bit for bit in range(MAP_BITS) if map >> bit & 1} if map else set()
        self._heard(moved=next > self.next or not arrived <= self._arrived)
        self.next, self._arrived = next, arrived
        if arrived or self._reordered:
            self._find_lost(newest)

    def _find_lost(self, newest: int) -> None:
        """Mark as due what was sent before the newest chunk known to have arrived."""
        newest = max([newest, *(self._sent[chunk] for chunk in self._arrived)])
        lost = {chunk for chunk, serial in self._sent.items() if serial < newest}
        self._due = ((self._due & self._sent.keys()) | lost) - self._arrived
        if self._probe and self._probe[0] in self._due:
            self._probe = None
        serials = [self._sent[chunk] for chunk in sorted(self._sent)]
        self._reordered = serials != sorted(serials)

    def expire(self) -> None:
        """The deadline has passed: everything in flight is due again."""
        self._due = self._sent.keys() - self._arrived
        self._probe = None
        self._expired()


class Receiver(_Timed):
    """Collects a blob of `size` bytes that comes in chunks of `payload`; `head` is its beginning, if that is here.

    Raises ValueError if that takes more chunks than there are numbers.
    """

    def __init__(
        self, size: int, payload: int, clock: Clock, round_trip: RoundTrip | None = None, head: bytes = b""
    ) -> None:
        super().__init__(clock, round_trip or RoundTrip())
        self.count = -(-size // payload)
        if self.count > CHUNKS_MAX:
            raise ValueError(f"{size} bytes in chunks of {payload}; at most {CHUNKS_MAX * payload}")
        self.blob = bytearray(head) + bytes(size - len(head))
        self.next = self.count if len(head) == size else len(head) // payload  # first chunk missing
        self.map = 0  # bit i: chunk next + 1 + i is here
        self.retransmitted = 0  # chunks that came after a later one
        self._payload = payload
        self._last = self.next - 1
        self._stalled = False
        self._asked: float | None = self._since

    @property
    def done(self) -> bool:
        return self.next >= self.count

    def accept(self, chunk: int, data: bytes) -> bool:
        """Put a chunk in its place; False if it is not wanted: a duplicate, out of the window, of a wrong length."""
        ahead = chunk - self.next
        start = chunk * self._payload
        if chunk <= self._last:
            self.retransmitted += 1
        self._heard(moved=False)
        if not 0 <= ahead <= MAP_BITS or chunk >= self.count or len(data) != min(self._payload, len(self.blob) - start):
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
