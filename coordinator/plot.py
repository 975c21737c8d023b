"""A line plot as SVG text: no library, no script, no network, legible on light and on dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

# Okabe and Ito's colours, told apart with any colour vision; the second of each pair is for a dark background.
PALETTE = (
    ("#0072b2", "#56b4e9"),
    ("#d55e00", "#e69f00"),
    ("#009e73", "#2fc79e"),
    ("#a3498b", "#e29ac6"),
    ("#5c5c00", "#f0e442"),
    ("#444444", "#bbbbbb"),
)
WIDTH, HEIGHT = 760, 380
LEFT, RIGHT, TOP, BOTTOM = 82, 150, 24, 48  # margins; the names of the lines stand on the right
Y_TICKS = (0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998, 0.9999)
LABEL_GAP = 17  # between two names

Points = Sequence[tuple[float, float]]


def line_plot(lines: Mapping[str, Points], x_title: str, y_title: str) -> str:
    """Return an SVG picture of `lines`, each a name with its (x, share 0…1) points in rising x.

    y is in percent, and logarithmic in what is missing from 100 %: 90, 95 and 97.5 % are equally far apart.
    """
    xs = [x for points in lines.values() for x, _ in points] or [0.0]
    ys = [y for points in lines.values() for _, y in points] or [0.0]
    x_low, x_high = min(xs), max(max(xs), min(xs) + 1)
    y_low = max(tick for tick in Y_TICKS[:-1] if tick <= max(min(ys), 0))
    y_high = next((tick for tick in Y_TICKS if tick > y_low and tick >= max(ys)), Y_TICKS[-1])

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low)
        up = (_height(y) - _height(y_low)) / (_height(y_high) - _height(y_low))
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [_grid_y(y, place(x_low, y)[1]) for y in Y_TICKS if y_low <= y <= y_high]
    parts += [_tick_x(x, place(x, y_low)[0]) for x in _ticks(x_low, x_high, max(1, _step(x_high - x_low, 10)))]
    ends = {name: place(*points[-1])[1] for name, points in lines.items() if points}
    heights = _spread(ends)
    for index, (name, points) in enumerate(lines.items()):
        if points:
            parts.append(_line(index, name, [place(*point) for point in points], points[-1][1], heights[name]))
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x_title)}</text>')
    centre = (HEIGHT - BOTTOM + TOP) / 2
    turn = f'transform="rotate(-90 14 {centre})"'
    parts.append(f'<text x="14" y="{centre}" text-anchor="middle" {turn}>{escape(y_title)}</text>')
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" class="plot" role="img" '
        f'aria-label="{escape(y_title)} by {escape(x_title)}">\n<style>{_style()}</style>\n'
        f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}" rx="6"/>\n{body}\n</svg>\n'
    )


def _height(share: float) -> float:
    return -math.log(max(1 - share, 1 - Y_TICKS[-1]))


def _style() -> str:
    light = "".join(f".plot .c{i}{{--c:{pair[0]}}}" for i, pair in enumerate(PALETTE))
    dark = "".join(f".plot .c{i}{{--c:{pair[1]}}}" for i, pair in enumerate(PALETTE))
    return (
        ".plot{font:13px system-ui,sans-serif}.plot .paper{fill:#fff}.plot text{fill:#333}.plot .grid{stroke:#ddd}"
        ".plot .line{fill:none;stroke:var(--c);stroke-width:2.2;stroke-linejoin:round}"
        f".plot .mark{{fill:var(--c)}}.plot .name{{fill:var(--c);font-weight:600}}{light}"
        "@media (prefers-color-scheme:dark){.plot .paper{fill:#16191d}.plot text{fill:#ccc}.plot .grid{stroke:#333a42}"
        f".plot .name{{fill:var(--c)}}{dark}}}"
    )


def _line(index: int, name: str, at: Points, last: float, label_y: float) -> str:
    colour = f"c{index % len(PALETTE)}"
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
    marks = "".join(mark(index, x, y) for x, y in at) if len(at) <= 40 else ""
    x = WIDTH - RIGHT
    return (
        f'<g class="{colour}"><polyline class="line" points="{path}"/>{marks}'
        f'<text class="name" x="{x + 10}" y="{label_y + 4:.1f}">{escape(name)} {100 * last:.1f} %</text></g>'
    )


def mark(index: int, x: float, y: float) -> str:
    """Another shape for each line: colour is not the only difference."""
    r = 3.6
    shapes = (
        f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="{r}"/>',
        f'<rect class="mark" x="{x - r:.1f}" y="{y - r:.1f}" width="{2 * r}" height="{2 * r}"/>',
        f'<path class="mark" d="M{x:.1f} {y - 4.6:.1f}l4.4 8h-8.8z"/>',
        f'<path class="mark" d="M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5-5z"/>',
    )
    return shapes[index % len(shapes)]


def _grid_y(value: float, y: float) -> str:
    line = f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return f'{line}<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{100 * value:.4g} %</text>'


def _tick_x(value: float, x: float) -> str:
    return f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{value:g}</text>'


def _step(span: float, most: int) -> float:
    """Return the smallest of 1, 2, 5 × 10ⁿ that cuts `span` into at most `most` pieces."""
    span = max(span, 1e-3)
    power = 10.0 ** math.floor(math.log10(span / most))
    return next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= most + 1e-9)


def _ticks(low: float, high: float, step: float) -> list[float]:
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 9) for index in range(first, last + 1)]


def _spread(wanted: Mapping[str, float]) -> dict[str, float]:
    """Move names apart that would cover each other, as little as their order allows."""
    names = sorted(wanted, key=lambda name: wanted[name])
    placed: dict[str, float] = {}
    above = -math.inf
    for name in names:
        above = max(wanted[name], above + LABEL_GAP)
        placed[name] = above
    limit = float(HEIGHT - BOTTOM)
    for name in reversed(names):
        placed[name] = min(placed[name], limit)
        limit = placed[name] - LABEL_GAP
    return placed
