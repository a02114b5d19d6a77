"""Writes a small network of convolutions, with the facts that `onnx:` asks for."""

import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FACTS = {
    "dim": 24,
    "input_px": [32, 32],
    "resize_mode": "squash",
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
    "layer": "pooled",
}


def network(path):
    """Write a network of three convolutions, and return its name."""
    rng = np.random.default_rng(1)
    nodes, weights, last, n_in = [], [], "pixels", 3
    for i, n_out in enumerate((16, 16, 24)):
        w = rng.standard_normal((n_out, n_in, 3, 3)).astype(np.float32) / (3 * n_in**0.5)
        weights += [
            numpy_helper.from_array(w, f"w{i}"),
            numpy_helper.from_array(np.full(n_out, 0.1, np.float32), f"b{i}"),
        ]
        # The second has no name, as some exporters leave it.
        name = "" if i == 1 else f"conv{i}"
        nodes.append(
            helper.make_node("Conv", [last, f"w{i}", f"b{i}"], [f"conv{i}"], name=name, pads=[1] * 4)
        )
        nodes.append(helper.make_node("Relu", [f"conv{i}"], [f"relu{i}"], name=f"relu{i}"))
        last, n_in = f"relu{i}", n_out
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["pool"], name="pool"),
        helper.make_node("Flatten", ["pool"], ["pooled"], name="pooled"),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "net",
        [value("pixels", TensorProto.FLOAT, ["n", 3, 32, 32])],
        [value("pooled", TensorProto.FLOAT, ["n", 24])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    path.with_name(f"{path.name}.json").write_text(json.dumps(FACTS))
    return f"onnx:{path}"
