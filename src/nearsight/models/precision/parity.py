"""Measures how near a fast way of running a model comes to the exact one, before it is trusted."""

import hashlib
import json
import logging
import platform
import warnings
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nearsight import processor
from nearsight.artifacts import replacing
from nearsight.errors import ParityError
from nearsight.models.base import Backend
from nearsight.models.pooling import unit
from nearsight.models.runtimes import devices
from nearsight.models.spec import ModelSpec
from nearsight.models.synthetic_images import builtin_images

_log = logging.getLogger(__name__)

#: With this smallest cosine, vectors are the same for every purpose.
SAME = 0.9999
#: With less than this, they are of no use beside each other.
LEAST = 0.99

_N_IMAGES = 48
# Others than those that rounding is corrected on.
_SEED = 7
_N_NEIGHBORS = 10


@dataclass(frozen=True, slots=True)
class Parity:
    """How near the vectors of two ways of running a model are.

    Attributes
    ----------
    smallest, mean : float
        Cosine of an image's two vectors, over the built-in images.
    overlap : float
        Share of the ten nearest neighbors that are the same.
    """

    smallest: float
    mean: float
    overlap: float

    def __str__(self) -> str:
        return (
            f"cosine to the exact vectors {self.smallest:.5f} at least, {self.mean:.5f} on average; "
            f"{self.overlap:.1%} of the nearest ten the same"
        )


def compare(X: NDArray[np.float32], exact: NDArray[np.float32]) -> Parity:
    """Compare (n, dim) vectors, row by row, with the exact ones of the same images."""
    # Two vectors of zeros are the same; one alone is as far as can be.
    lengths = np.linalg.norm(X, axis=1) * np.linalg.norm(exact, axis=1)
    cosines = np.divide((X * exact).sum(1), lengths, out=np.zeros(len(X), np.float32), where=lengths > 0)
    cosines[~(X.any(1) | exact.any(1))] = 1
    k = min(_N_NEIGHBORS, len(X) - 1)
    pairs = zip(nearest(X, k), nearest(exact, k), strict=True)
    overlap = np.mean([len(set(a) & set(b)) / k for a, b in pairs]) if k else 1.0
    return Parity(float(cosines.min()), float(cosines.mean()), float(overlap))


def measure_parity(
    backend: Backend, exact: Backend, cache_dir: Path, *, runtime: str = ""
) -> tuple[Parity, bool]:
    """Return how near a backend is to the exact one, and whether that had to be measured now.

    It is measured once on this machine, with these versions of what it runs on, then remembered.

    Parameters
    ----------
    backend, exact : Backend
        Of one model.
    cache_dir : Path
        What was measured is kept in its folder ``parity``.
    runtime : str
        What the first runs on, where its fingerprint does not tell.
    """
    names = (backend.spec.fingerprint.digest, runtime.replace(":", "-"), _machine())
    file = cache_dir / "parity" / f"{'-'.join(filter(None, names))}.json"
    parity = _remembered(file)
    if parity is not None:
        return parity, False
    images = gate_images()
    X, wanted = (b.embed([b.prepare(image) for image in images]) for b in (backend, exact))
    parity = compare(X, wanted)
    _remember(file, parity, backend, runtime)
    return parity, True


def require_parity(backend: Backend, exact: Backend, cache_dir: Path, *, runtime: str = "") -> Parity:
    """Return how near a backend is to the exact one; see `measure_parity`.

    Raises
    ------
    ParityError
        The smallest cosine is below .99.

    Warns
    -----
    UserWarning
        Once, at the measurement: how near it is, where that is not the same for every purpose.
    """
    parity, is_new = measure_parity(backend, exact, cache_dir, runtime=runtime)
    if parity.smallest < LEAST:
        raise too_far(backend.spec, parity, exact.spec)
    if is_new and parity.smallest < SAME:
        warnings.warn(f"{backend.spec.id}, measured once on this machine: {parity}", stacklevel=2)
    return parity


def tell_uncompared(spec: ModelSpec, way_out: str, cache_dir: Path) -> None:
    """Say, once on this machine, that nobody knows how near a file's vectors are to the model's.

    Parameters
    ----------
    spec : ModelSpec
        Of the file.
    way_out : str
        What makes them comparable.
    cache_dir : Path
        That it was told is kept in its folder ``parity``.
    """
    file = cache_dir / "parity" / f"{spec.fingerprint.digest}-uncompared.json"
    if file.exists():
        return
    warnings.warn(
        f"{spec.id} is used as its publisher made it, and not compared with the model in full precision, "
        f"which is not here; {way_out}",
        stacklevel=2,
    )
    _keep(file, {"model": spec.id})


def too_far(spec: ModelSpec, parity: Parity, exact: ModelSpec) -> ParityError:
    """Return the error that a fast way of running a model is of no use."""
    return ParityError(
        f"{spec.id} is not near enough on this machine ({parity}); at least {LEAST} is needed. "
        f"Use {exact.id} in full precision, on the processor"
    )


def nearest(X: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    """Return the k other rows whose vectors are nearest to each of (n, dim), the nearest first: (n, k)."""
    directions = unit(X)
    similarities = directions @ directions.T
    np.fill_diagonal(similarities, -np.inf)
    found: NDArray[np.intp] = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
    return found


@lru_cache(maxsize=1)
def _machine() -> str:
    """Name what a measurement holds for: processor, system, driver, and the runtimes' versions."""
    # Of Linux, drivers tell their own version; elsewhere they come with the system.
    system = "Linux" if platform.system() == "Linux" else platform.platform()
    runtimes = [_version(name) for name in (*devices.WHEELS, "openvino", "torch")]
    facts = [platform.machine(), system, processor.describe(), devices.driver(), *runtimes]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:12]


def _version(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"no {name}"


def _remembered(file: Path) -> Parity | None:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        return Parity(*(float(data[key]) for key in ("smallest", "mean", "overlap")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(file: Path, parity: Parity, backend: Backend, runtime: str) -> None:
    about = {"model": backend.spec.id, "runtime": runtime, "driver": devices.driver()}
    _keep(file, {**about, **asdict(parity), "images": _N_IMAGES})


def _keep(file: Path, facts: dict[str, Any]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as out:
            out.write(json.dumps(facts, indent=2).encode())
    except OSError as error:
        _log.warning("%s was not kept (%s), so it is measured again at each start.", file, error)


def gate_images() -> list[Image.Image]:
    """Return the built-in images that ways of running a model are compared on."""
    return builtin_images(_N_IMAGES, seed=_SEED)
