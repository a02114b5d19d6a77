"""Charts: every point lies where its number says."""

import re
import xml.etree.ElementTree as ElementTree

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
