"""Reduces a model's vectors by a PCA of a collection, or only subtracts their mean.

``pca:FILE`` names such a model; `Collection.reduce_dim`, `Collection.center` and ``nearsight reduce-dim``
write the file.
"""

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nearsight.artifacts import replacing
from nearsight.errors import DeviceError, InvalidParameterError, UnknownModelError, WeightsError
from nearsight.models.base import Backend, ModelEntry, MultiDeviceBackend, TextEncoder
from nearsight.models.fingerprint import Fingerprint
from nearsight.models.model_name import CENTERED
from nearsight.models.pooling import unit_length
from nearsight.models.spec import ModelSpec
from nearsight.parameters import require_whole

# Format 2 has no components.
_FORMAT = 2
#: The mean of fewer images says more about them than about the images to come.
MIN_TO_CENTER = 50


@dataclass(frozen=True)
class Projection:
    """A fitted PCA of one model's vectors, or only their mean.

    Attributes
    ----------
    base : ModelSpec
        The model whose vectors are projected.
    mean : ndarray of shape (base.dim,), float32
    components : ndarray of shape (dim, base.dim), float32, or None
        Orthonormal rows, the direction of most variance first. None where vectors are only centered.
    variance_kept : float
        Share of the variance that the components explain, 0..1.
    """

    base: ModelSpec
    mean: NDArray[np.float32]
    components: NDArray[np.float32] | None
    variance_kept: float

    @cached_property
    def sha256(self) -> str:
        """Hash of `mean` and `components`."""
        digest = hashlib.sha256()
        for values in self._arrays().values():
            digest.update(np.ascontiguousarray(values, "<f4").tobytes())
        return digest.hexdigest()

    @property
    def dim(self) -> int:
        """Length of the projected vectors."""
        return self.base.dim if self.components is None else len(self.components)

    def _arrays(self) -> dict[str, NDArray[np.float32]]:
        arrays = {"mean": self.mean}
        return arrays if self.components is None else arrays | {"components": self.components}

    def apply(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Project (n, base.dim) vectors: (n, dim), unit length; 0 for one exactly at the mean."""
        centered = np.asarray(X, np.float32) - self.mean
        return unit_length(centered if self.components is None else centered @ self.components.T)

    def restore(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Estimate the (n, base.dim) vectors, unit length, from (n, dim) projected vectors.

        *Method*: the projection loses a vector's distance from the mean and its part outside of the
        components. The full vector has unit length, and its outside part is assumed to have the mean length.
        That leaves a quadratic equation for the distance.
        """
        mean = self.mean.astype(np.float64)
        outside = (1 - mean @ mean) * (1 - self.variance_kept)
        directions = np.asarray(X, np.float32)
        if self.components is not None:
            directions = directions @ self.components
        along = directions @ mean
        # |mean + distance · direction|² = 1 - outside, for a direction of unit length.
        inside = np.maximum(along**2 - mean @ mean + 1 - outside, 0)
        distances = np.maximum(np.sqrt(inside) - along, 0)
        full: NDArray[np.float32] = (mean + distances[:, None] * directions).astype(np.float32)
        full /= np.maximum(np.linalg.norm(full, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return full

    def spec(self, id: str) -> ModelSpec:
        """Return the facts of the projected model; they do not depend on the file's path."""
        return replace(
            self.base,
            id=id,
            identity=self.base.identity or self.base.id,
            dim=self.dim,
            layer=f"{self.base.layer} > {CENTERED if self.components is None else 'pca'}-{self.sha256[:16]}",
            normalize=True,
        )

    def save(self, path: Path) -> None:
        """Write the projection to a file atomically."""
        with replacing(path) as file:
            file.write(self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return the contents of the file that `save` writes."""
        facts = {
            "format": _FORMAT if self.components is None else 1,
            "base": self.base.to_dict(),
            "fingerprint": self.base.fingerprint.to_dict(),
            "variance_kept": self.variance_kept,
        }
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, facts=np.array(json.dumps(facts)), **self._arrays())
        return content.getvalue()

    @classmethod
    def load(cls, path: Path) -> "Projection":
        """Read what `save` wrote.

        Raises
        ------
        UnknownModelError
            There is no such file.
        WeightsError
            It is damaged, not a projection, or written by a newer nearsight.
        """
        try:
            return cls.from_bytes(path.read_bytes(), str(path))
        except FileNotFoundError:
            raise UnknownModelError(
                f"There is no file {path}; the name is pca:FILE with what nearsight reduce-dim wrote."
            ) from None
        except OSError as error:
            raise _damaged(str(path), error) from error

    @classmethod
    def from_bytes(cls, content: bytes, name: str) -> "Projection":
        """Read what `to_bytes` returned; errors name it.

        Raises
        ------
        WeightsError
            It is damaged, not a projection, or written by a newer nearsight.
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                facts: Mapping[str, Any] = json.loads(str(archive["facts"]))
                mean, components = archive["mean"], None
                if facts["format"] == 1:
                    components = archive["components"]
            if facts["format"] > _FORMAT:
                raise WeightsError(
                    f"{name} was written by a newer nearsight: pip install --upgrade nearsight"
                )
            base = ModelSpec.from_dict(facts["base"])
            if base.fingerprint != Fingerprint.from_dict(facts["fingerprint"]):
                raise ValueError("its model and its fingerprint disagree")
            shapes = mean.shape, (1, base.dim) if components is None else components.shape
            if shapes[0] != (base.dim,) or len(shapes[1]) != 2 or shapes[1][1] != base.dim:
                raise ValueError(f"its arrays have shapes {shapes[0]} and {shapes[1]}")
            return cls(base, mean, components, float(facts["variance_kept"]))
        except WeightsError:
            raise
        # A damaged archive can raise nearly anything.
        except Exception as error:
            raise _damaged(name, error) from error


def _damaged(name: str, error: Exception) -> WeightsError:
    return WeightsError(f"{name} is not a projection ({error}); create it again with nearsight reduce-dim")


def fit_projection(X: NDArray[np.float32], dim: int, base: ModelSpec) -> Projection:
    """Fit the directions of largest variance.

    *Method*: principal component analysis (Jolliffe 2002, chapter 2), without whitening. Vectors are
    centered, projected and scaled to unit length, so that their product is a cosine.

    Parameters
    ----------
    X : ndarray of shape (n, base.dim), float32
        More than `dim` vectors. Needs memory for a (base.dim, base.dim) matrix besides.
    dim : int
        At least 1, less than `base.dim`.
    base : ModelSpec
        The model of the vectors.

    Raises
    ------
    InvalidParameterError
        `dim` is out of range, there are too few vectors, or all are equal.
    """
    from sklearn.decomposition import PCA

    require_whole("dim", dim)
    if dim >= base.dim:
        raise InvalidParameterError(
            f"dim is {dim}; {base.id} can be projected to 1 to {base.dim - 1} numbers"
        )
    if len(X) <= dim:
        raise InvalidParameterError(
            f"dim is {dim}, but there are {len(X)} images; {dim + 1} are needed, and some {4 * dim} are"
            " better"
        )
    if (X[0] == X).all():
        raise InvalidParameterError(
            f"all {len(X)} images have the same vector; there is no direction to keep"
        )
    pca = PCA(dim, svd_solver="covariance_eigh").fit(X)
    return Projection(
        base,
        pca.mean_.astype(np.float32),
        np.ascontiguousarray(pca.components_, np.float32),
        float(pca.explained_variance_ratio_.sum()),
    )


def fit_center(X: NDArray[np.float32], base: ModelSpec) -> Projection:
    """Return the projection that only subtracts the mean.

    *Method*: what all vectors have in common makes any two alike and says nothing about either (Mu and
    Viswanath 2018, arXiv 1702.01417, without their removal of directions).

    Parameters
    ----------
    X : ndarray of shape (n, base.dim), float32
        At least `MIN_TO_CENTER` vectors.
    base : ModelSpec
        The model of the vectors.

    Raises
    ------
    InvalidParameterError
        There are too few vectors, or all are equal.
    """
    if len(X) < MIN_TO_CENTER:
        raise InvalidParameterError(
            f"there are {len(X)} images; vectors are centered on the mean of at least {MIN_TO_CENTER}"
        )
    if (X[0] == X).all():
        raise InvalidParameterError(
            f"all {len(X)} images have the same vector; nothing is left of it without their mean"
        )
    return Projection(base, X.mean(axis=0, dtype=np.float64).astype(np.float32), None, 1.0)


class ProjectedBackend:
    """A model followed by a projection.

    Parameters
    ----------
    backend : Backend
        The model.
    projection : Projection
    id : str
        Name of the projected model.
    """

    def __init__(self, backend: Backend, projection: Projection, id: str) -> None:
        self._backend = backend
        self._projection = projection
        self._spec = projection.spec(id)

    @property
    def spec(self) -> ModelSpec:
        """The facts of the model with its projection."""
        return self._spec

    @property
    def device(self) -> str:
        """Device that the model runs on; the projection runs on the processor."""
        return getattr(self._backend, "device", "cpu")

    @property
    def offered_devices(self) -> Sequence[str]:
        """Devices that the model's runtime offers."""
        return self._backend.offered_devices if isinstance(self._backend, MultiDeviceBackend) else ()

    def to_device(self, device: str, cache_dir: Path, *, spec: ModelSpec | None = None) -> "ProjectedBackend":
        """Return the same with the model on a device; see `MultiDeviceBackend`."""
        if not isinstance(self._backend, MultiDeviceBackend) or spec is not None:
            raise DeviceError(f"{self._spec.id} cannot run on {device}; remove the device")
        return ProjectedBackend(self._backend.to_device(device, cache_dir), self._projection, self._spec.id)

    def idle_gpu_hint(self) -> str:
        """Name a GPU that is not used; empty if there is none."""
        return self._backend.idle_gpu_hint() if isinstance(self._backend, MultiDeviceBackend) else ""

    @property
    def decode_px(self) -> int | None:
        """Minimum length of a decoded image's shorter side in pixels; None for full size."""
        return self._backend.decode_px

    def prepare(self, image: Image.Image) -> Any:
        """Turn one upright RGB image into an item for `embed`."""
        return self._backend.prepare(image)

    def embed(self, prepared: Sequence[Any]) -> NDArray[np.float32]:
        """Return the (n, dim) vectors of prepared images."""
        vectors = self._backend.embed(prepared)
        short = np.empty((len(vectors), self._spec.dim), np.float32)
        # One by one: a matrix product rounds by its shape, and a vector must not depend on its batch.
        for i in range(len(vectors)):
            short[i] = self._projection.apply(vectors[i : i + 1])[0]
        return short


class ProjectedTextEncoder:
    """Compares texts with estimates of the full vectors of projected images.

    Parameters
    ----------
    encoder : TextEncoder
        The text encoder of the model.
    projection : Projection
        Fitted on vectors of unit length.
    spec : ModelSpec
        The facts of the projected model.
    """

    # Even where texts and images share one space, projected texts would lose their distance from the mean.
    shares_space = False

    def __init__(self, encoder: TextEncoder, projection: Projection, spec: ModelSpec) -> None:
        self.spec = spec
        self._encoder = encoder
        self._projection = projection

    @property
    def prompt(self) -> str:
        """Template that turns a label into a text; ``{}`` stands for the label."""
        return self._encoder.prompt

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the (n, d) vectors of texts, unit length."""
        return self._encoder.embed(texts)

    def to_text_space(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map (n, dim) image vectors to the space of text vectors: (n, d), unit length."""
        return self._encoder.to_text_space(self._projection.restore(X))

    def to_image_space(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map text vectors to (n, dim) image vectors whose neighbors are good candidates for the texts."""
        return self._projection.apply(self._encoder.to_image_space(queries))

    def logits(self, X: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (n, m) log-odds that texts describe images, up to a constant per image."""
        return self._encoder.logits(self._projection.restore(X), queries)


def pca(name: str) -> ModelEntry:
    """Return the entry of the model with a projection in a file.

    Raises
    ------
    UnknownModelError, WeightsError
        There is no such file, it is damaged, or its model is missing.
    """
    # The registry imports this module through its entry point.
    from nearsight.models.registry import find_model

    path = Path(name).expanduser().absolute()
    projection = Projection.load(path)
    base = find_model(projection.base.id)
    if base.spec.fingerprint != projection.base.fingerprint:
        differences = "; ".join(projection.base.fingerprint.differences(base.spec.fingerprint))
        raise WeightsError(
            f"{path} was made for another {projection.base.id}; they differ in: {differences}. Create it "
            "again with nearsight reduce-dim"
        )
    id = f"pca:{path}"
    has_texts = base.load_text_encoder is not None and base.spec.normalize
    return ModelEntry(
        projection.spec(id),
        partial(_load, base, projection, id),
        base.available,
        base.install,
        partial(_load_text, base, projection) if has_texts else None,
        load_on_device=None
        if base.load_on_device is None
        else partial(_load_on, base.load_on_device, projection, id),
    )


def _load(base: ModelEntry, projection: Projection, id: str, cache_dir: Path) -> ProjectedBackend:
    return ProjectedBackend(base.load(cache_dir), projection, id)


def _load_on(
    load_on_device: Callable[[Path, str], Backend],
    projection: Projection,
    id: str,
    cache_dir: Path,
    device: str,
) -> ProjectedBackend:
    return ProjectedBackend(load_on_device(cache_dir, device), projection, id)


def _load_text(base: ModelEntry, projection: Projection, cache_dir: Path, spec: ModelSpec) -> TextEncoder:
    if base.load_text_encoder is None:
        raise UnknownModelError(f"{base.spec.id} has no text encoder")
    return ProjectedTextEncoder(base.load_text_encoder(cache_dir, base.spec), projection, spec)
