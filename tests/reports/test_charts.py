"""Charts: every point lies where its number says."""

import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest

from nearsight.reports.charts import Point, chart

NAMESPACE = ""


def test_points_keep_their_order_and_the_title_is_read_aloud():
    points = [Point(10, 0.5, 0.4, 0.6, "a & b"), Point(100, 0.7, 0.65, 0.8, is_marked=True)]
    svg = chart(points, title="quality <1>", x_title="speed", y_title="recall", log_x=True)
    root = ElementTree.fromstring(str(svg))
    assert root.get("aria-label") == "quality <1>"
    first, second = root.findall("circle")
    assert float(first.get("cx")) < float(second.get("cx"))
    assert float(first.get("cy")) > float(second.get("cy"))
    assert "marked" in second.get("class")
    assert "a &amp; b" in svg


def test_a_line_joins_the_points_and_names_each():
    points = [Point(dim, 0.5 + dim / 1000, 0.4, 0.9) for dim in (16, 64, 256)]
    svg = chart(points, title="t", x_title="numbers", y_title="y", log_x=True, is_line=True)
    [line] = re.findall(r'points="([^"]+)"', svg)
    assert len(line.split()) == 3
    for text in (">16<", ">64<", ">256<"):
        assert text in svg


@pytest.mark.parametrize("value", [0.0, 0.5, 1e6])
def test_one_point_alone_is_drawn(value):
    assert "nan" not in chart([Point(5, value, value, value)], title="t", x_title="x", y_title="y")


def test_a_logarithmic_scale_has_round_numbers():
    points = [Point(x, 0.5, 0.4, 0.6, "m") for x in (6.2, 26, 44)]
    root = ElementTree.fromstring(str(chart(points, title="t", x_title="x", y_title="y", log_x=True)))
    ticks = [text.text for text in root.findall("text") if text.get("class") == "tick"]
    assert [text for text in ticks if text not in "xy" and not text.startswith("0.")] == ["10", "20", "50"]


def test_a_long_label_does_not_leave_the_chart():
    points = [
        Point(1, 0.5, 0.4, 0.6, "m"),
        Point(8, 0.6, 0.5, 0.7, "efficientnet-lite0+lite2"),
        Point(16, 0.5, 0.4, 0.6, "m"),
    ]
    root = ElementTree.fromstring(str(chart(points, title="t", x_title="x", y_title="y", log_x=True)))
    [long] = [text for text in root.findall("text") if text.text.startswith("efficientnet")]
    assert long.get("text-anchor") == "end"


def test_no_label_lies_on_another():
    points = [Point(10 + n / 100, 0.5 + n / 1000, 0.4, 0.9, f"model {n}") for n in range(4)]
    points.append(Point(1000, 0.5, 0.4, 0.9, "far away"))
    root = ElementTree.fromstring(str(chart(points, title="t", x_title="x", y_title="y", log_x=True)))
    names = {text.text: float(text.get("y")) for text in root.findall("text") if text.get("class") == "name"}
    near = sorted(y for name, y in names.items() if name != "far away")
    assert min(after - before for before, after in pairwise(near)) >= 20
    far = next(c for c in root.findall("circle") if float(c.get("cx")) > 500)
    assert names["far away"] == float(far.get("cy")) - 8
