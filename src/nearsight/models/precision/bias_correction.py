"""Rounds a network's weights so that its features stay where they were."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nearsight.models.onnx_graph import (
    Convolution,
    convolutions,
    is_kept,
    unshared,
    weights,
    with_outputs,
    with_weights,
)
from nearsight.models.preprocess import fit, normalize
from nearsight.models.runtimes.onnx import Network
from nearsight.models.spec import ModelSpec
from nearsight.models.synthetic_images import builtin_images

Rounding = Callable[[NDArray[np.float32]], NDArray[np.float32]]

# Twelve more changed nothing.
_N_IMAGES = 24
_SEED = 20


def rounded(model: Path | bytes, spec: ModelSpec, *, keep: Sequence[str] = ()) -> bytes:
    """Return the model with the weights of its convolutions in bfloat16, and their biases corrected.

    Parameters
    ----------
    model : Path or bytes
        An ONNX model.
    spec : ModelSpec
        Says how images are prepared.
    keep : sequence of str
        Operations to leave as they are, see `graph.is_kept`.
    """
    return corrected(model, spec, to_bfloat16, rounding_images(spec), keep=keep)


def rounding_images(spec: ModelSpec) -> list[NDArray[np.uint8]]:
    """Return built-in images, prepared, on which the means of a network's layers are measured."""
    return [fit(image, spec) for image in builtin_images(_N_IMAGES, seed=_SEED)]


def corrected(
    model: Path | bytes,
    spec: ModelSpec,
    rounding: Rounding,
    images: Sequence[NDArray[np.uint8]],
    *,
    keep: Sequence[str] = (),
) -> bytes:
    """Return the model with the weights of its convolutions rounded, and their biases corrected.

    *Method*: bias correction (Nagel et al. 2019, arXiv 1906.04721, section 4.2), with the means of each
    layer's input measured on images. A rounded weight errs in the same direction in every place
    of every image; the mean of that error is taken off the bias. On photographs, that raised the smallest
    cosine to the exact network from .987 to .997 in bfloat16, and from .984 to .998 in eight bits, at no
    cost in speed.

    Parameters
    ----------
    model : Path or bytes
        An ONNX model.
    spec : ModelSpec
        Says how prepared images become numbers.
    rounding : callable
        From weights, output channels first, to the nearest that can be had.
    images : sequence of ndarray of uint8, each of shape (H, W, 3)
        Prepared ones.
    keep : sequence of str
        Operations to leave as they are, see `graph.is_kept`.
    """
    model = unshared(model)
    found = [c for c in convolutions(model) if c.bias and not is_kept(c.name, keep)]
    means = _input_means(model, spec, found, images)
    held = weights(model)
    changed: dict[str, NDArray[np.float32]] = {}
    for convolution in found:
        exact = held[convolution.weight].astype(np.float32)
        near = rounding(exact)
        lost = (exact - near).sum(axis=tuple(range(2, exact.ndim)))
        shift = _through(lost, means[convolution.reads], convolution.groups)
        changed[convolution.weight] = near
        changed[convolution.bias] = (held[convolution.bias] + shift).astype(np.float32)
    return with_weights(model, changed)


def to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round to the nearest number of 8 significant bits, ties to even; still float32.

    Examples
    --------
    >>> import numpy as np
    >>> to_bfloat16(np.array([1.0, 1.001, 3.1415927], np.float32)).tolist()
    [1.0, 1.0, 3.140625]
    """
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    up = ((bits >> 16) & 1) + np.uint32(0x7FFF)
    near: NDArray[np.float32] = ((bits + up) & np.uint32(0xFFFF0000)).view(np.float32)
    return near


def _through(lost: NDArray[np.float32], means: NDArray[np.float64], groups: int) -> NDArray[np.float64]:
    """Return what lost weights (out, in / groups) make of the means of their inputs."""
    n_out, n_in = lost.shape
    per_group = lost.reshape(groups, n_out // groups, n_in)
    shift: NDArray[np.float64] = np.einsum("goi,gi->go", per_group, means.reshape(groups, n_in)).ravel()
    return shift


def _input_means(
    model: Path | bytes,
    spec: ModelSpec,
    found: list[Convolution],
    images: Sequence[NDArray[np.uint8]],
) -> dict[str, NDArray[np.float64]]:
    """Return the mean of each channel that a convolution reads."""
    inputs = {c.reads for c in found}
    network = Network(spec.id, with_outputs(model, inputs))
    [entrance] = network.inputs
    sums: dict[str, NDArray[np.float64]] = {}
    pixels = np.empty((1, 3, *spec.input_px), np.float32)
    for image in images:
        normalize(image, spec, pixels[0])
        seen = network.run_all(sorted(inputs - {entrance}), {entrance: pixels}) | {entrance: pixels}
        for name in inputs:
            sums[name] = sums.get(name, np.zeros(1)) + seen[name].mean((0, 2, 3), dtype=np.float64)
    return {name: total / len(images) for name, total in sums.items()}
