"""Charts with a row for each name: marks lie where the numbers say, and lines join what ties."""

import xml.etree.ElementTree as ElementTree

from nearsight.evaluation import Estimate
from nearsight.reports.row_charts import bars, critical_differences


def test_a_line_with_dots_joins_exactly_the_models_of_each_set():
    estimates = {
        "a & b": Estimate(0.9, 0.8, 1, 9),
        "c": Estimate(0.7, 0.6, 0.8, 9),
        "d": Estimate(0, 0, 0, 9),
    }
    svg = critical_differences(estimates, [["a & b", "d"], ["c", "d"]], title="t <1>", x_title="x")
    root = ElementTree.fromstring(str(svg))
    assert root.get("aria-label") == "t <1>"
    points = [c for c in root.findall("circle") if "point" in c.get("class")]
    xs, ys = ([float(c.get(key)) for c in points] for key in ("cx", "cy"))
    assert xs == sorted(xs, reverse=True)
    dots = [(float(c.get("cx")), float(c.get("cy"))) for c in root.findall("circle") if c not in points]
    lines = [line for line in root.findall("line") if line.get("class") == "join"]
    joined = [[y for x, y in dots if x == float(line.get("x1"))] for line in lines]
    assert joined == [[ys[0], ys[2]], [ys[1], ys[2]]]
    assert all(float(line.get("x1")) > max(xs) for line in lines)


def test_bars_are_as_long_as_their_values():
    estimates = {
        "one": [Estimate(0.8, 0.7, 0.9, 5), Estimate(0.2, 0.1, 0.3, 5)],
        "two": [Estimate(0, 0, 0, 5)] * 2,
    }
    root = ElementTree.fromstring(str(bars(estimates, ("learned", "others"), title="t", x_title="x")))
    widths = [float(r.get("width")) for r in root.findall("rect") if r.get("height") == "16"]
    assert abs(widths[0] - 4 * widths[1]) < 0.5
    assert widths[2:] == [0, 0]
    assert {"learned", "others"} <= {text.text for text in root.findall("text")}
