"""A small network with inner layers, and images of classes that it tells apart badly."""

import json

import numpy as np
import pytest
from PIL import Image

from nearsight.models.onnx_graph import make_node, serialize

SIDE = 32
LAYERS = ("sum", "last")


@pytest.fixture(scope="session")
def small_network(tmp_path_factory):
    """Return the name of a network of three convolutions, the first two joined by a residual sum."""
    rng = np.random.default_rng(1)
    weights, nodes = {}, []

    def convolution(x, name, n_in, n_out):
        weights[f"{name}.w"] = rng.standard_normal((n_out, n_in, 3, 3)).astype(np.float32) / (3 * n_in**0.5)
        nodes.append(
            make_node("Conv", [x, f"{name}.w"], name, pads=[1] * 4, strides=[2, 2] if n_in == 3 else [1, 1])
        )
        return name

    first = convolution("pixels", "first", 3, 8)
    nodes.append(make_node("Relu", [first], "first.relu"))
    second = convolution("first.relu", "second", 8, 8)
    nodes.append(make_node("Add", [first, second], "sum"))
    last = convolution("sum", "last", 8, 12)
    end = convolution(last, "end", 12, 16)
    nodes.append(make_node("Relu", [end], "end.relu"))
    nodes.append(make_node("GlobalAveragePool", ["end.relu"], "pool"))
    nodes.append(make_node("Flatten", ["pool"], "pooled", axis=1))
    graph = serialize(
        "net", nodes, weights, inputs={"pixels": ["n", 3, SIDE, SIDE]}, outputs={"pooled": ["n", 16]}
    )
    file = tmp_path_factory.mktemp("network") / "net.onnx"
    file.write_bytes(graph)
    facts = {"dim": 16, "input_px": [SIDE] * 2, "resize_mode": "squash", "mean": [0.5] * 3, "std": [0.5] * 3}
    file.with_name("net.onnx.json").write_text(json.dumps({**facts, "layer": "pooled", "license": "MIT"}))
    return f"onnx:{file}"


@pytest.fixture(scope="session")
def stripes(tmp_path_factory):
    """Return a folder of nine classes: stripes of other directions, whose light says nothing."""
    folder, rng = tmp_path_factory.mktemp("stripes"), np.random.default_rng(0)
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    for number in range(9):
        (folder / f"class {number}").mkdir()
        angle = np.pi * number / 9
        wave = np.cos(angle) * x + np.sin(angle) * y
        for image in range(16):
            light, strength = rng.uniform(60, 190), rng.uniform(20, 60)
            pixels = (
                light + strength * np.sin(wave / 1.6 + rng.uniform(0, 6)) + rng.normal(0, 12, (SIDE, SIDE))
            )
            pixels = np.repeat(np.clip(pixels, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
            Image.fromarray(pixels).save(folder / f"class {number}" / f"{image}.png")
    return folder
