"""What a session learns of its wire: how long a round trip takes, how many bytes are damaged, how much it holds."""

from __future__ import annotations

import math

from codegen.protocol import FRAME_OVERHEAD, WINDOW_MAX


class RoundTrip:
    """Retransmission timeout from measured round trips (RFC 6298), in seconds.

    Only what was sent into a silent wire is measured: in a full window a chunk waits behind the others, but then
    something arrives at every moment, and silence is what the timeout is for.
    """

    INITIAL, MAXIMUM = 0.5, 2.0
    GRANULARITY = 0.03  # how punctual ports and processes are

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
        # At least two round trips: a damaged frame or two are no silence.
        margin = max(4 * self._variation, self.smoothed, self.GRANULARITY)
        self.timeout = min(self.smoothed + margin, self.MAXIMUM)


class Path:
    """One direction of a wire, as its transfers find it; a session keeps it from one to the next."""

    MEMORY = 262_144  # bytes after which what happened counts 1/e
    DOUBT = 8192  # bytes without damage that are assumed to begin with
    GAIN = 1.03  # how much better another payload must be before it is worth a change
    SHORTEST = 16  # payload, whatever the damage
    QUEUE = 8  # chunks that should wait in front of a wire, so that it never runs dry

    def __init__(self, round_trip: RoundTrip | None = None) -> None:
        self.round_trip = round_trip or RoundTrip()
        self.payload: int | None = None  # that was best last
        self.content = float(self.QUEUE)  # chunks that are on the wire and not waiting in front of it
        self._shortest = math.inf  # seconds from sending a chunk to its acknowledgement
        self._lost = 0.0  # frames
        self._bytes = float(self.DOUBT)

    # Damage

    @property
    def error_rate(self) -> float:
        """The chance of a byte to be damaged; small. A lost frame had on average half its bytes before the damage."""
        return self._lost / self._bytes

    def count(self, whole: int, lost: int, payload: int) -> None:
        """So many frames of this payload have come whole, and so many not."""
        size = payload + FRAME_OVERHEAD
        keep = 1 - min((whole + lost) * size / self.MEMORY, 1.0)
        self._lost = self._lost * keep + lost
        self._bytes = self._bytes * keep + (whole + lost / 2) * size

    def efficiency(self, payload: int) -> float:
        """Return the share of the wire that is content which arrives, in chunks of this length."""
        size = payload + FRAME_OVERHEAD
        return payload / size * math.exp(-self.error_rate * size)

    def best_payload(self, now: int, least: float, mtu: int) -> int:
        """Return `now` unless another payload, at least `least` and at most `mtu` bytes, is worth a change.

        The efficiency is largest where p² + h·p = h / error rate, with h the bytes of a frame that are no payload.
        """
        if not self._lost and now == mtu:
            return now
        h = FRAME_OVERHEAD
        best = (math.sqrt(h * h + 4 * h / self.error_rate) - h) / 2 if self.error_rate else mtu
        best = min(max(int(best), math.ceil(least), self.SHORTEST), mtu)
        worth = self.efficiency(best) > self.GAIN * self.efficiency(now) or now < 0.7 * min(least, mtu)
        return best if worth else now

    def resized(self, old: int, new: int) -> None:
        """Chunks have another length from here on."""
        self.payload = new
        self.content = min(self.content * (old + FRAME_OVERHEAD) / (new + FRAME_OVERHEAD), WINDOW_MAX)

    # What it holds

    @property
    def flight(self) -> int:
        """Chunks in flight that fill the wire and its queue, and leave of a window enough to send on after a loss."""
        return min(max(int(self.content) + 2, min(int(self.content) + self.QUEUE, WINDOW_MAX // 2)), WINDOW_MAX)

    def acknowledged(self, flight: int, seconds: float) -> None:
        """A chunk that was sent as the `flight`th of those in flight was acknowledged after so many seconds.

        By Little's law flight / seconds is what passes, and times the shortest round trip it is what the wire holds
        (Jin, Wei, Low: FAST TCP, 2004). The shortest is forgotten slowly: a wire may become a longer one.
        """
        self._shortest = min(self._shortest * 1.001, seconds)
        self.content += (min(flight * self._shortest / max(seconds, 1e-9), WINDOW_MAX) - self.content) / 8
