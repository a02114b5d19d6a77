"""Charts with a row for each name, as SVG in the colors of the reports: critical differences, and bars."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from nearsight.evaluation import Estimate
from nearsight.reports.charts import round_ticks, short_number, with_margin
from nearsight.reports.html import render

_WIDTH, _LEFT, _RIGHT, _TOP = 640, 16, 16, 8
# Room for a name above its marks, and for each line that joins rows.
_NAME, _MARK, _GAP, _JOIN = 24, 20, 12, 18


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    top: float
    marks: list[dict[str, float | str]] = field(default_factory=list)


def critical_differences(
    estimates: Mapping[str, Estimate], tied_sets: Sequence[Sequence[str]], *, title: str, x_title: str
) -> Markup:
    """Return a critical-difference diagram: a line joins names that cannot be told apart.

    *Method*: Demšar (2006, figure 1), turned by 90 degrees so that long names have room. The scale is the
    metric in place of mean ranks, since the tests compare its means (Benavoli, Corani and Mangili 2016).

    Parameters
    ----------
    estimates : mapping of str to Estimate
        By name, the best first.
    tied_sets : sequence of sequence of str
        See `Evaluation.tied_sets`. A dot on the line marks each member.
    title : str
        What the chart shows, for those who cannot see it.
    x_title : str
    """
    right = _WIDTH - _RIGHT - _JOIN * len(tied_sets)
    x_of, ticks = _scale([v for e in estimates.values() for v in (e.low, e.high)], right)
    rows, middles, top = [], {}, float(_TOP)
    for name, e in estimates.items():
        middles[name] = top + _NAME + _MARK / 2
        mark: dict[str, float | str] = {"kind": "point", "y": middles[name]}
        mark |= {"x": x_of(e.value), "low": x_of(e.low), "high": x_of(e.high)}
        rows.append(_Row(name, top, [mark]))
        top += _NAME + _MARK + _GAP
    joins = [
        {"x": right + _JOIN * (number + 0.5), "dots": [middles[name] for name in members]}
        for number, members in enumerate(tied_sets)
    ]
    return _drawn(title, x_title, rows, ticks, top, right, joins)


def bars(
    estimates: Mapping[str, Sequence[Estimate]], names: Sequence[str], *, title: str, x_title: str
) -> Markup:
    """Return bars from 0 with their intervals, a few for each name.

    Parameters
    ----------
    estimates : mapping of str to sequence of Estimate
        By name, as many as `names`.
    names : sequence of str
        What the bars of a row are, written at the foot.
    title : str
        What the chart shows, for those who cannot see it.
    x_title : str
    """
    right = float(_WIDTH - _RIGHT)
    values = [e.high for of_row in estimates.values() for e in of_row]
    x_of, ticks = _scale([0.0, *values], right)
    rows, top = [], float(_TOP)
    for name, of_row in estimates.items():
        marks: list[dict[str, float | str]] = [
            {
                "kind": f"bar-{number}",
                "x": x_of(e.value),
                "from": x_of(0.0),
                "low": x_of(e.low),
                "high": x_of(e.high),
                "y": top + _NAME + _MARK * (number + 0.5),
            }
            for number, e in enumerate(of_row)
        ]
        rows.append(_Row(name, top, marks))
        top += _NAME + _MARK * len(of_row) + _GAP
    return _drawn(title, x_title, rows, ticks, top, right, [], names)


class _Scale:
    """Places values between the left edge and `right`."""

    def __init__(self, low: float, high: float, right: float) -> None:
        self._low, self._high, self._right = low, high, right

    def __call__(self, value: float) -> float:
        share = (value - self._low) / (self._high - self._low)
        return round(_LEFT + share * (self._right - 2 * _LEFT), 1)


def _scale(values: Sequence[float], right: float) -> tuple[_Scale, list[tuple[float, str]]]:
    low, high = with_margin(values)
    # A bar begins at 0.
    low = 0.0 if min(values) == 0 else low
    scale = _Scale(low, high, right)
    return scale, [(scale(tick), short_number(tick)) for tick in round_ticks(low, high)]


def _drawn(
    title: str,
    x_title: str,
    rows: Sequence[_Row],
    ticks: Sequence[tuple[float, str]],
    bottom: float,
    right: float,
    joins: Sequence[Mapping[str, object]],
    keys: Sequence[str] = (),
) -> Markup:
    # Every text in it was escaped.
    return Markup(
        render(
            "rows.svg",
            title=title,
            x_title=x_title,
            rows=rows,
            ticks=ticks,
            joins=joins,
            keys=keys,
            width=_WIDTH,
            height=bottom + 50 + 26 * bool(keys),
            top=_TOP,
            bottom=bottom,
            left=_LEFT,
            middle=(_LEFT + right) / 2,
        )
    )
