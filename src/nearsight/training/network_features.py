"""What a linear map is learned from: a model's vector, and the mean and spread of its inner layers.

A network computes its inner layers anyway, so they cost nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from nearsight.errors import InvalidParameterError
from nearsight.models import Backend
from nearsight.models.dense_features import find_network
from nearsight.models.layer_statistics import N_LAYERS, last_layers, statistic_nodes
from nearsight.models.onnx_graph import layer_shapes, make_node, with_nodes
from nearsight.models.runtimes.onnx import OnnxBackend
from nearsight.models.spec import ModelSpec
from nearsight.training.closed_form import AffineMap

#: Output of the graph with features, and of a trained model.
FEATURES, TRAINED = "features", "trained"


@dataclass(frozen=True)
class FeatureNetwork:
    """A network with one output for all features of an image.

    Attributes
    ----------
    base : ModelSpec
        The pretrained model.
    graph : bytes
        The network, with the output `FEATURES`.
    dim : int
        Number of features; the first `base.dim` are the model's own vector.
    layers : tuple of str
        Inner layers that follow it; of each, the mean over all positions, then the standard deviation.
    """

    base: ModelSpec
    graph: bytes
    dim: int
    layers: tuple[str, ...]

    def backend(self) -> Backend:
        """Return the network as a model whose vectors are the features, of any length."""
        spec = replace(self.base, dim=self.dim, layer=FEATURES, pooling="mean", normalize=False)
        return OnnxBackend(spec, self.graph, reload=partial(_reload, self))

    def with_map(self, map: AffineMap) -> bytes:
        """Return the network with a map of the features as its only output, `TRAINED`.

        Parameters
        ----------
        map : AffineMap
            Of `dim` features.
        """
        components = map.components.astype(np.float64)
        weights = {
            f"{TRAINED}.weight": np.ascontiguousarray(map.components.T, np.float32),
            f"{TRAINED}.bias": (-components @ map.mean.astype(np.float64)).astype(np.float32),
        }
        nodes = [make_node("Gemm", [FEATURES, *weights], TRAINED)]
        return with_nodes(self.graph, nodes, weights, {TRAINED: len(components)})


def _reload(network: FeatureNetwork) -> Backend:
    return network.backend()


def feature_network(name: str, cache_dir: Path, *, n_layers: int = N_LAYERS) -> FeatureNetwork:
    """Return the network of a model with its features as output.

    Parameters
    ----------
    name : str
        An ONNX model in full precision, by its name without ``#``.
    cache_dir : Path
        Directory for converted models.
    n_layers : int
        Inner layers to add, fewer where the network has fewer feature maps of different width.

    Raises
    ------
    UnknownModelError
        There is no such model, or it is not an ONNX model.
    InvalidParameterError
        The model's output is not one vector an image.
    """
    entry, variants = find_network(name)
    return features_of(entry.spec, variants.graph(cache_dir), n_layers=n_layers)


def features_of(spec: ModelSpec, graph: Path | bytes, *, n_layers: int = N_LAYERS) -> FeatureNetwork:
    """Return a network with its features as output.

    Parameters
    ----------
    spec : ModelSpec
        The facts of the model; the network may have other weights.
    graph : Path or bytes
    n_layers : int
        See `feature_network`.

    Raises
    ------
    InvalidParameterError
        The model's output is not one vector an image.
    """
    shapes = layer_shapes(graph, spec.input_px)
    widths = last_layers(graph, shapes, spec.layer, n_layers)
    nodes = [*_vector_nodes(spec, len(shapes.get(spec.layer, ())))]
    statistics, names = statistic_nodes(widths, FEATURES)
    nodes += [*statistics, make_node("Concat", [f"{FEATURES}.vector", *names], FEATURES, axis=1)]
    dim = spec.dim + 2 * sum(widths.values())
    return FeatureNetwork(spec, with_nodes(graph, nodes, {}, {FEATURES: dim}), dim, tuple(widths))


def _vector_nodes(spec: ModelSpec, n_axes: int) -> Sequence[object]:
    """Compute the model's own vector, of unit length where the model's is."""
    name = f"{FEATURES}.vector"
    pooled = f"{name}.pooled"
    if n_axes == 4:
        steps = [make_node("GlobalAveragePool", [spec.layer], f"{name}.pool")]
        steps.append(make_node("Flatten", [f"{name}.pool"], pooled, axis=1))
    elif n_axes == 2:
        steps, pooled = [], spec.layer
    else:
        raise InvalidParameterError(
            f"the layer {spec.layer!r} of {spec.id} has several vectors an image, of which training cannot "
            "choose; use a model with one vector an image, such as efficientnet-lite0"
        )
    last = make_node("LpNormalization", [pooled], name, axis=1, p=2) if spec.normalize else None
    return [*steps, last or make_node("Identity", [pooled], name)]
