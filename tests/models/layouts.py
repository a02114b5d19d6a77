"""Writes tiny models in the Hugging Face ONNX layout, without torch."""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE_PX = 12
PROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": SIDE_PX},
    "crop_size": {"height": SIDE_PX, "width": SIDE_PX},
}


def tower(outputs: dict[str, list[object]], *, seed: int = 0) -> onnx.ModelProto:
    """Return a model that maps pixels by a random matrix to each output, of the given shape after n."""
    rng = np.random.default_rng(seed)
    nodes, weights = [helper.make_node("Flatten", ["pixel_values"], ["flat"], axis=1)], []
    infos = []
    for name, shape in outputs.items():
        matrix = rng.standard_normal((3 * SIDE_PX**2, int(np.prod(shape)))).astype(np.float32)
        weights += [
            numpy_helper.from_array(matrix, f"{name}.matrix"),
            numpy_helper.from_array(np.array([-1, *shape]), f"{name}.shape"),
        ]
        nodes += [
            helper.make_node("MatMul", ["flat", f"{name}.matrix"], [f"{name}.flat"]),
            helper.make_node("Reshape", [f"{name}.flat", f"{name}.shape"], [name]),
        ]
        infos.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape]))
    pixels = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["n", 3, SIDE_PX, SIDE_PX])
    graph = helper.make_graph(nodes, "tower", [pixels], infos, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write_layout(
    folder: Path,
    *,
    file: str = "onnx/vision_model.onnx",
    model_type: str = "clip",
    outputs: dict[str, list[object]] | None = None,
    seed: int = 0,
) -> Path:
    """Write a model with its configuration, and return the folder."""
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(tower(outputs or {"image_embeds": [6]}, seed=seed), path)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return folder
