"""Charts: every point lies where its number says."""

import re
import xml.etree.ElementTree as ElementTree
from itertools import combinations

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


def boxes(svg):
    """Return where each label is, and each point with its interval; letters are 8 wide and 12 high."""
    root, labels, marks = ElementTree.fromstring(str(svg)), {}, {}
    for text in root.findall("text"):
        if text.get("class") == "name":
            x, y, length = float(text.get("x")), float(text.get("y")), 8 * len(text.text)
            left = x - length if text.get("text-anchor") == "end" else x
            labels[text.text] = (left, y - 10, left + length, y + 2)
    intervals = [line for line in root.findall("line") if line.get("class") == "interval"]
    for number, (line, circle) in enumerate(zip(intervals, root.findall("circle"), strict=True)):
        x, y = float(circle.get("cx")), float(circle.get("cy"))
        marks[f"interval {number}"] = (x, float(line.get("y2")), x, float(line.get("y1")))
        marks[f"point {number}"] = (x - 5, y - 5, x + 5, y + 5)
    return labels, {name: (left, min(t, b), right, max(t, b)) for name, (left, t, right, b) in marks.items()}


def meet(first, second):
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def test_no_label_lies_on_another_or_on_a_point():
    points = [Point(40 + n / 10, 0.66 + n / 100, 0.6, 0.7, f"efficientnet {n}") for n in range(4)]
    # The label to the right of the first of these would lie on the second.
    points += [Point(14, 0.67, 0.64, 0.7, "efficientnet-lite0+lite2"), Point(20, 0.66, 0.63, 0.69, "lite2")]
    labels, marks = boxes(chart(points, title="t", x_title="x", y_title="y", log_x=True))
    assert len(labels) == 6
    every = {**marks, **labels}
    assert [(a, b) for a, b in combinations(every, 2) if b in labels and meet(every[a], every[b])] == []
    assert all(left > 0 and right < 640 and top > 0 for left, top, right, _ in labels.values())
