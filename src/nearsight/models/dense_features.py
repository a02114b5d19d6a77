"""Feature maps of inner layers: a vector for each position of an image, at several depths."""

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import UnknownModelError, WeightsError
from nearsight.models.base import ModelEntry
from nearsight.models.cache import user_cache_dir
from nearsight.models.fingerprint import Fingerprint
from nearsight.models.graph_structure import residual_sums
from nearsight.models.onnx_graph import Shape, extract_layer, layer_shapes, read_graph_facts, with_outputs
from nearsight.models.preprocess import normalize
from nearsight.models.registry import find_model
from nearsight.models.runtimes.onnx import OnnxNetwork
from nearsight.models.runtimes.variants import OnnxVariants
from nearsight.models.spec import ModelSpec

# Strides of the layers, in input pixels, from fine to coarse.
_STRIDES = (4, 8, 16, 32)


class FeatureMaps:
    """Feature maps of several layers of one network; threads may share it.

    Parameters
    ----------
    spec : ModelSpec
        The model's facts, with these layers.
    layers : sequence of str
    open_network : callable
        Returns the network up to given layers, with them as outputs.
    """

    def __init__(
        self, spec: ModelSpec, layers: Sequence[str], open_network: Callable[[Sequence[str]], OnnxNetwork]
    ) -> None:
        self.spec = spec
        self.layers = tuple(layers)
        self._open_network = open_network

    @cached_property
    def _network(self) -> OnnxNetwork:
        return self._open_network(self.layers)

    @property
    def fingerprint(self) -> Fingerprint:
        """Fingerprint of the features."""
        return self.spec.fingerprint

    def up_to(self, layers: Sequence[str]) -> "FeatureMaps":
        """Return some of the layers, computed by no more of the network than they need.

        Parameters
        ----------
        layers : sequence of str
            Out of `self.layers`.
        """
        return FeatureMaps(self.spec, layers, self._open_network)

    def maps(self, tile: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Return the feature maps of one tile, one for each layer.

        Parameters
        ----------
        tile : ndarray of uint8, shape (H, W, 3)
            RGB; H and W are the network's input size.

        Returns
        -------
        list of ndarray of float32, each of shape (h, w, d)
            In the order of `layers`.

        Raises
        ------
        WeightsError
            The network computed a number that is not finite.
        """
        pixels = normalize(tile, self.spec)[None]
        (name,) = self._network.inputs
        outputs = self._network.run_all(self.layers, {name: pixels})
        maps = [_map(np.asarray(outputs[layer][0], np.float32), layer) for layer in self.layers]
        if not all(np.isfinite(features).all() for features in maps):
            raise WeightsError(
                f"{self.spec.id} computed numbers that are not finite; use a float32 version of the model"
            )
        return maps


def load_features(name: str, layers: Sequence[str] = (), *, cache_dir: Path | None = None) -> FeatureMaps:
    """Load the feature maps of a model's inner layers.

    Parameters
    ----------
    name : str
        An ONNX model, as for `load_model`; without ``#``.
    layers : sequence of str, optional
        Layers with a vector for each position: (n, d, h, w), or tokens (n, t, d) whose last ones form a
        square. By default the last additions of residual blocks at strides of about 4, 8, 16 and 32.
    cache_dir : Path, optional
        Directory for converted models.

    Raises
    ------
    UnknownModelError
        There is no such model or layer, or the model has no inner layers.
    WeightsError
        The model is damaged, or has no feature maps.
    """
    entry, variants = find_network(name)
    graph = variants.graph(cache_dir or user_cache_dir())
    shapes = {k: shape for k, shape in layer_shapes(graph, entry.spec.input_px).items() if _side(shape)}
    selected = tuple(layers) or _default_layers(graph, shapes)
    for layer in selected:
        if layer not in shapes:
            near = difflib.get_close_matches(layer, shapes, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"nearsight models {name} lists them."
            raise UnknownModelError(f"{name} has no layer {layer!r} with a vector for each position; {hint}")
    if not selected:
        raise WeightsError(f"no layer of {name} has a vector for each position; use a convolutional network")
    spec = replace(
        entry.spec,
        layer="+".join(selected),
        dim=sum(_length(shapes[layer]) for layer in selected),
        # Tiles of the image are embedded whole, from fully decoded pixels.
        resize_mode="squash",
        draft=False,
        pooling="mean",
        normalize=False,
    )
    _extract_layers(graph, selected, name)
    return FeatureMaps(spec, selected, lambda some: OnnxNetwork(name, _extract_layers(graph, some, name)))


def find_network(name: str) -> tuple[ModelEntry, OnnxVariants]:
    """Find an ONNX model without loading it.

    Raises
    ------
    UnknownModelError
        There is no such model, or it has no inner layers.
    """
    entry = find_model(name)
    if not isinstance(entry.variants, OnnxVariants):
        raise UnknownModelError(
            f"{name} has no inner layers; use an ONNX model by its name without #, such as efficientnet-lite0"
        )
    return entry, entry.variants


def _extract_layers(graph: Path | bytes, layers: Sequence[str], name: str) -> bytes:
    """Return the part of a graph that computes these layers, with them as outputs."""
    # The part up to the deepest layer contains the others.
    for layer in reversed(layers):
        part = extract_layer(graph, layer)
        if set(layers) <= read_graph_facts(part).layers:
            return with_outputs(part, layers)
    raise UnknownModelError(
        f"the layers {', '.join(layers)} of {name} do not lie on one path; choose layers on one path"
    )


def _default_layers(graph: Path | bytes, shapes: dict[str, Shape]) -> tuple[str, ...]:
    ends = [name for name in residual_sums(graph) if name in shapes] or list(shapes)
    last = {_side(shapes[name]): name for name in ends}
    if len(last) == 1:
        # Tokens have the same number of positions at every depth.
        return tuple(dict.fromkeys((ends[len(ends) // 3], ends[2 * len(ends) // 3], ends[-1])))
    finest = max(last)
    sides = (finest * _STRIDES[0] // stride for stride in _STRIDES)
    near = (min(last, key=lambda side: abs(math.log2(side / max(target, 1)))) for target in sides)
    return tuple(dict.fromkeys(last[side] for side in near))


def _side(shape: Shape) -> int:
    """Return the side of a layer's grid of positions; 0 if it has none."""
    sizes = [n or 0 for n in shape[1:]]
    if len(shape) == 4 and min(sizes[1:]) > 1:
        return sizes[1]
    return math.isqrt(sizes[0]) if len(shape) == 3 and sizes[0] >= 4 else 0


def _length(shape: Shape) -> int:
    return int((shape[1] if len(shape) == 4 else shape[2]) or 0)


def _map(values: NDArray[np.float32], layer: str) -> NDArray[np.float32]:
    if values.ndim == 3:
        return np.ascontiguousarray(values.transpose(1, 2, 0))
    if values.ndim == 2:
        side = math.isqrt(len(values))
        # The class token and DINO's registers come before the patches.
        return np.ascontiguousarray(values[len(values) - side**2 :].reshape(side, side, -1))
    raise WeightsError(f"{layer!r} is {values.shape} for one image; it must have a vector for each position")
