"""Measures how similar the vectors of a fast backend are to the exact ones, before it is used."""

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
from nearsight.models.pooling import unit_length
from nearsight.models.runtimes import devices
from nearsight.models.spec import ModelSpec
from nearsight.models.synthetic_images import synthetic_images

_log = logging.getLogger(__name__)

#: From this smallest cosine on, vectors are equivalent for every purpose.
EQUIVALENT_COSINE = 0.9999
#: Below this smallest cosine, vectors cannot be compared with each other.
MIN_COSINE = 0.99

_N_IMAGES = 48
# Not the images that biases are corrected on.
_SEED = 7
_N_NEIGHBORS = 10


@dataclass(frozen=True, slots=True)
class Parity:
    """How similar the vectors of two backends of one model are.

    Attributes
    ----------
    smallest, mean : float
        Smallest and mean cosine of an image's two vectors, over the synthetic images.
    overlap : float
        Share of the ten nearest neighbors that are the same, 0..1.
    """

    smallest: float
    mean: float
    overlap: float

    def __str__(self) -> str:
        return (
            f"cosine to the exact vectors at least {self.smallest:.5f}, {self.mean:.5f} on average; "
            f"{self.overlap:.1%} of the ten nearest neighbors the same"
        )


def compare(X: NDArray[np.float32], exact: NDArray[np.float32]) -> Parity:
    """Compare (n, dim) vectors, row by row, with the exact vectors of the same images."""
    # Two vectors of zeros have cosine 1; a vector of zeros and another one have cosine 0.
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
    """Return the parity of a backend, and whether it was measured just now.

    It is measured once per machine and version of the runtimes, and read from the cache afterwards.

    Parameters
    ----------
    backend, exact : Backend
        Two backends of one model.
    cache_dir : Path
        Measurements are stored in its folder ``parity``.
    runtime : str
        Runtime or device of `backend`, where its fingerprint does not name it.
    """
    names = (backend.spec.fingerprint.digest, runtime.replace(":", "-"), _machine())
    file = cache_dir / "parity" / f"{'-'.join(filter(None, names))}.json"
    parity = _read_measurement(file)
    if parity is not None:
        return parity, False
    images = parity_images()
    X, exact_vectors = (b.embed([b.prepare(image) for image in images]) for b in (backend, exact))
    parity = compare(X, exact_vectors)
    _write_measurement(file, parity, backend, runtime)
    return parity, True


def require_parity(backend: Backend, exact: Backend, cache_dir: Path, *, runtime: str = "") -> Parity:
    """Return the parity of a backend that may be used; see `measure_parity`.

    Raises
    ------
    ParityError
        The smallest cosine is below 0.99.

    Warns
    -----
    UserWarning
        Once, at the measurement: the parity, if the vectors are not equivalent.
    """
    parity, is_new = measure_parity(backend, exact, cache_dir, runtime=runtime)
    if parity.smallest < MIN_COSINE:
        raise parity_error(backend.spec, parity, exact.spec)
    if is_new and parity.smallest < EQUIVALENT_COSINE:
        warnings.warn(f"{backend.spec.id}, measured once on this machine: {parity}", stacklevel=2)
    return parity


def warn_uncompared(spec: ModelSpec, remedy: str, cache_dir: Path) -> None:
    """Warn, once on this machine, that a file was not compared with the model in full precision.

    Parameters
    ----------
    spec : ModelSpec
        The facts of the file.
    remedy : str
        What the user can do to have them compared.
    cache_dir : Path
        The folder ``parity`` in it records that the warning was shown.
    """
    file = cache_dir / "parity" / f"{spec.fingerprint.digest}-uncompared.json"
    if file.exists():
        return
    warnings.warn(
        f"{spec.id} was not compared with the model in full precision, which is not on this machine; "
        f"{remedy}",
        stacklevel=2,
    )
    _write_json(file, {"model": spec.id})


def parity_error(spec: ModelSpec, parity: Parity, exact: ModelSpec) -> ParityError:
    """Return the error for a backend whose vectors are too different from the exact ones."""
    return ParityError(
        f"{spec.id} differs too much from the exact model on this machine ({parity}); a cosine of at least "
        f"{MIN_COSINE} is needed. Use {exact.id} in full precision, on the processor"
    )


def nearest(X: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    """Return the (n, k) indices of the k nearest other rows of (n, dim) vectors, the nearest first."""
    directions = unit_length(X)
    similarities = directions @ directions.T
    np.fill_diagonal(similarities, -np.inf)
    neighbors: NDArray[np.intp] = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
    return neighbors


@lru_cache(maxsize=1)
def _machine() -> str:
    """Return a hash of what a measurement depends on: processor, system, driver and runtimes."""
    # On Linux, drivers have their own version; on other systems they come with the system.
    system = "Linux" if platform.system() == "Linux" else platform.platform()
    runtimes = [_version(name) for name in (*devices.ONNXRUNTIME_PACKAGES, "openvino", "torch")]
    facts = [platform.machine(), system, processor.describe(), devices.nvidia_driver(), *runtimes]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:12]


def _version(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"no {name}"


def _read_measurement(file: Path) -> Parity | None:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        return Parity(*(float(data[key]) for key in ("smallest", "mean", "overlap")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_measurement(file: Path, parity: Parity, backend: Backend, runtime: str) -> None:
    facts = {"model": backend.spec.id, "runtime": runtime, "driver": devices.nvidia_driver()}
    _write_json(file, {**facts, **asdict(parity), "images": _N_IMAGES})


def _write_json(file: Path, facts: dict[str, Any]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as out:
            out.write(json.dumps(facts, indent=2).encode())
    except OSError as error:
        _log.warning("%s could not be written (%s), so parity is measured again at each start.", file, error)


def parity_images() -> list[Image.Image]:
    """Return the synthetic images that backends are compared on."""
    return synthetic_images(_N_IMAGES, seed=_SEED)
