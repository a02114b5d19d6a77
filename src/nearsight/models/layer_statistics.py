"""Mean and spread of inner layers, beside a model's vector; the network computes these layers anyway.

Pretrained vectors forget what does not tell ImageNet's classes apart. Earlier layers still have it, and a
classifier that learns from a few examples finds it there. Searches without labels gain nothing.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import UnknownModelError
from nearsight.models.graph_structure import linear_outputs
from nearsight.models.onnx_graph import Shape, layer_shapes, make_node, with_nodes
from nearsight.models.preprocess import resize_and_crop
from nearsight.models.runtimes.onnx import OnnxBackend
from nearsight.models.spec import ModelSpec
from nearsight.models.synthetic_images import synthetic_images

#: Inner layers whose mean and spread are used: the last of each width, from the end.
N_LAYERS = 3
#: Output of the graph. Increase its number whenever the vectors of `with_layer_statistics` change.
OUTPUT = "layers.1"

# Images on which mean and standard deviation of each number are measured. They are nobody's data, so that
# vectors of two collections can be compared.
_N_IMAGES, _SEED = 96, 33
_DIGITS = 3


def last_layers(
    graph: Path | bytes, shapes: Mapping[str, Shape], end: str, n_layers: int = N_LAYERS
) -> dict[str, int]:
    """Return the last linear feature map of each number of channels, the deepest last, with that number.

    Parameters
    ----------
    graph : Path or bytes
    shapes : mapping of str to tuple
        Shapes of the graph's layers for one image, see `layer_shapes`.
    end : str
        The model's own layer, which is left out.
    n_layers : int
        As many from the end.
    """
    last: dict[int, str] = {}
    for layer in linear_outputs(graph):
        shape = shapes.get(layer, ())
        if layer != end and len(shape) == 4 and min(n or 0 for n in shape[1:]) > 1:
            last.pop(int(shape[1] or 0), None)
            last[int(shape[1] or 0)] = layer
    chosen = list(last.items())[-n_layers:] if n_layers else []
    return {layer: width for width, layer in chosen}


def statistic_nodes(layers: Mapping[str, int], prefix: str) -> tuple[list[object], list[str]]:
    """Return nodes that compute mean and standard deviation of feature maps over their positions.

    Parameters
    ----------
    layers : mapping of str to int
        See `last_layers`.
    prefix : str
        Of the names of values.

    Returns
    -------
    nodes : list
    outputs : list of str
        Of each layer, the mean, then the standard deviation.
    """
    nodes: list[object] = []
    for layer in layers:
        name = f"{prefix}.{layer}"
        nodes += [
            make_node("GlobalAveragePool", [layer], f"{name}.average"),
            make_node("Flatten", [f"{name}.average"], f"{name}.mean", axis=1),
            make_node("Sub", [layer, f"{name}.average"], f"{name}.deviation"),
            make_node("Mul", [f"{name}.deviation", f"{name}.deviation"], f"{name}.square"),
            make_node("GlobalAveragePool", [f"{name}.square"], f"{name}.variance"),
            make_node("Sqrt", [f"{name}.variance"], f"{name}.deviation.root"),
            make_node("Flatten", [f"{name}.deviation.root"], f"{name}.spread", axis=1),
        ]
    return nodes, [f"{prefix}.{layer}.{part}" for layer in layers for part in ("mean", "spread")]


def layer_statistics_spec(spec: ModelSpec, graph: Path | bytes) -> ModelSpec:
    """Return the facts of a model's form with the mean and spread of inner layers.

    Parameters
    ----------
    spec : ModelSpec
        The facts of the model, with the name of that form.
    graph : Path or bytes
        The model, whose output is one vector or one feature map an image.

    Raises
    ------
    UnknownModelError
        The network has no feature maps before its output, or several vectors an image.
    """
    shapes = layer_shapes(graph, spec.input_px)
    layers = last_layers(graph, shapes, spec.layer)
    if not layers or len(shapes.get(spec.layer, ())) not in (2, 4):
        raise UnknownModelError(
            f"{spec.id}: #layers needs a convolutional network with one vector an image, such as"
            " efficientnet-lite0; remove #layers"
        )
    dim = spec.dim + 2 * sum(layers.values())
    return replace(spec, layer=OUTPUT, dim=dim, pooling="mean", normalize=True, matryoshka_dims=())


def with_layer_statistics(spec: ModelSpec, graph: Path | bytes) -> bytes:
    """Return the network whose output is the model's vector, then the statistics of inner layers.

    Both parts have length 1. Before that, each statistic is standardized by its mean and deviation over
    synthetic images.

    Parameters
    ----------
    spec, graph
        The model itself, see `layer_statistics_spec`.
    """
    shapes = layer_shapes(graph, spec.input_px)
    layers = last_layers(graph, shapes, spec.layer)
    nodes, names = statistic_nodes(layers, OUTPUT)
    raw, n_raw = f"{OUTPUT}.statistics", 2 * sum(layers.values())
    nodes.append(make_node("Concat", names, raw, axis=1))
    mean, scale = _usual(spec, with_nodes(graph, nodes, {}, {raw: n_raw}), raw, n_raw)
    vector = spec.layer
    if len(shapes[spec.layer]) == 4:
        vector = f"{OUTPUT}.vector"
        nodes.append(make_node("GlobalAveragePool", [spec.layer], f"{vector}.pool"))
        nodes.append(make_node("Flatten", [f"{vector}.pool"], vector, axis=1))
    nodes += [
        make_node("Sub", [raw, f"{OUTPUT}.usual"], f"{OUTPUT}.difference"),
        make_node("Mul", [f"{OUTPUT}.difference", f"{OUTPUT}.scale"], f"{OUTPUT}.standardized"),
        make_node("LpNormalization", [f"{OUTPUT}.standardized"], f"{OUTPUT}.second", axis=1, p=2),
        make_node("LpNormalization", [vector], f"{OUTPUT}.first", axis=1, p=2),
        make_node("Concat", [f"{OUTPUT}.first", f"{OUTPUT}.second"], OUTPUT, axis=1),
    ]
    constants = {f"{OUTPUT}.usual": mean, f"{OUTPUT}.scale": scale}
    return with_nodes(graph, nodes, constants, {OUTPUT: spec.dim + n_raw})


def _usual(
    spec: ModelSpec, graph: bytes, output: str, dim: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and 1 / standard deviation of each statistic over synthetic images."""
    facts = replace(spec, layer=output, dim=dim, pooling="mean", normalize=False)
    backend = OnnxBackend(facts, graph)
    images = [resize_and_crop(image, spec) for image in synthetic_images(_N_IMAGES, seed=_SEED)]
    values = np.concatenate([backend.embed([image]) for image in images]).astype(np.float64)
    # Few digits, so that processors that round differently agree on them.
    return _rounded(values.mean(axis=0)), _rounded(1 / np.maximum(values.std(axis=0), 1e-6))


def _rounded(values: NDArray[np.float64]) -> NDArray[np.float32]:
    with np.errstate(divide="ignore"):
        steps = 10.0 ** (np.floor(np.log10(np.abs(values))) - _DIGITS + 1)
    steps[values == 0] = 1
    return (np.round(values / steps) * steps).astype(np.float32)
