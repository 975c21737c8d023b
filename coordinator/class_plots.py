"""What a model answers, class by class, as SVG text: legible on light and on dark, without script or network."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from html import escape

from .plot import PALETTE, mark

MATRIX = 270  # wide and high, without what stands around it
ASIDE, ABOVE, BELOW = 46, 26, 36  # room for names
HEAT_WIDTH, ROW = 980, 30
PANEL_WIDTH, PANEL_HEIGHT = 190, 130
NUMBERED = 20  # classes; beyond, cells are too small for figures
NAMED = 16  # classes; beyond, not every one is named
UNSEEN = "∗"

Shares = Sequence[float | None]  # of right answers, by class; None: no image of it


def confusion_plot(counts: Sequence[Sequence[int]], title: str, unseen: Collection[int] = ()) -> str:
    """Return the matrix `counts` of images by class shown (row) and answered (column) as a picture.

    Blue is right, orange is wrong; the strength of orange grows with the square root of its share of the row, so that
    rare errors are seen. `unseen` classes are marked.
    """
    classes = len(counts)
    cell = MATRIX / max(classes, 1)
    middle = ABOVE + MATRIX / 2
    parts = [
        _text(ASIDE, 12, title, "start", "title"),
        _text(ASIDE + MATRIX / 2, ABOVE + MATRIX + 27, "answered", "middle"),
        f'<text x="9" y="{middle}" text-anchor="middle" transform="rotate(-90 9 {middle})">shown</text>',
    ]
    for row, line in enumerate(counts):
        y, shown = ABOVE + row * cell, max(sum(line), 1)
        if row % _every(classes) == 0:
            star = UNSEEN if row in unseen else ""
            parts.append(_text(ASIDE - 5, y + cell / 2, f"{row}{star}", "end"))
            parts.append(_text(ASIDE + (row + 0.5) * cell, ABOVE + MATRIX + 11, str(row), "middle"))
        for column, count in enumerate(line):
            share = min(max(count / shown, 0.0), 1.0)
            if share > 0:
                kind, strength = ("right", 0.75 * share) if row == column else ("wrong", share**0.5)
                about = f"{count} of {sum(line)} images of {row} are taken for {column}"
                figure = str(count) if classes <= NUMBERED else ""
                parts.append(_cell(ASIDE + column * cell, y, cell, cell, kind, strength, figure, about))
    frame = f'<rect class="frame" x="{ASIDE}" y="{ABOVE}" width="{MATRIX}" height="{MATRIX}"/>'
    return _svg(ASIDE + MATRIX + 2, ABOVE + MATRIX + BELOW, f"{title}: confusion matrix", [*parts, frame])


def heat_map(shares: Mapping[str, Shares], unseen: Mapping[str, Collection[int]]) -> str:
    """Return a picture with a row a tier and a column a class: the more orange, the more wrong answers."""
    classes = max((len(row) for row in shares.values()), default=0)
    left, top = 110, 24
    cell = (HEAT_WIDTH - left - 1) / max(classes, 1)
    parts = [
        _text(left + (at + 0.5) * cell, top / 2, str(at), "middle")
        for at in range(classes)
        if at % _every(classes) == 0
    ]
    for row, (tier, values) in enumerate(shares.items()):
        y = top + row * ROW
        parts.append(_text(left - 8, y + ROW / 2, tier, "end", "title"))
        for at, share in enumerate(values):
            if share is None:
                continue
            star = UNSEEN if at in unseen.get(tier, ()) else ""
            figure = f"{100 * share:.1f}{star}" if classes <= NUMBERED else star
            wrong = min(max(1 - share, 0.0), 1.0)
            about = f"{tier}: {100 * share:.2f} % of the images of {at}"
            parts.append(_cell(left + at * cell, y, cell, ROW, "wrong", wrong**0.5, figure, about))
    frame = f'x="{left}" y="{top}" width="{HEAT_WIDTH - left - 1}" height="{ROW * len(shares)}"'
    parts.append(f'<rect class="frame" {frame}/>')
    return _svg(HEAT_WIDTH, top + ROW * len(shares) + 1, "right answers in percent, by tier and class", parts)


def class_panel(at: int, lines: Mapping[str, Sequence[tuple[int, float]]], low: float) -> str:
    """Return a small picture of one class: its share of right answers by round, a line a tier, from `low` to 1."""
    rounds = [number for points in lines.values() for number, _ in points] or [0]
    first, last = min(rounds), max(*rounds, min(rounds) + 1)
    left, right, top, bottom = 42, 8, 22, 20

    def place(number: int, share: float) -> tuple[float, float]:
        up = (min(max(share, low), 1.0) - low) / (1 - low)
        across = (number - first) / (last - first)
        return left + across * (PANEL_WIDTH - left - right), PANEL_HEIGHT - bottom - up * (PANEL_HEIGHT - top - bottom)

    parts = [_text(left, top / 2, f"class {at}", "start", "title")]
    for share in (low, 1.0):
        y = place(first, share)[1]
        parts.append(f'<line class="frame" x1="{left}" x2="{PANEL_WIDTH - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(left - 4, y, f"{100 * share:.0f} %", "end"))
    for number, anchor in ((first, "start"), (last, "end")):
        parts.append(_text(place(number, low)[0], PANEL_HEIGHT - bottom / 2 + 2, str(number), anchor))
    for index, points in enumerate(lines.values()):
        if points:
            at_points = [place(*point) for point in points]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at_points)
            end = mark(index, *at_points[-1])
            parts.append(f'<g class="c{index % len(PALETTE)}"><polyline class="line" points="{path}"/>{end}</g>')
    return _svg(PANEL_WIDTH, PANEL_HEIGHT, f"right answers for class {at} by round", parts)


def style() -> str:
    """Return the style that all these pictures share; it stands once on the page."""
    light = "".join(f".cells .c{i}{{--c:{pair[0]}}}" for i, pair in enumerate(PALETTE))
    dark = "".join(f".cells .c{i}{{--c:{pair[1]}}}" for i, pair in enumerate(PALETTE))
    return (
        ".cells{font:11px system-ui,sans-serif;--right:#0072b2;--wrong:#d55e00;--ink:#333;--over:#fff;--frame:#c8ced4}"
        ".cells text{fill:var(--ink);dominant-baseline:central}.cells .title{font-weight:600;font-size:12px}"
        ".cells .right{fill:var(--right)}.cells .wrong{fill:var(--wrong)}.cells text.over{fill:var(--over)}"
        ".cells .frame{fill:none;stroke:var(--frame)}.cells .line{fill:none;stroke:var(--c);stroke-width:1.8}"
        f".cells .mark{{fill:var(--c)}}{light}@media (prefers-color-scheme:dark){{"
        f".cells{{--right:#56b4e9;--wrong:#f08a3c;--ink:#d5d9dd;--over:#111;--frame:#4a525b}}{dark}}}"
    )


def _every(classes: int) -> int:
    return max(1, -(-classes // NAMED))


def _cell(
    x: float, y: float, width: float, height: float, kind: str, strength: float, figure: str, about: str
) -> str:
    text = _text(x + width / 2, y + height / 2, figure, "middle", "over" if strength > 0.6 else "") if figure else ""
    rect = f'<rect class="{kind}" fill-opacity="{strength:.3f}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}"'
    return f'<g><title>{escape(about)}</title>{rect} height="{height:.1f}"/>{text}</g>'


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    shape = f' class="{kind}"' if kind else ""
    return f'<text{shape} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(width: float, height: float, about: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" class="cells" role="img" '
        f'aria-label="{escape(about)}" style="width:{width:g}px">{"".join(parts)}</svg>'
    )
