"""What a network sees at each place of an image, at several depths at once."""

import difflib
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import UnknownModelError, WeightsError
from nearsight.models.base import ModelEntry
from nearsight.models.cache import user_cache
from nearsight.models.onnx_graph import Shape, inspect, layer_shapes, sums, tap, with_outputs
from nearsight.models.preprocess import normalize
from nearsight.models.registry import find_model
from nearsight.models.runtimes.onnx import Network
from nearsight.models.runtimes.variants import OnnxForms
from nearsight.models.spec import Fingerprint, ModelSpec

# Chosen by measurement (benchmarks/anomaly.py); of other models, layers of about these depths are taken.
_CHOSEN = {"efficientnet-lite0": ("block2.add", "block10.add", "block15.project")}

# Sides of the input per place at which patches are compared: fine, middle, coarse.
_STRIDES = (4, 16, 32)


class FeatureMaps:
    """Several layers of one network, for squares of the network's own size.

    Threads may share it.

    Parameters
    ----------
    spec : ModelSpec
        The model's facts, with these layers.
    layers : sequence of str
    network : Network
        Gives these layers.
    """

    def __init__(self, spec: ModelSpec, layers: Sequence[str], network: Network) -> None:
        self.spec = spec
        self.layers = tuple(layers)
        self._network = network
        (self._input,) = network.inputs

    @property
    def fingerprint(self) -> Fingerprint:
        """What makes features comparable."""
        return self.spec.fingerprint

    def maps(self, tile: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Return the features of one tile, a map for each layer.

        Parameters
        ----------
        tile : ndarray of uint8, shape (H, W, 3)
            RGB, H and W the network's own.

        Returns
        -------
        list of ndarray of float32, each of shape (h, w, d)
            In the order of `layers`.

        Raises
        ------
        WeightsError
            The network gave a number that is not finite.
        """
        pixels = normalize(tile, self.spec)[None]
        found = self._network.run_all(self.layers, {self._input: pixels})
        maps = [_map(np.asarray(found[layer][0], np.float32), layer) for layer in self.layers]
        if not all(np.isfinite(one).all() for one in maps):
            raise WeightsError(
                f"{self.spec.id} gave numbers that are not finite; use a float32 version of the model"
            )
        return maps


def load_features(name: str, layers: Sequence[str] = (), *, cache_dir: Path | None = None) -> FeatureMaps:
    """Load a model's inner layers.

    Parameters
    ----------
    name : str
        A model that is an ONNX graph inside, as for `load_model`; without ``#``.
    layers : sequence of str, optional
        Values inside the graph that have a vector for each place: (n, d, h, w), or tokens (n, t, d) of which
        the last make a square. By default the last sums of residual blocks at about a fourth, a sixteenth
        and a thirty-second of the input's side.
    cache_dir : Path, optional
        Where converted models are kept.

    Raises
    ------
    UnknownModelError
        There is no such model or layer, or the model has no layers to look into.
    WeightsError
        The model is damaged, or none of its layers has places.
    """
    entry, forms = find_network(name)
    graph = forms.graph(cache_dir or user_cache())
    shapes = {k: shape for k, shape in layer_shapes(graph, entry.spec.input_px).items() if _side(shape)}
    chosen = tuple(layers) or _CHOSEN.get(entry.spec.identity or entry.spec.id) or _choice(graph, shapes)
    for layer in chosen:
        if layer not in shapes:
            near = difflib.get_close_matches(layer, shapes, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"nearsight models {name} lists them."
            raise UnknownModelError(f"{name} has no layer {layer!r} with a vector for each place; {hint}")
    if not chosen:
        raise WeightsError(f"no layer of {name} has a vector for each place; use a convolutional network")
    spec = replace(
        entry.spec,
        layer="+".join(chosen),
        dim=sum(_length(shapes[layer]) for layer in chosen),
        # An image is cut into squares that are seen whole, of pixels that were all decoded.
        resize_mode="squash",
        draft=False,
        pooling="mean",
        normalize=False,
    )
    return FeatureMaps(spec, chosen, Network(name, _tapped(graph, chosen, name)))


def find_network(name: str) -> tuple[ModelEntry, OnnxForms]:
    """Find a model that is an ONNX graph inside, without loading it.

    Raises
    ------
    UnknownModelError
        There is no such model, or it has no layers.
    """
    entry = find_model(name)
    if not isinstance(entry.forms, OnnxForms):
        raise UnknownModelError(
            f"{name} has no layers to look into; use a model that is a network by its plain name, such as"
            " efficientnet-lite0"
        )
    return entry, entry.forms


def _tapped(graph: Path | bytes, layers: Sequence[str], name: str) -> bytes:
    """Return the part of a graph that gives these layers; what none of them needs is left out."""
    # One of them is the deepest, and what leads to it holds the others.
    for layer in reversed(layers):
        part = tap(graph, layer)
        if set(layers) <= inspect(part).layers:
            return with_outputs(part, layers)
    raise UnknownModelError(
        f"{', '.join(layers)} of {name} do not lie on one way through the network; choose layers that do"
    )


def _choice(graph: Path | bytes, shapes: dict[str, Shape]) -> tuple[str, ...]:
    ends = [name for name in sums(graph) if name in shapes] or list(shapes)
    last = {_side(shapes[name]): name for name in ends}
    if len(last) == 1:
        # Tokens: as many places at every depth.
        return tuple(dict.fromkeys((ends[len(ends) // 3], ends[2 * len(ends) // 3], ends[-1])))
    finest = max(last)
    wanted = (finest * _STRIDES[0] // stride for stride in _STRIDES)
    near = (min(last, key=lambda side: abs(math.log2(side / max(want, 1)))) for want in wanted)
    return tuple(dict.fromkeys(last[side] for side in near))


def _side(shape: Shape) -> int:
    """Return how many places a layer has on a side; 0 where it has none."""
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
        # What comes first is no place: the class token, and DINO's registers.
        return np.ascontiguousarray(values[len(values) - side**2 :].reshape(side, side, -1))
    raise WeightsError(f"{layer!r} is {values.shape} for one image; it must have a vector for each place")
