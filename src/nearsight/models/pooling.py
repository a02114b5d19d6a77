"""From what a network gives to a model's vectors, the same for every runtime."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import WeightsError
from nearsight.models.spec import ModelSpec


def decode_px(spec: ModelSpec) -> int | None:
    """Return the shorter side that a decoded image must have at least for this model."""
    if not spec.draft:
        return None
    return max(spec.input_px) if spec.resize_mode == "squash" else spec.resize_px


def pooled(output: NDArray[Any], spec: ModelSpec) -> NDArray[np.float32]:
    """Return one vector of one image's output."""
    values = output.astype(np.float32, copy=False)
    if values.ndim == 3 and spec.pooling != "cls":
        values = values.mean((1, 2))
    elif values.ndim == 2:
        if spec.pooling == "patches":
            # What comes first is no place: the class token, and DINO's registers.
            values = values[len(values) - math.isqrt(len(values)) ** 2 :]
        values = values[0] if spec.pooling == "cls" else values.mean(0)
    if values.shape != (spec.dim,):
        raise misshapen(spec, [1, *output.shape])
    return values


def misshapen(spec: ModelSpec, shape: list[Any]) -> WeightsError:
    """Return the error that an output's shape does not fit the spec."""
    places = f", (n, {spec.dim}, h, w)" if spec.pooling != "cls" else ""
    return WeightsError(
        f"{spec.id} should give (n, {spec.dim}), (n, t, {spec.dim}){places} with pooling={spec.pooling!r}, "
        f"but {spec.layer!r} is {shape}. Correct dim or layer."
    )


def finished(vectors: NDArray[np.float32], spec: ModelSpec) -> NDArray[np.float32]:
    """Check what a network gave, and bring it to unit length where the model's vectors are."""
    if not np.isfinite(vectors).all():
        raise WeightsError(
            f"{spec.id} gave numbers that are not finite. Its file is damaged, or its arithmetic "
            f"({spec.precision}) overflows: use the float32 version of the model."
        )
    return unit(vectors) if spec.normalize else vectors


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return vectors, along the last axis, at unit length; one of zeros has no direction, and stays so.

    Examples
    --------
    >>> import numpy as np
    >>> unit(np.array([[3, 4], [0, 0]], np.float32)).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    result: NDArray[np.float32] = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return result
