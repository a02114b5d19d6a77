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


def write_text_tower(
    folder: Path,
    *,
    file: str = "onnx/text_model.onnx",
    into: str = "",
    output: str = "text_embeds",
    dim: int = 6,
    masked: bool = False,
) -> Path:
    """Add a text tower that averages rows of a table, and its tokenizer, to a folder; return the folder.

    Parameters
    ----------
    into : str
        A model file of the folder that gets the tower as a second one.
    masked : bool
        Whether it takes a mask, and leaves padding out of the mean.
    """
    table = np.random.default_rng(5).standard_normal((len(_WORDS), dim)).astype(np.float32)
    names = ["input_ids", "attention_mask"][: 1 + masked]
    nodes = [helper.make_node("Gather", ["words", "input_ids"], ["rows"])]
    if masked:
        nodes += [
            helper.make_node("Cast", ["attention_mask"], ["weights"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["weights", "last"], ["column"]),
            helper.make_node("Mul", ["rows", "column"], ["kept"]),
            helper.make_node("ReduceSum", ["kept", "second"], [output], keepdims=0),
        ]
    else:
        nodes.append(helper.make_node("ReduceMean", ["rows"], [output], axes=[1], keepdims=0))
    weights = [
        numpy_helper.from_array(table, "words"),
        numpy_helper.from_array(np.array([-1]), "last"),
        numpy_helper.from_array(np.array([1]), "second"),
    ]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "t"]) for name in names]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", dim])]
    graph = helper.make_graph(nodes, "text", inputs, outputs, weights)
    path = folder / (into or file)
    if into:
        graph = _together(onnx.load(path).graph, graph)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    _write_tokenizer(folder)
    return folder


_WORDS = ["[pad]", "[unknown]", "[start]", "[end]", "a", "the", "cat", "dog", "and"]


def _together(first: onnx.GraphProto, second: onnx.GraphProto) -> onnx.GraphProto:
    for field in ("node", "input", "output", "initializer"):
        getattr(first, field).extend(getattr(second, field))
    return first


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(_WORDS)}, unk_token="[unknown]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[start] $A [end]", special_tokens=[("[start]", 2), ("[end]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] = {"max_position_embeddings": 8}
    (folder / "config.json").write_text(json.dumps(config))
