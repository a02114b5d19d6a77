"""Drawings of results, and their reasons in words."""

import numpy as np
import pytest
from PIL import Image

from nearsight.anomaly import AnomalyResult, draw
from nearsight.anomaly.heatmap import overlay, reason
from nearsight.errors import InvalidParameterError

from sample_images import fabric, torn


def test_drawings_show_image_and_places(detector):
    good, bad = detector.score([fabric(400), torn(401)], heatmaps=True)
    drawn = draw(bad, panel_px=200)
    pixels = np.asarray(drawn).astype(int)
    colored = np.abs(pixels - pixels.mean(-1, keepdims=True)).max(-1) > 30
    left, right = colored[70:260, :220], colored[70:260, 232:]
    assert not left.any()
    assert right.sum() > 200
    assert np.asarray(draw(good)).shape[1] > np.asarray(draw(good)).shape[0]
    with pytest.raises(InvalidParameterError, match="heatmaps=True"):
        draw(detector.score([fabric(1)])[0])


def result_of(score, levels, heat=0.0):
    heatmap = np.full((8, 8), heat, np.float32)
    return AnomalyResult("a.png", score, 3.0, score > 3, levels, heatmap, Image.new("RGB", (8, 8)))


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (result_of(9.0, {"image": 0.5, "places": 9.0, "tiles block2": 8.0}, 9), "in the outlined places."),
        (result_of(9.0, {"image": 9.0, "places": 1.0}), "as a whole, in no single place"),
        (result_of(9.0, {"image": 5.0, "places": 7.0}, 9), "as a whole, and most in the outlined"),
        (result_of(3.5, {"image": 2.5, "places": 2.5}), "together that exceeds"),
        (result_of(1.0, {"image": 1.0, "places": 0.1}), "Resembles good images."),
        (result_of(1.0, {"image": 1.0, "places": 0.1}, 4), "too small to count"),
        (result_of(9.0, {"image": 9.0}), "in no single place"),
    ],
)
def test_a_sentence_says_what_the_verdict_rests_on(found, words):
    assert words in reason(found)
    assert draw(found).width >= 560
    assert max(overlay(found, longer_px=100).size) == 100


@pytest.mark.parametrize("size", [(20000, 10), (10, 20000)])
def test_a_thread_of_an_image_can_be_seen(size):
    found = AnomalyResult("a.png", 9e27, 3.0, True, {"image": 9e27}, None, Image.new("RGB", size, "red"))
    red = np.all(np.asarray(draw(found)) == (255, 0, 0), axis=-1)
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    assert min(len(rows), len(columns)) >= 48


def test_names_that_no_font_has_are_drawn(detector):
    [found] = detector.score([torn(1)], heatmaps=True)
    odd = AnomalyResult("/a/\udcff日本\n" + "x" * 300, 9.0, 1.0, True, found.levels, None, found.image)
    assert draw(odd).width > 500
