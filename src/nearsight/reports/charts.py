"""Charts as SVG in the colors of the reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor, log10
from typing import Any

from markupsafe import Markup

from nearsight.reports.html import render

_WIDTH, _HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 24, 16, 44
_N_TICKS = 5
# A line of text, and a letter, in the largest font that page.css has for charts.
_LINE, _LETTER = 20, 10
# A point; where its label stands; and how finely other places are tried.
_RADIUS, _ABOVE, _ASIDE, _STEP = 6, 8, 10, 4
# For files; in a report, page.css sets the colors.
_STYLE = (
    "<style>.grid-line{stroke:#ccc}.tick{fill:#666}.name{fill:#222}.interval{stroke:#222}"
    ".curve{fill:none;stroke:#2557c7}.point{fill:#fff;stroke:#2557c7;stroke-width:2}"
    ".point.marked{fill:#2557c7}</style>"
)

#: Left, top, right and bottom.
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Point:
    """A value with its interval.

    Attributes
    ----------
    x, y : float
    low, high : float
        Interval of y.
    label : str
        Written beside the point; empty for none.
    is_marked : bool
        Whether the point is filled with the accent color.
    """

    x: float
    y: float
    low: float
    high: float
    label: str = ""
    is_marked: bool = False


def chart(
    points: Sequence[Point],
    *,
    title: str,
    x_title: str,
    y_title: str,
    log_x: bool = False,
    is_line: bool = False,
) -> Markup:
    """Return a chart of points with their intervals.

    Parameters
    ----------
    points : sequence of Point
        At least one.
    title : str
        What the chart shows, for those who cannot see it.
    x_title, y_title : str
    log_x : bool
        Whether x has a logarithmic scale; all x are then above 0.
    is_line : bool
        Whether a line joins the points.
    """
    xs = [log10(point.x) if log_x else point.x for point in points]
    x_low, x_high = with_margin(xs)
    y_low, y_high = with_margin([value for point in points for value in (point.low, point.high)])
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def left(x: float) -> float:
        return round(_LEFT + (x - x_low) / (x_high - x_low) * width, 1)

    def top(y: float) -> float:
        return round(_TOP + (y_high - y) / (y_high - y_low) * height, 1)

    shown = [
        {
            "x": left(x),
            "y": top(p.y),
            "low": top(p.low),
            "high": top(p.high),
            "label": p.label,
            "is_marked": p.is_marked,
        }
        for x, p in zip(xs, points, strict=True)
    ]
    _place_labels(shown)
    # Every point of a line has a tick of its own; a scatter has round numbers.
    x_values = xs if is_line else (log_ticks if log_x else round_ticks)(x_low, x_high)
    x_ticks = [(left(x), short_number(10**x if log_x else x)) for x in x_values]
    y_ticks = [(top(y), short_number(y)) for y in round_ticks(y_low, y_high)]
    html = render(
        "chart.svg",
        title=title,
        width=_WIDTH,
        height=_HEIGHT,
        box=(_LEFT, _TOP, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM),
        points=shown,
        line=" ".join(f"{p['x']},{p['y']}" for p in shown) if is_line else "",
        x_ticks=x_ticks,
        y_ticks=y_ticks,
        x_title=x_title,
        y_title=y_title,
    )
    # Every text in it was escaped.
    return Markup(html)


def standalone(svg: Markup) -> str:
    """Return a chart as the content of a file of its own."""
    head = '<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="12" class="chart"'
    return str(svg).replace('<svg class="chart"', f"{head}", 1).replace("<title>", f"{_STYLE}<title>", 1)


def _place_labels(points: Sequence[dict[str, Any]]) -> None:
    """Place labels as near to their points as they have room: on no other label, and on no point's interval.

    The upper ones come first. One that has room nowhere stays to the right of its point.
    """
    taken = [
        box
        for p in points
        for box in (
            (p["x"] - _RADIUS, p["y"] - _RADIUS, p["x"] + _RADIUS, p["y"] + _RADIUS),
            (p["x"] - 1, p["high"], p["x"] + 1, p["low"]),
        )
    ]
    for point in sorted((p for p in points if p["label"]), key=lambda p: p["y"]):
        places = [
            {"anchor": anchor, "label_y": point["y"] - _ABOVE + sign * step}
            for step in range(0, _HEIGHT, _STEP)
            for sign in ((1, -1) if step else (1,))
            for anchor in ("start", "end")
        ]
        free = (place for place in places if _has_room(_label_box({**point, **place}), taken))
        point |= next(free, places[0])
        taken.append(_label_box(point))


def _label_box(point: Mapping[str, Any]) -> Box:
    length, y = len(point["label"]) * _LETTER, point["label_y"]
    left = point["x"] - _ASIDE - length if point["anchor"] == "end" else point["x"] + _ASIDE
    return left, y - 0.75 * _LINE, left + length, y + 0.25 * _LINE


def _has_room(box: Box, taken: Sequence[Box]) -> bool:
    """Whether a label lies within the chart and meets nothing."""
    left, top, right, bottom = box
    if left < _LEFT or right > _WIDTH or top < 0 or bottom > _HEIGHT - _BOTTOM:
        return False
    return not any(
        left < other[2] and other[0] < right and top < other[3] and other[1] < bottom for other in taken
    )


def with_margin(values: Sequence[float]) -> tuple[float, float]:
    """Return the range of some values, a little wider."""
    low, high = min(values), max(values)
    margin = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    return low - margin, high + margin


def round_ticks(low: float, high: float) -> list[float]:
    """Return round numbers within a range.

    >>> round_ticks(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    rough = (high - low) / _N_TICKS
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough - 1e-12)
    first = -int(-low // step) if low % step == 0 else floor(low / step) + 1
    n = floor((high + step * 1e-9) / step) - first + 1
    return [round((first + at) * step, 10) for at in range(n)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return the logarithms of round numbers within a range of logarithms.

    These are 1, 2 and 5 times powers of ten, or the powers alone where that is too many.

    >>> [round(10**tick) for tick in log_ticks(log10(4), log10(70))]
    [5, 10, 20, 50]
    >>> [round(10**tick) for tick in log_ticks(log10(22), log10(41))]
    [25, 30, 35, 40]
    """
    powers = range(floor(low), floor(high) + 1)
    ticks = [log10(factor) + power for power in powers for factor in (1, 2, 5)]
    within = [tick for tick in ticks if low <= tick <= high]
    if len(within) > _N_TICKS + 2:
        return [tick for tick in within if tick == int(tick)]
    return within if len(within) > 1 else [log10(value) for value in round_ticks(10**low, 10**high)]


def short_number(value: float) -> str:
    """Return a number as an axis writes it."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
