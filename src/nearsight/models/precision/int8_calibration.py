"""Quantizes a model on a user's own images, and says what that costs in fidelity and gains in speed."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import ImageError, ImageFailure, InvalidParameterError, ParityError, UnknownModelError
from nearsight.images import decode, find
from nearsight.models.base import Backend
from nearsight.models.cache import kept, user_cache
from nearsight.models.model_name import Variant, split_variant
from nearsight.models.precision.int8 import calibration_digits, first_operations, quantized
from nearsight.models.precision.parity import LEAST, Parity, compare, gate_images, nearest
from nearsight.models.registry import find_model
from nearsight.models.runtimes.onnx import OnnxBackend
from nearsight.models.runtimes.variants import OnnxForms, int8_stem

#: As few images cannot tell neighbors.
LEAST_IMAGES = 32

# Ranges hardly move after so many; what is held out costs two runs of the network each.
_MOST_CALIBRATING, _MOST_HELD_OUT = 96, 200
_N_TIMED = 40
_N_VOTING = 10
# Shares of the network, from its start, that are tried in float32 where nothing is known of it, or where
# what is known is not enough.
_SHARES = (0.0, 0.125, 0.25, 0.5)


@dataclass(frozen=True, slots=True)
class Trial:
    """One choice of what stays in float32.

    Attributes
    ----------
    n_float32 : int
        Operations that do.
    parity : Parity
        On the images held out.
    smallest_builtin : float
        Smallest cosine on the built-in images, which every machine tries at first use.
    knn_agreement : float
        Share of the images held out that the ten nearest of the others name alike: with the folders as
        names, or where there is only one, the share whose nearest image is the same.
    speedup : float
        Times as many images a second as in float32, on one thread.
    """

    n_float32: int
    parity: Parity
    smallest_builtin: float
    knn_agreement: float
    speedup: float

    @property
    def is_near_enough(self) -> bool:
        """Whether vectors are of use beside the exact ones."""
        return min(self.parity.smallest, self.smallest_builtin) >= LEAST


@dataclass(frozen=True, slots=True)
class Calibration:
    """What became of quantizing a model.

    Attributes
    ----------
    model : str
        The name to ask for it by.
    n_calibrating, n_held_out : int
        Images that gave the ranges, and others that were compared.
    trials : list of Trial
        The last is the one that was kept.
    """

    model: str
    n_calibrating: int
    n_held_out: int
    trials: list[Trial]


def calibrate(
    name: str,
    images: str | Path,
    *,
    cache_dir: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Calibration:
    """Quantize a model to eight bits on images like those to come, and keep it.

    *Method*: see `quantize.quantized`. Half of the images give the ranges of activations, the other half
    are held out. The first operations stay in float32 as far as it takes.

    Parameters
    ----------
    name : str
        An ONNX model, in full precision.
    images : path
        A folder of at least 32 images. At most 296, evenly spaced, are looked at.
    cache_dir : Path, optional
        Where the quantized model is kept.
    progress : callable, optional
        Told what is being done.

    Returns
    -------
    Calibration
        Its `model` can be asked for like any other. The same images give the same name.

    Raises
    ------
    UnknownModelError
        There is no such model, or it cannot be quantized.
    InvalidParameterError
        There are too few images.
    ParityError
        Even with half of its operations in float32 the smallest cosine is below .99.
    """
    cache_dir = cache_dir or user_cache()
    forms, variant = _forms(name)
    spec = find_model(name).spec
    exact, graph = forms.exact(spec, cache_dir)
    progress("preparing images")
    calibrating, held_out, labels = _prepared(exact, images)
    wanted = _Wanted.of(exact, held_out, labels)
    trials: list[Trial] = []
    for keep in _choices(forms, graph):
        progress(f"calibrating with {len(keep)} parts in float32" if keep else "calibrating")
        made = quantized(graph, spec, calibrating, keep=keep)
        digits = calibration_digits(spec, keep, calibrating)
        form = forms.vary(replace(variant, precision=f"int8={digits}")).spec
        trial = wanted.compared(OnnxBackend(form, made), len(keep))
        trials.append(trial)
        if trial.is_near_enough:
            kept(cache_dir / "models", int8_stem(form), ".onnx", lambda made=made: made)  # type: ignore[misc]  # bound now
            return Calibration(form.id, len(calibrating), len(held_out), trials)
    best = max(trials, key=lambda trial: min(trial.parity.smallest, trial.smallest_builtin))
    raise ParityError(
        f"{name} does not come near enough in eight bits: at best the smallest cosine is"
        f" {min(best.parity.smallest, best.smallest_builtin):.4f}, and at least {LEAST} is needed. Use it"
        " in float32, or in bf16"
    )


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the exact model gives."""

    exact: Backend
    held_out: list[NDArray[np.uint8]]
    builtin: list[NDArray[np.uint8]]
    X: NDArray[np.float32]
    X_builtin: NDArray[np.float32]
    labels: list[str]

    @classmethod
    def of(cls, exact: Backend, held_out: list[NDArray[np.uint8]], labels: list[str]) -> "_Wanted":
        builtin = [exact.prepare(image) for image in gate_images()]
        return cls(exact, held_out, builtin, exact.embed(held_out), exact.embed(builtin), labels)

    def compared(self, near: Backend, n_float32: int) -> Trial:
        X = near.embed(self.held_out)
        return Trial(
            n_float32,
            compare(X, self.X),
            compare(near.embed(self.builtin), self.X_builtin).smallest,
            agreement(X, self.X, self.labels),
            _speedup(self.exact, near, self.held_out[:_N_TIMED]),
        )


def agreement(X: NDArray[np.float32], exact: NDArray[np.float32], labels: Sequence[str]) -> float:
    """Return the share of (n, dim) vectors that their ten nearest name as those of the exact ones do.

    Where all labels are the same, the share whose nearest is the same.

    Examples
    --------
    >>> import numpy as np
    >>> agreement(np.eye(3, 4, dtype=np.float32), np.eye(3, 4, dtype=np.float32), ["a", "a", "b"])
    1.0
    """
    k = min(_N_VOTING, len(X) - 1)
    near, far = (nearest(vectors, k) for vectors in (X, exact))
    names, y = np.unique(np.asarray(labels), return_inverse=True)
    if len(names) < 2:
        return float((near[:, 0] == far[:, 0]).mean())
    votes = [np.eye(len(names), dtype=int)[y[found]].sum(1).argmax(1) for found in (near, far)]
    return float((votes[0] == votes[1]).mean())


def _forms(name: str) -> tuple[OnnxForms, Variant]:
    base, variant = split_variant(name)
    forms = find_model(base).forms
    if not isinstance(forms, OnnxForms):
        raise UnknownModelError(f"{base} is no ONNX model, and only those can be quantized")
    if variant.precision or variant.dim:
        raise UnknownModelError(f"{name}: name the model in full precision and length, without #{variant}")
    return forms, variant


def _choices(forms: OnnxForms, graph: Path | bytes) -> list[list[str]]:
    choices = [list(forms.sensitive_int8)]
    for share in _SHARES:
        keep = first_operations(graph, share)
        if len(keep) > len(choices[-1]):
            choices.append(keep)
    return choices


def _prepared(
    exact: Backend, images: str | Path
) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]], list[str]]:
    """Return images to calibrate on, others to compare, and the names of the latter's folders."""
    found = list(find(images))
    step = max(1, len(found) // (_MOST_CALIBRATING + _MOST_HELD_OUT))
    prepared: list[NDArray[np.uint8]] = []
    folders: list[str] = []
    for source in found[::step]:
        # What cannot be read is no image to learn from; `nearsight index` is who tells.
        with suppress(ImageError):
            if not isinstance(source, ImageFailure):
                prepared.append(exact.prepare(decode(source, min_side_px=exact.decode_px).image))
                folders.append(Path(source.path).parent.name)
    if len(prepared) < LEAST_IMAGES:
        raise InvalidParameterError(
            f"{images} holds {len(prepared)} usable images; {LEAST_IMAGES} are needed, 200 are better"
        )
    n = min(_MOST_CALIBRATING, len(prepared) // 2)
    # Spread over the folders: images of one kind often lie side by side.
    chosen = set(np.linspace(0, len(prepared) - 1, n).astype(int).tolist())
    rest = [i for i in range(len(prepared)) if i not in chosen][:_MOST_HELD_OUT]
    return [prepared[i] for i in sorted(chosen)], [prepared[i] for i in rest], [folders[i] for i in rest]


def _speedup(exact: Backend, near: Backend, images: list[NDArray[np.uint8]]) -> float:
    seconds = {id(backend): float("inf") for backend in (exact, near)}
    # By turns, so that what else the machine does hits both; the fastest of each.
    for _ in range(3):
        for backend in (exact, near):
            started = time.perf_counter()
            backend.embed(images)
            seconds[id(backend)] = min(seconds[id(backend)], time.perf_counter() - started)
    return seconds[id(exact)] / seconds[id(near)]
