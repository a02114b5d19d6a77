"""Writes a tiny vision transformer, as exporters spell one out, with the facts that `onnx:` asks for."""

import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_DIM, _SIDE_PX, _PATCH_PX = 32, 32, 8
_FACTS = {
    "dim": _DIM,
    "input_px": [_SIDE_PX, _SIDE_PX],
    "resize_mode": "squash",
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
    "layer": "image_embeds",
}


class _Graph:
    def __init__(self):
        self.rng = np.random.default_rng(4)
        self.nodes, self.weights = [], []

    def held(self, values, name):
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def random(self, name, *shape):
        scale = np.prod(shape[:-1]) ** -0.5
        return self.held((self.rng.standard_normal(shape) * scale).astype(np.float32), name)

    def op(self, kind, *inputs, name, **attributes):
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def normalized(self, x, at):
        """Layer normalization in parts, as exporters wrote it before there was one operation for it."""
        mean = self.op("ReduceMean", x, name=f"{at}.mean", axes=[-1])
        centered = self.op("Sub", x, mean, name=f"{at}.centered")
        squared = self.op("Pow", centered, self.held(np.float32(2), f"{at}.two"), name=f"{at}.squared")
        variance = self.op("ReduceMean", squared, name=f"{at}.variance", axes=[-1])
        safe = self.op("Add", variance, self.held(np.float32(1e-12), f"{at}.tiny"), name=f"{at}.safe")
        return self.op("Div", centered, self.op("Sqrt", safe, name=f"{at}.root"), name=f"{at}.unit")

    def linear(self, x, n_in, n_out, at):
        product = self.op("MatMul", x, self.random(f"{at}.weight", n_in, n_out), name=f"{at}.product")
        return self.op("Add", product, self.random(f"{at}.bias", n_out), name=at)


def transformer(path, *, loudness=1.0):
    """Write one block of a transformer on 16 patches, and return its name.

    Parameters
    ----------
    loudness : float
        Factor of what goes into the first normalization, which takes it out again. Some trained networks have
        values there whose squares are more than 65504.
    """
    graph = _Graph()
    filters = graph.random("patches.weight", 3 * _PATCH_PX**2, _DIM)
    graph.weights[-1].CopyFrom(
        numpy_helper.from_array(
            loudness * numpy_helper.to_array(graph.weights[-1]).T.reshape(_DIM, 3, _PATCH_PX, _PATCH_PX),
            filters,
        )
    )
    bias = graph.random("patches.bias", _DIM)
    maps = graph.op("Conv", "pixels", filters, bias, name="patches", strides=[_PATCH_PX] * 2)
    flat = graph.op("Reshape", maps, graph.held(np.array([0, _DIM, -1]), "shape"), name="flat")
    x = graph.normalized(graph.op("Transpose", flat, name="tokens", perm=[0, 2, 1]), "first")
    q, k, v = (graph.linear(x, _DIM, _DIM, part) for part in ("query", "key", "value"))
    scores = graph.op("MatMul", q, graph.op("Transpose", k, name="keys", perm=[0, 2, 1]), name="scores")
    weights = graph.op("Softmax", scores, name="weights", axis=-1)
    x = graph.op("Add", x, graph.op("MatMul", weights, v, name="attended"), name="residual")
    wide = graph.linear(graph.normalized(x, "second"), _DIM, 2 * _DIM, "wide")
    bent = graph.op("Mul", wide, graph.op("Erf", wide, name="erf"), name="bent")
    x = graph.op("Add", x, graph.linear(bent, 2 * _DIM, _DIM, "narrow"), name="block")
    graph.op("ReduceMean", x, name="image_embeds", axes=[1], keepdims=0)
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        graph.nodes,
        "vit",
        [value("pixels", TensorProto.FLOAT, ["n", 3, _SIDE_PX, _SIDE_PX])],
        [value("image_embeds", TensorProto.FLOAT, ["n", _DIM])],
        graph.weights,
    )
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    path.with_name(f"{path.name}.json").write_text(json.dumps(_FACTS))
    return f"onnx:{path}"
