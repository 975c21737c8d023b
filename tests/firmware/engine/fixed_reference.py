"""The fixed-point kernels in plain Python, one loop a sentence of fixed.h and fixed_inner.h; slow on purpose."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from tests.firmware.engine.fixed_numbers import (
    Numbers,
    Sample,
    Scale,
    Values,
    Weights,
    dot,
    held_exponent,
    lost_bits,
    nearest,
    sloped,
    start_of,
    sums_of,
    within,
)
from tests.firmware.engine.layers import Layer

SHARE_BITS = 22  # of an output's share in average pooling


@dataclass(frozen=True)
class Geometry:
    """Windows along both axes."""

    layer: Layer

    def pixel(self, y: int, x: int, ky: int, kx: int) -> int | None:
        """Return the input pixel under a tap of an output, if there is one."""
        (top, left), (down, right) = self.layer.geometry[1], self.layer.stride
        row, column = y * down - top + ky, x * right - left + kx
        inside = 0 <= row < self.layer.size[0] and 0 <= column < self.layer.size[1]
        return row * self.layer.size[1] + column if inside else None

    def rows(self, y: int, x: int) -> Iterator[list[tuple[int, int]]]:
        """Yield for each kernel row inside the image its (tap, pixel) from left to right."""
        height, width = self.layer.kernel
        for ky in range(height):
            taps = [(ky * width + kx, self.pixel(y, x, ky, kx)) for kx in range(width)]
            row = [(tap, pixel) for tap, pixel in taps if pixel is not None]
            if row:
                yield row

    def fed(self, pixel: int) -> Iterator[tuple[int, int]]:
        """Yield (output pixel, tap) of what an input pixel fed, row-major."""
        (height, width), _ = self.layer.geometry
        for y in range(height):
            for x in range(width):
                for row in self.rows(y, x):
                    yield from ((y * width + x, tap) for tap, seen in row if seen == pixel)

    def inside(self, out: int) -> int:
        """Return how many inputs an output's window holds."""
        return sum(len(row) for row in self.rows(*divmod(out, self.layer.geometry[0][1])))


@dataclass(frozen=True)
class Fan:
    """What of a layer's channels hang together; a convolution's or a depthwise one's."""

    layer: Layer

    @property
    def outs(self) -> int:
        return self.layer.out // (self.layer.size[2] if self.layer.kind == "depthwise" else 1)

    def first(self, channel: int) -> int:
        """Return the first output channel that an input channel feeds."""
        return channel * self.outs if self.layer.kind == "depthwise" else 0

    def ins(self, out: int) -> range:
        """Return the input channels that an output channel sees."""
        if self.layer.kind == "depthwise":
            return range(out // self.outs, out // self.outs + 1)
        return range(self.layer.size[2])

    def weight(self, tap: int, channel: int, out: int) -> int:
        stored_in, stored_out = self.layer.kept
        if self.layer.kind == "depthwise":
            return tap * stored_in * self.outs + out
        return (tap * stored_in + channel) * stored_out + out


def teams_of(layer: Layer, channels: int) -> list[range]:
    """Channels taken together: a convolution's two at a time, a depthwise one's alone."""
    size = 1 if layer.kind == "depthwise" else 2
    return [range(first, min(first + size, channels)) for first in range(0, channels, size)]


@dataclass
class Reference(Numbers):
    """Every kernel that has a shape."""

    def forward(self, layer: Layer, x: Values | Sample, weights: Weights, slope: int, shift: int) -> tuple[Values, int]:
        if layer.kind == "dense":
            assert isinstance(x, Values)
            return self._dense_forward(layer, x, weights, slope, shift)
        (height, width), _ = layer.geometry
        teams, rows = teams_of(layer, layer.out), range(height)
        order = [(y, team) for y in rows for team in teams]
        if not isinstance(x, Sample):  # of which a row is read at a time
            order = [(y, team) for team in teams for y in rows]
        values, fan = x.values_of() if isinstance(x, Sample) else x, Fan(layer)
        terms = layer.kernel[0] * layer.kernel[1] * len(fan.ins(0))
        exponent, lost = sums_of(values.exponent, weights, terms)
        out, scale = [0] * (height * width * layer.out), Scale(shift)
        for y, team in order:
            for column, o in itertools.product(range(width), team):
                sum_ = start_of(weights, o, exponent)
                for row in Geometry(layer).rows(y, column):
                    seen = [(tap, pixel, c) for tap, pixel in row for c in fan.ins(o)]
                    sum_ += dot(
                        [values.at[pixel * layer.size[2] + c] for _, pixel, c in seen],
                        [weights.kernel[fan.weight(tap, c, o)] for tap, _, c in seen],
                        lost,
                    )
                self.put_nearest(out, (y * width + column) * layer.out + o, sum_, slope, scale, range(len(out)))
        return Values(held_exponent(exponent + scale.shift), out), scale.following()

    def _dense_sums(self, layer: Layer, x: Values, weights: Weights) -> tuple[int, list[int]]:
        (groups, ins), (stored_in, stored_out) = (layer.size[0] * layer.size[1], layer.size[2]), layer.kept
        exponent, lost = sums_of(x.exponent, weights, groups * ins)
        sums = []
        for o in range(layer.out):
            sum_ = start_of(weights, o, exponent)
            for group in range(groups):
                row = [(group * stored_in + i) * stored_out + o for i in range(ins)]
                sum_ += dot(x.at[group * ins : (group + 1) * ins], [weights.kernel[w] for w in row], lost)
            sums.append(within(sum_))
        return exponent, sums

    def _dense_forward(self, layer: Layer, x: Values, weights: Weights, slope: int, shift: int) -> tuple[Values, int]:
        exponent, sums = self._dense_sums(layer, x, weights)
        out, scale = [0] * layer.out, Scale(shift)
        for o, sum_ in enumerate(sums):
            self.put_nearest(out, o, sum_, slope, scale, range(o))
        return Values(held_exponent(exponent + scale.shift), out), scale.following()

    def dense_logits(self, layer: Layer, x: Values, weights: Weights) -> list[int]:
        exponent, sums = self._dense_sums(layer, x, weights)
        return [self.rounded(sum_, exponent + 8) for sum_ in sums]

    def logits(self, out: Values) -> list[int]:
        return [self.rounded(value, out.exponent + 8) for value in out.at]

    def pool(self, layer: Layer, x: Values) -> tuple[Values, list[int]]:
        """Return the outputs and, of maxima, each one's place in its window."""
        (height, width), _ = layer.geometry
        out, places = [], []
        for o in range(height * width):
            seen = [each for row in Geometry(layer).rows(*divmod(o, width)) for each in row]
            for c in range(layer.size[2]):
                window = [x.at[pixel * layer.size[2] + c] for _, pixel in seen]
                places.append(seen[window.index(max(window))][0])
                mean = (2 * sum(window) + len(window)) // (2 * len(window))
                out.append(max(window) if layer.kind == "max_pool" else mean)
        return Values(x.exponent, out), places

    def activate(self, x: Values, slope: int) -> Values:
        """Behind pooling: to nearest, halves up."""
        return Values(x.exponent, [value if value >= 0 else nearest(value * slope, 16) for value in x.at])

    # Backward

    def backward(
        self, layer: Layer, x: Values, weights: Weights, gradient: Values, slope: int, shift: int
    ) -> tuple[Values, int]:
        if layer.kind == "dense":
            return self._dense_backward(layer, x, weights, gradient, slope, shift)
        at, scale = list(x.at), Scale(shift)
        kernel, lost = list(weights.kernel), lost_bits(layer.kernel[0] * layer.kernel[1] * Fan(layer).outs)
        channels, pixels = layer.size[2], layer.size[0] * layer.size[1]
        if not weights.frozen:
            self._bias(layer, weights, gradient)
        for team in teams_of(layer, channels):
            for c in team:
                if not weights.frozen:
                    self._step(layer, x, weights, gradient, c)
            for pixel, c in itertools.product(range(pixels), team):
                i = pixel * channels + c
                if at[i] == 0 and slope == 0:
                    continue
                sum_ = self._fed(layer, kernel, gradient, pixel, c, lost)
                written = [p * channels + before for before in range(team[0]) for p in range(pixels)]
                written += [p * channels + other for other in team for p in range(pixel + (other < c))]
                self.put(at, i, sum_ if at[i] > 0 else sloped(sum_, slope), scale, written)
        exponent = gradient.exponent + weights.kernel_exponent + lost + scale.shift
        return Values(held_exponent(exponent), at), scale.following()

    def _fed(self, layer: Layer, kernel: list[int], gradient: Values, pixel: int, c: int, lost: int) -> int:
        """Sum of weight times output gradient over what an input fed; a run is an output row, depthwise an output."""
        fan, sum_ = Fan(layer), 0
        outs = range(fan.first(c), fan.first(c) + fan.outs)
        width = 1 if layer.kind == "depthwise" else layer.geometry[0][1]
        for _, fed in itertools.groupby(Geometry(layer).fed(pixel), key=lambda each: each[0] // width):
            run = [(out * layer.out + o, fan.weight(tap, c, o)) for out, tap in fed for o in outs]
            sum_ += dot([gradient.at[d] for d, _ in run], [kernel[w] for _, w in run], lost)
        return sum_

    def _bias(self, layer: Layer, weights: Weights, gradient: Values) -> None:
        for o in range(layer.out if weights.bias is not None else 0):
            assert weights.bias is not None
            delta = self.rounded(-within(sum(gradient.at[o :: layer.out])), gradient.exponent - weights.bias_exponent)
            self.add(weights.bias, o, delta)

    def _owed(self, layer: Layer, x: Values, gradient: Values, tap: int, c: int, o: int) -> int:
        """Sum over the output pixels of the input under a tap times the output gradient."""
        (height, width), _ = layer.geometry
        sum_ = 0
        for out in range(height * width):
            pixel = Geometry(layer).pixel(*divmod(out, width), *divmod(tap, layer.kernel[1]))
            if pixel is not None:
                sum_ += x.at[pixel * layer.size[2] + c] * gradient.at[out * layer.out + o]
        return within(sum_)

    def _step(self, layer: Layer, x: Values, weights: Weights, gradient: Values, c: int) -> None:
        """Of the weights of an input channel, by tap, then by the output channels that it feeds."""
        exponent, fan = x.exponent + gradient.exponent - weights.kernel_exponent, Fan(layer)
        for tap in range(layer.kernel[0] * layer.kernel[1]):
            for o in range(fan.first(c), fan.first(c) + fan.outs):
                delta = self.rounded(-self._owed(layer, x, gradient, tap, c, o), exponent)
                self.add(weights.kernel, fan.weight(tap, c, o), delta)

    def backward_first(self, layer: Layer, x: Values | Sample, weights: Weights, gradient: Values) -> None:
        """Of the first trainable layer: weights only. A sample's are taken tap by tap, then by input channel."""
        fan, values = Fan(layer), x.values_of() if isinstance(x, Sample) else x
        if layer.kind == "dense":
            step = self._dense_steps(layer, values, weights, gradient)
            for group in range(0, len(values.at), layer.size[2]):
                rows = self._dense_rows(layer)[group : group + layer.size[2]]
                self.update_rows(weights.kernel, rows, values.at[group : group + layer.size[2]], step)
            return
        self._bias(layer, weights, gradient)
        if isinstance(x, Values):
            for c in range(layer.size[2]):
                self._step(layer, values, weights, gradient, c)
            return
        exponent = values.exponent + gradient.exponent - weights.kernel_exponent
        for tap in range(layer.kernel[0] * layer.kernel[1]):
            for c in range(layer.size[2]):
                for o in range(fan.first(c), fan.first(c) + fan.outs):
                    delta = self.rounded(-self._owed(layer, values, gradient, tap, c, o), exponent)
                    self.add(weights.kernel, fan.weight(tap, c, o), delta)

    def _dense_rows(self, layer: Layer) -> list[int]:
        """Return where each input's weights begin."""
        (stored_in, stored_out), ins = layer.kept, layer.size[2]
        groups = layer.size[0] * layer.size[1]
        return [(g * stored_in + i) * stored_out for g in range(groups) for i in range(ins)]

    def _dense_steps(self, layer: Layer, x: Values, weights: Weights, gradient: Values) -> list[int]:
        steps = []
        for o in range(layer.out):
            exponent, down = x.exponent + gradient.exponent - weights.kernel_exponent + 8, -gradient.at[o]
            steps.append(down << exponent if 0 <= exponent < 8 else self.rounded(down, exponent))
            if weights.bias is not None:
                delta = self.rounded(-gradient.at[o], gradient.exponent - weights.bias_exponent)
                self.add(weights.bias, o, delta)
        return steps

    def _dense_backward(
        self, layer: Layer, x: Values, weights: Weights, gradient: Values, slope: int, shift: int
    ) -> tuple[Values, int]:
        at, scale, lost = list(x.at), Scale(shift), lost_bits(layer.out)
        step = [] if weights.frozen else self._dense_steps(layer, x, weights, gradient)
        for i, first in enumerate(self._dense_rows(layer)):
            if at[i] == 0 and slope == 0:
                continue
            sum_ = dot(gradient.at, weights.kernel[first : first + layer.out], lost)
            sum_ = sum_ if at[i] > 0 else sloped(sum_, slope)
            if not weights.frozen:
                self.update_rows(weights.kernel, [first], [at[i]], step)
            self.put(at, i, sum_, scale, range(i))
        exponent = gradient.exponent + weights.kernel_exponent + lost + scale.shift
        return Values(held_exponent(exponent), at), scale.following()

    def pool_backward(
        self, layer: Layer, x: Values, gradient: Values, places: list[int], slope: int, shift: int
    ) -> tuple[Values, int]:
        at, scale, channels = list(x.at), Scale(shift), layer.size[2]
        average = layer.kind == "average_pool"
        for i in range(len(at)):
            if at[i] == 0 and slope == 0:
                continue
            sum_ = 0
            for out, tap in Geometry(layer).fed(i // channels):
                o = out * channels + i % channels
                if average:
                    sum_ += gradient.at[o] * ((1 << SHARE_BITS) // Geometry(layer).inside(out))
                elif places[o] == tap:
                    sum_ += gradient.at[o]
            self.put(at, i, sum_ if at[i] > 0 else sloped(sum_, slope), scale, range(i))
        exponent = gradient.exponent + scale.shift - (SHARE_BITS if average else 0)
        return Values(held_exponent(exponent), at), scale.following()
