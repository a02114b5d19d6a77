"""The ten colors of the map's categories, as color-blind people see them."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

PALETTE = Path(__file__).parents[2] / "src" / "nearsight" / "web" / "map" / "palette.js"
# Machado, Oliveira and Fernandes 2009, at full severity, on linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "no red": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no green": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.01182, 0.04294, 0.968881],
    ],
    "no blue": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.3039],
    ],
}


def to_linear(rgb):
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def to_srgb(linear):
    clipped = np.clip(linear, 0, 1)
    return np.where(clipped <= 0.0031308, clipped * 12.92, 1.055 * clipped ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("sight", SIGHT)
def test_any_two_of_the_ten_colors_and_the_gray_of_others_differ(sight):
    color = pytest.importorskip("skimage.color")
    text = PALETTE.read_text(encoding="utf-8")
    ten = re.findall(r"#[0-9a-f]{6}", re.search(r"const TEN = (.*);", text)[1])
    other = re.search(r'TEN\[code\] \?\? "(#[0-9a-f]{6})"', text)[1]
    assert len(set(ten)) == 10
    rgb = np.array([[int(each[i : i + 2], 16) / 255 for i in (1, 3, 5)] for each in [*ten, other]])
    seen = color.rgb2lab(to_srgb(to_linear(rgb) @ np.array(SIGHT[sight]).T)[None])[0]
    least = min(color.deltaE_ciede2000(a, b) for a, b in itertools.combinations(seen, 2))
    assert least > 10
