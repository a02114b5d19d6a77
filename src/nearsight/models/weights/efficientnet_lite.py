"""Builds the ONNX graph of an EfficientNet-Lite from its torch weights, without torch.

*Method*: Tan & Le 2019 (arXiv 1905.11946) in the Lite variant of its authors: no squeeze-and-excitation,
ReLU6, stem and head not scaled with width. TensorFlow's "SAME" padding is kept, and each batch
normalization is folded into the convolution before it, in float64.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import WeightsError
from nearsight.models.onnx_graph import make_node, serialize

#: Part of the cached file's name: increase it whenever the result of `build_graph` changes.
GRAPH_VERSION = 1

BATCH_NORM_EPSILON = 1e-3


@dataclass(frozen=True, slots=True)
class _BlockGroup:
    n_blocks: int
    kernel_px: int
    stride: int


# Widths are read from the weights.
_STAGES = (
    _BlockGroup(1, 3, 1),
    _BlockGroup(2, 3, 2),
    _BlockGroup(2, 5, 2),
    _BlockGroup(3, 3, 2),
    _BlockGroup(3, 5, 1),
    _BlockGroup(4, 5, 2),
    _BlockGroup(1, 3, 1),
)


@dataclass(slots=True)
class _EfficientNetBuilder:
    """Collects nodes and weights; each method adds a layer and returns the name of its output."""

    weights: Mapping[str, NDArray[Any]]
    nodes: list[Any] = field(default_factory=list)
    initializers: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def convolution(
        self, x: str, name: str, torch_conv: str, torch_norm: str, *, size_px: int, stride: int = 1
    ) -> str:
        kernel, bias = _folded(self.weights, torch_conv, torch_norm)
        self.initializers |= {f"{name}.weight": kernel, f"{name}.bias": bias}
        before, after = same_padding(size_px, kernel.shape[-1], stride)
        # A depthwise convolution has one input channel per filter.
        groups = kernel.shape[0] if kernel.shape[1] == 1 else 1
        self.nodes.append(
            make_node(
                "Conv",
                [x, f"{name}.weight", f"{name}.bias"],
                name,
                kernel_shape=kernel.shape[2:],
                strides=[stride, stride],
                pads=[before, before, after, after],
                group=groups,
            )
        )
        return name

    def relu6(self, x: str) -> str:
        self.initializers |= {"zero": np.float32(0).reshape(()), "six": np.float32(6).reshape(())}
        self.nodes.append(make_node("Clip", [x, "zero", "six"], f"{x}.relu6"))
        return f"{x}.relu6"

    def add(self, x: str, y: str, name: str) -> str:
        self.nodes.append(make_node("Add", [x, y], name))
        return name

    def block(self, x: str, i: int, kernel_px: int, *, stride: int, size_px: int) -> str:
        """Add an inverted residual block, with the input added if the shapes match."""
        torch, name = f"_blocks.{i}", f"block{i}"
        inside = x
        if f"{torch}._expand_conv.weight" in self.weights:
            inside = self.convolution(
                inside, f"{name}.expand", f"{torch}._expand_conv", f"{torch}._bn0", size_px=size_px
            )
            inside = self.relu6(inside)
        inside = self.convolution(
            inside,
            f"{name}.depthwise",
            f"{torch}._depthwise_conv",
            f"{torch}._bn1",
            size_px=size_px,
            stride=stride,
        )
        if self.initializers[f"{name}.depthwise.weight"].shape[-1] != kernel_px:
            raise WeightsError(f"The weights of {torch} are not those of an EfficientNet-Lite.")
        inside = self.relu6(inside)
        inside = self.convolution(
            inside, f"{name}.project", f"{torch}._project_conv", f"{torch}._bn2", size_px=size_px
        )
        repeats = i > 0 and stride == 1 and self._width(f"block{i - 1}.project") == self._width(inside)
        return self.add(inside, x, f"{name}.add") if repeats else inside

    def _width(self, name: str) -> int:
        return len(self.initializers[f"{name}.weight"])


def build_graph(weights: Mapping[str, NDArray[Any]], *, input_px: int, repeats: float = 1.0) -> bytes:
    """Build the feature extractor of an EfficientNet-Lite as a serialized ONNX model.

    Parameters
    ----------
    weights : mapping of str to ndarray
        State dict with the names of the torch port; the classifier is not used.
    input_px : int
        Side of the square input, in pixels.
    repeats : float
        Depth multiplier for the number of blocks of the inner stages.

    Returns
    -------
    bytes
        Input ``pixels`` (n, 3, input_px, input_px) float32, normalized; output ``pool_output`` (n, dim)
        float32, not yet of unit length. Nodes carry their layer's name (``stem``, ``block3.expand``,
        ``block3.add``, ``head``), and each node's output has its name, so that each layer can be extracted.

    Raises
    ------
    WeightsError
        The weights are not those of an EfficientNet-Lite of that depth.
    """
    graph = _EfficientNetBuilder(weights)
    try:
        dim = _add_layers(graph, input_px, repeats)
    except KeyError as error:
        raise WeightsError(
            f"The weights lack {error}; they are not those of an EfficientNet-Lite."
        ) from error
    return serialize(
        "efficientnet-lite",
        graph.nodes,
        graph.initializers,
        inputs={"pixels": ["n", 3, input_px, input_px]},
        outputs={"pooled": ["n", dim]},
    )


def block_shapes(repeats: float = 1.0) -> list[tuple[int, int]]:
    """Return kernel size in pixels and stride of each block, in order.

    Parameters
    ----------
    repeats : float
        See `build_graph`.

    Examples
    --------
    >>> len(block_shapes()), block_shapes()[-1]
    (16, (3, 1))
    """
    shapes = []
    for number, stage in enumerate(_STAGES):
        # The Lite variants scale neither the first stage nor the last.
        scaled = number not in (0, len(_STAGES) - 1)
        n_blocks = math.ceil(stage.n_blocks * repeats) if scaled else stage.n_blocks
        shapes += [(stage.kernel_px, stage.stride)] + [(stage.kernel_px, 1)] * (n_blocks - 1)
    return shapes


def _add_layers(graph: _EfficientNetBuilder, input_px: int, repeats: float) -> int:
    x = graph.relu6(graph.convolution("pixels", "stem", "_conv_stem", "_bn0", size_px=input_px, stride=2))
    size_px, blocks = math.ceil(input_px / 2), block_shapes(repeats)
    for i, (kernel_px, stride) in enumerate(blocks):
        x = graph.block(x, i, kernel_px, stride=stride, size_px=size_px)
        size_px = math.ceil(size_px / stride)
    if f"_blocks.{len(blocks)}._project_conv.weight" in graph.weights:
        raise WeightsError(f"The weights have more than the {len(blocks)} expected blocks.")
    x = graph.relu6(graph.convolution(x, "head", "_conv_head", "_bn1", size_px=size_px))
    graph.nodes.append(make_node("GlobalAveragePool", [x], "pool"))
    graph.nodes.append(make_node("Flatten", ["pool"], "pooled", axis=1))
    return len(graph.initializers["head.weight"])


def _folded(
    weights: Mapping[str, NDArray[Any]], conv: str, norm: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return kernel and bias of the convolution that equals `conv` followed by `norm`."""
    gain, shift, mean, variance = (
        weights[f"{norm}.{part}"].astype(np.float64)
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    factor = gain / np.sqrt(variance + BATCH_NORM_EPSILON)
    kernel = weights[f"{conv}.weight"].astype(np.float64) * factor[:, None, None, None]
    return kernel.astype(np.float32), (shift - mean * factor).astype(np.float32)


def same_padding(size_px: int, kernel_px: int, stride: int) -> tuple[int, int]:
    """Return TensorFlow's padding for an output of ceil(size / stride), with the odd pixel at the end."""
    total = max((math.ceil(size_px / stride) - 1) * stride + kernel_px - size_px, 0)
    return total // 2, total - total // 2
