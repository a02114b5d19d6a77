"""From a network's output to a model's vectors; the same for every runtime."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import WeightsError
from nearsight.models.spec import ModelSpec


def decode_px(spec: ModelSpec) -> int | None:
    """Return the minimum length of a decoded image's shorter side in pixels; None for full size."""
    if not spec.draft:
        return None
    return max(spec.input_px) if spec.resize_mode == "squash" else spec.resize_px


def pool_output(output: NDArray[Any], spec: ModelSpec) -> NDArray[np.float32]:
    """Return the (dim,) vector of one image from the network's output for it.

    Parameters
    ----------
    output : ndarray of shape (dim,), (t, dim) or (dim, h, w)
        A vector, a vector per token, or a feature map.
    spec : ModelSpec
        Gives `dim` and `pooling`.

    Raises
    ------
    WeightsError
        The output has another shape.
    """
    values = output.astype(np.float32, copy=False)
    if values.ndim == 3 and spec.pooling != "cls":
        values = values.mean((1, 2))
    elif values.ndim == 2:
        if spec.pooling == "patches":
            # The class token and DINO's registers come before the patches.
            values = values[len(values) - math.isqrt(len(values)) ** 2 :]
        values = values[0] if spec.pooling == "cls" else values.mean(0)
    if values.shape != (spec.dim,):
        raise output_shape_error(spec, [1, *output.shape])
    return values


def output_shape_error(spec: ModelSpec, shape: list[Any]) -> WeightsError:
    """Return the error for an output whose shape does not fit the spec."""
    feature_map = f", (n, {spec.dim}, h, w)" if spec.pooling != "cls" else ""
    return WeightsError(
        f"layer {spec.layer!r} of {spec.id} has shape {shape}; with pooling={spec.pooling!r} it must be "
        f"(n, {spec.dim}), (n, t, {spec.dim}){feature_map}. Correct dim or layer."
    )


def check_and_normalize(vectors: NDArray[np.float32], spec: ModelSpec) -> NDArray[np.float32]:
    """Return the vectors, at unit length where `spec.normalize` says so.

    Raises
    ------
    WeightsError
        A number is not finite.
    """
    if not np.isfinite(vectors).all():
        raise WeightsError(
            f"{spec.id} computed numbers that are not finite. Its file is damaged, or its precision "
            f"({spec.precision}) overflows: use the float32 version of the model."
        )
    return unit_length(vectors) if spec.normalize else vectors


def unit_length(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale vectors along the last axis to unit length; a vector of zeros stays as it is.

    Examples
    --------
    >>> import numpy as np
    >>> unit_length(np.array([[3, 4], [0, 0]], np.float32)).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    result: NDArray[np.float32] = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return result
