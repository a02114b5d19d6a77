"""Quantizes a model on a user's images, and measures the loss of accuracy and the gain in speed."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import ImageError, ImageFailure, InvalidParameterError, ParityError, UnknownModelError
from nearsight.images import Exclusions, decode, find
from nearsight.models.base import Backend
from nearsight.models.cache import cached_bytes, user_cache_dir
from nearsight.models.model_name import ModelVariant, split_model_name
from nearsight.models.precision.int8 import calibration_digits, first_operations, quantize_int8
from nearsight.models.precision.parity import MIN_COSINE, Parity, compare, nearest, parity_images
from nearsight.models.registry import find_model
from nearsight.models.runtimes.onnx import OnnxBackend
from nearsight.models.runtimes.variants import OnnxVariants, int8_cache_stem

#: With fewer images, neighbors cannot be compared.
MIN_IMAGES = 32

# More calibration images hardly change the ranges; each held-out image costs two runs of the network.
_MAX_CALIBRATION_IMAGES, _MAX_HELD_OUT_IMAGES = 96, 200
_N_TIMED = 40
_N_NEIGHBORS = 10
# Shares of the network, from its start, that are tried in float32 if the operations known to be sensitive are
# not enough, or none are known.
_SHARES = (0.0, 0.125, 0.25, 0.5)


@dataclass(frozen=True, slots=True)
class Int8Trial:
    """The result of one choice of operations in float32.

    Attributes
    ----------
    n_float32 : int
        Number of operations in float32.
    parity : Parity
        On the held-out images.
    smallest_synthetic : float
        Smallest cosine on the synthetic images, which each machine measures at the first use.
    knn_agreement : float
        Share of the held-out images that a vote of the ten nearest neighbors labels the same in both
        precisions, with the folders as labels. With one folder: the share whose nearest neighbor is the same.
    speedup : float
        Images per second relative to float32, on one thread.
    """

    n_float32: int
    parity: Parity
    smallest_synthetic: float
    knn_agreement: float
    speedup: float

    @property
    def is_accepted(self) -> bool:
        """Whether the vectors are similar enough to the exact ones."""
        return min(self.parity.smallest, self.smallest_synthetic) >= MIN_COSINE


@dataclass(frozen=True, slots=True)
class Int8Calibration:
    """The result of `calibrate`.

    Attributes
    ----------
    model : str
        Name of the quantized variant.
    n_calibration, n_held_out : int
        Number of images for the ranges, and of others for the comparison.
    trials : list of Trial
        All trials; the last one was accepted.
    """

    model: str
    n_calibration: int
    n_held_out: int
    trials: list[Int8Trial]


def calibrate(
    name: str,
    images: str | Path,
    *,
    exclusions: Exclusions | None = None,
    cache_dir: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Int8Calibration:
    """Quantize a model to eight bits on images like those that will be embedded, and store it.

    *Method*: see `int8.quantize_int8`. Half of the images give the ranges of activations, the other half
    is held out. As many of the first operations stay in float32 as the smallest cosine requires.

    Parameters
    ----------
    name : str
        An ONNX model in full precision.
    images : path
        A folder of at least 32 images; at most 296, evenly spaced, are used.
    exclusions : Exclusions, optional
        What is passed over in the folder.
    cache_dir : Path, optional
        Directory for the quantized model.
    progress : callable, optional
        Called with a description of each step.

    Returns
    -------
    Calibration
        `model` can be loaded by that name. The same images give the same name.

    Raises
    ------
    UnknownModelError
        There is no such model, or it cannot be quantized.
    InvalidParameterError
        There are too few images.
    ParityError
        Even with half of the operations in float32, the smallest cosine is below 0.99.
    """
    cache_dir = cache_dir or user_cache_dir()
    variants, variant = _onnx_variants(name)
    spec = find_model(name).spec
    exact, graph = variants.full_precision(spec, cache_dir)
    progress("preparing images")
    calibration_images, held_out, labels = _split_images(exact, images, exclusions)
    reference = _Reference.measure(exact, held_out, labels)
    trials: list[Int8Trial] = []
    for float32_operations in _float32_candidates(variants, graph):
        progress(
            f"calibrating with {len(float32_operations)} parts in float32"
            if float32_operations
            else "calibrating"
        )
        quantized = quantize_int8(graph, spec, calibration_images, float32_operations=float32_operations)
        digits = calibration_digits(spec, float32_operations, calibration_images)
        quantized_spec = variants.variant_entry(replace(variant, precision=f"int8={digits}")).spec
        trial = reference.evaluate(OnnxBackend(quantized_spec, quantized), len(float32_operations))
        trials.append(trial)
        if trial.is_accepted:
            cached_bytes(
                cache_dir / "models", int8_cache_stem(quantized_spec), ".onnx", partial(bytes, quantized)
            )
            return Int8Calibration(quantized_spec.id, len(calibration_images), len(held_out), trials)
    best = max(trials, key=lambda trial: min(trial.parity.smallest, trial.smallest_synthetic))
    raise ParityError(
        f"{name} loses too much in eight bits: the smallest cosine to the exact vectors is at best"
        f" {min(best.parity.smallest, best.smallest_synthetic):.4f}; at least {MIN_COSINE} is needed. Use the"
        " model in float32 or bf16"
    )


@dataclass(frozen=True, slots=True)
class _Reference:
    """The vectors of the exact model."""

    exact: Backend
    held_out: list[NDArray[np.uint8]]
    synthetic: list[NDArray[np.uint8]]
    X: NDArray[np.float32]
    X_synthetic: NDArray[np.float32]
    labels: list[str]

    @classmethod
    def measure(cls, exact: Backend, held_out: list[NDArray[np.uint8]], labels: list[str]) -> "_Reference":
        synthetic = [exact.prepare(image) for image in parity_images()]
        return cls(exact, held_out, synthetic, exact.embed(held_out), exact.embed(synthetic), labels)

    def evaluate(self, near: Backend, n_float32: int) -> Int8Trial:
        X = near.embed(self.held_out)
        return Int8Trial(
            n_float32,
            compare(X, self.X),
            compare(near.embed(self.synthetic), self.X_synthetic).smallest,
            agreement(X, self.X, self.labels),
            _speedup(self.exact, near, self.held_out[:_N_TIMED]),
        )


def agreement(X: NDArray[np.float32], exact: NDArray[np.float32], labels: Sequence[str]) -> float:
    """Return the share of vectors that a vote of the ten nearest neighbors labels as for the exact vectors.

    If all labels are the same, the share whose nearest neighbor is the same.

    Examples
    --------
    >>> import numpy as np
    >>> agreement(np.eye(3, 4, dtype=np.float32), np.eye(3, 4, dtype=np.float32), ["a", "a", "b"])
    1.0
    """
    k = min(_N_NEIGHBORS, len(X) - 1)
    neighbors, exact_neighbors = (nearest(vectors, k) for vectors in (X, exact))
    names, y = np.unique(np.asarray(labels), return_inverse=True)
    if len(names) < 2:
        return float((neighbors[:, 0] == exact_neighbors[:, 0]).mean())
    votes = [np.eye(len(names), dtype=int)[y[rows]].sum(1).argmax(1) for rows in (neighbors, exact_neighbors)]
    return float((votes[0] == votes[1]).mean())


def _onnx_variants(name: str) -> tuple[OnnxVariants, ModelVariant]:
    base, variant = split_model_name(name)
    variants = find_model(base).variants
    if not isinstance(variants, OnnxVariants):
        raise UnknownModelError(f"{base} is not an ONNX model; only ONNX models can be quantized")
    if variant.precision or variant.dim or variant.decode:
        raise UnknownModelError(
            f"{name}: give the model in full precision and full length, without #{variant}"
        )
    return variants, variant


def _float32_candidates(variants: OnnxVariants, graph: Path | bytes) -> list[list[str]]:
    candidates = [list(variants.float32_in_int8)]
    for share in _SHARES:
        float32_operations = first_operations(graph, share)
        if len(float32_operations) > len(candidates[-1]):
            candidates.append(float32_operations)
    return candidates


def _split_images(
    exact: Backend, images: str | Path, exclusions: Exclusions | None
) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]], list[str]]:
    """Return calibration images, held-out images, and the folder name of each held-out image."""
    sources = list(find(images, exclusions=exclusions))
    step = max(1, len(sources) // (_MAX_CALIBRATION_IMAGES + _MAX_HELD_OUT_IMAGES))
    prepared: list[NDArray[np.uint8]] = []
    folders: list[str] = []
    for source in sources[::step]:
        # Unreadable images are skipped here; `nearsight index` reports them.
        with suppress(ImageError):
            if not isinstance(source, ImageFailure):
                prepared.append(exact.prepare(decode(source, min_side_px=exact.decode_px).image))
                folders.append(Path(source.path).parent.name)
    if len(prepared) < MIN_IMAGES:
        raise InvalidParameterError(
            f"{images} has {len(prepared)} usable images; at least {MIN_IMAGES} are needed, 200 are better"
        )
    n = min(_MAX_CALIBRATION_IMAGES, len(prepared) // 2)
    # Evenly spaced: similar images are often adjacent.
    selected = set(np.linspace(0, len(prepared) - 1, n).astype(int).tolist())
    rest = [i for i in range(len(prepared)) if i not in selected][:_MAX_HELD_OUT_IMAGES]
    return [prepared[i] for i in sorted(selected)], [prepared[i] for i in rest], [folders[i] for i in rest]


def _speedup(exact: Backend, near: Backend, images: list[NDArray[np.uint8]]) -> float:
    seconds = {id(backend): float("inf") for backend in (exact, near)}
    # Alternate, so that other load affects both; take the fastest run of each.
    for _ in range(3):
        for backend in (exact, near):
            started = time.perf_counter()
            backend.embed(images)
            seconds[id(backend)] = min(seconds[id(backend)], time.perf_counter() - started)
    return seconds[id(exact)] / seconds[id(near)]
