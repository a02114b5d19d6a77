"""Plots costs against the number of rows, as SVG for the documentation; both axes are logarithmic."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 720, 400, 60, 260, 20, 45


@dataclass(frozen=True, slots=True)
class Line:
    """What is drawn as one line.

    Attributes
    ----------
    name : str
    color : str
        One that light and dark pages can show.
    dashes : str
        Of SVG; empty for none.
    points : sequence of (float, float, str)
        Rows, cost, and what a pointer on it is told.
    """

    name: str
    color: str
    dashes: str
    points: Sequence[tuple[float, float, str]]


def drawing(title: str, unit: str, lines: Sequence[Line]) -> str:
    """Return the SVG; `unit` is that of the costs."""
    sizes = sorted({rows for line in lines for rows, _, _ in line.points})
    costs = [cost for line in lines for _, cost, _ in line.points]
    low, high = 10 ** math.floor(math.log10(min(costs))), 10 ** math.ceil(math.log10(max(costs)))
    high = max(high, 10 * low)

    def x(rows: float) -> float:
        span = math.log10(max(sizes) / min(sizes)) or 1
        return _LEFT + 15 + (_WIDTH - _LEFT - _RIGHT - 30) * math.log10(rows / min(sizes)) / span

    def y(cost: float) -> float:
        return (
            _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * math.log10(cost / low) / math.log10(high / low)
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif"'
        ' font-size="13" role="img">',
        f"<title>{title}</title>",
        "<style>text{fill:#495057}line{stroke:#adb5bd;stroke-width:.5}"
        "@media(prefers-color-scheme:dark){text{fill:#ced4da}line{stroke:#495057}}</style>",
    ]
    cost = float(low)
    while cost <= high * 1.001:
        parts += [
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(cost):.1f}" y2="{y(cost):.1f}"/>',
            f'<text x="{_LEFT - 8}" y="{y(cost) + 4:.1f}" text-anchor="end">{cost:g} {unit}</text>',
        ]
        cost *= 10
    parts += [
        f'<text x="{x(rows):.1f}" y="{_HEIGHT - _BOTTOM + 20}" text-anchor="middle">{rows:,}</text>'
        for rows in sizes
    ]
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{_HEIGHT - 6}" text-anchor="middle">rows</text>')
    for line in lines:
        path = " ".join(f"{x(rows):.1f},{y(cost):.1f}" for rows, cost, _ in line.points)
        stroke = f'stroke="{line.color}" stroke-width="2" stroke-dasharray="{line.dashes}"'
        parts.append(f'<polyline points="{path}" fill="none" {stroke}/>')
        for rows, cost, note in line.points:
            place = f'cx="{x(rows):.1f}" cy="{y(cost):.1f}"'
            words = f"{line.name}, {rows:,} rows: {note}"
            parts.append(f'<circle {place} r="3.5" fill="{line.color}"><title>{words}</title></circle>')
    height = -math.inf
    for line in sorted(lines, key=lambda line: y(line.points[-1][1])):
        height = max(y(line.points[-1][1]) + 4, height + 16)
        parts.append(f'<text x="{_WIDTH - _RIGHT + 8}" y="{height:.1f}">{line.name}</text>')
    return "\n".join([*parts, "</svg>\n"])
