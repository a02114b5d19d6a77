"""A collection of two kinds of images, and orders of customers."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """Two kinds of images, thirty of each: crops of two photographs."""
    data = pytest.importorskip("skimage.data")
    folder = tmp_path_factory.mktemp("kinds")
    rng = np.random.default_rng(0)
    for name, pixels in (("cat", data.chelsea()), ("cup", data.coffee())):
        for number in range(30):
            x, y = rng.integers(0, 100, 2)
            Image.fromarray(pixels[y : y + 200, x : x + 300]).resize((96, 64)).save(
                folder / f"{name}{number}.png"
            )
    return folder


@pytest.fixture(scope="module")
def orders(tmp_path_factory):
    file = tmp_path_factory.mktemp("orders") / "orders.csv"
    lines = ["customer;image;weight"]
    lines += [
        f"{n};{'cat' if n % 2 else 'cup'}{(n * 3 + i) % 30};{i + 1}" for n in range(20) for i in range(3)
    ]
    file.write_text("\n".join([*lines, "0;gone.png;", "21;gone.png;1"]) + "\n")
    return file


@pytest.fixture
def two_kinds(nearsight, kinds):
    return nearsight.with_images(kinds)
