"""Shorter vectors: a model's, projected onto the directions in which a collection's images differ most.

``pca:FILE`` names such a model; `Collection.reduce_dim` and ``nearsight reduce-dim`` make the file.
"""

import hashlib
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
from nearsight.models.base import Backend, ModelEntry, Movable, TextTower
from nearsight.models.pooling import unit
from nearsight.models.spec import Fingerprint, ModelSpec

_FORMAT = 1


@dataclass(frozen=True)
class Projection:
    """What turns one model's vectors into shorter ones.

    Attributes
    ----------
    base : ModelSpec
        The model whose vectors are projected.
    mean : ndarray of shape (base.dim,), float32
    components : ndarray of shape (dim, base.dim), float32
        Orthonormal rows, the direction of most variance first.
    variance_kept : float
        Share of the variance that the components span, 0..1.
    """

    base: ModelSpec
    mean: NDArray[np.float32]
    components: NDArray[np.float32]
    variance_kept: float

    @cached_property
    def sha256(self) -> str:
        """Hash of the numbers."""
        digest = hashlib.sha256()
        for values in (self.mean, self.components):
            digest.update(np.ascontiguousarray(values, "<f4").tobytes())
        return digest.hexdigest()

    def apply(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Project (n, base.dim) vectors: (n, dim), unit length; 0 for one exactly at the mean."""
        return unit((np.asarray(X, np.float32) - self.mean) @ self.components.T)

    def restore(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what (n, dim) projected vectors probably were: (n, base.dim), unit length.

        *Method*: what the projection threw away is a vector's distance from the mean, and what lies outside
        of the components. The vector had unit length, and what lies outside is taken to have its mean
        length; that leaves a quadratic equation for the distance.
        """
        mean = self.mean.astype(np.float64)
        outside = (1 - mean @ mean) * (1 - self.variance_kept)
        directions = np.asarray(X, np.float32) @ self.components
        along = directions @ mean
        # |mean + distance · direction|² = 1 - outside, for a direction of unit length.
        inside = np.maximum(along**2 - mean @ mean + 1 - outside, 0)
        distances = np.maximum(np.sqrt(inside) - along, 0)
        full: NDArray[np.float32] = (mean + distances[:, None] * directions).astype(np.float32)
        full /= np.maximum(np.linalg.norm(full, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return full

    def spec(self, id: str) -> ModelSpec:
        """Return the facts of the projected model; by content it is the same in any place."""
        return replace(
            self.base,
            id=id,
            identity=self.base.identity or self.base.id,
            dim=len(self.components),
            layer=f"{self.base.layer} > pca-{self.sha256[:16]}",
            normalize=True,
        )

    def save(self, path: Path) -> None:
        """Write the projection, whole or not at all."""
        facts = {
            "format": _FORMAT,
            "base": self.base.to_dict(),
            "fingerprint": self.base.fingerprint.to_dict(),
            "variance_kept": self.variance_kept,
        }
        with replacing(path) as file:
            np.savez(
                file,
                allow_pickle=False,
                facts=np.array(json.dumps(facts)),
                mean=self.mean,
                components=self.components,
            )

    @classmethod
    def load(cls, path: Path) -> "Projection":
        """Read what `save` wrote.

        Raises
        ------
        UnknownModelError
            There is no such file.
        WeightsError
            It is damaged, is something else, or was written by a newer nearsight.
        """
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                facts: Mapping[str, Any] = json.loads(str(archive["facts"]))
                mean, components = archive["mean"], archive["components"]
            if facts["format"] > _FORMAT:
                raise WeightsError(
                    f"{path} was written by a newer nearsight: pip install --upgrade nearsight"
                )
            base = ModelSpec.from_dict(facts["base"])
            if base.fingerprint != Fingerprint.from_dict(facts["fingerprint"]):
                raise ValueError("its model and its fingerprint disagree")
            if mean.shape != (base.dim,) or components.ndim != 2 or components.shape[1] != base.dim:
                raise ValueError(f"its arrays have shapes {mean.shape} and {components.shape}")
            return cls(base, mean, components, float(facts["variance_kept"]))
        except FileNotFoundError:
            raise UnknownModelError(
                f"There is no file {path}; the name is pca:FILE with what nearsight reduce-dim wrote."
            ) from None
        except WeightsError:
            raise
        # A damaged archive can raise nearly anything.
        except Exception as error:
            raise WeightsError(
                f"{path} is no projection ({error}); make it again with nearsight reduce-dim"
            ) from error


def fit_projection(X: NDArray[np.float32], dim: int, base: ModelSpec) -> Projection:
    """Learn the directions in which vectors differ most.

    *Method*: principal component analysis (Jolliffe 2002, chapter 2), without whitening. Vectors are
    centered, projected, and brought to unit length again, so that a cosine stays a cosine.

    Parameters
    ----------
    X : ndarray of shape (n, base.dim), float32
        More than `dim` vectors. Memory is theirs and that of a (base.dim, base.dim) matrix.
    dim : int
        At least 1, less than `base.dim`.
    base : ModelSpec
        The model that made them.

    Raises
    ------
    InvalidParameterError
        `dim` is out of its range, there are too few vectors, or all are the same.
    """
    from sklearn.decomposition import PCA

    if not 1 <= dim < base.dim:
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


class ProjectedBackend:
    """A model followed by a projection.

    Parameters
    ----------
    backend : Backend
        The model.
    projection : Projection
    id : str
        The name that leads here.
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
        """Where the model runs; the projection is always the processor's work."""
        return getattr(self._backend, "device", "cpu")

    @property
    def devices(self) -> Sequence[str]:
        """What the model's runtime offers."""
        return self._backend.devices if isinstance(self._backend, Movable) else ()

    def on(self, device: str, cache_dir: Path, *, spec: ModelSpec | None = None) -> "ProjectedBackend":
        """Return the same with the model on a device; see `Movable`."""
        if not isinstance(self._backend, Movable) or spec is not None:
            raise DeviceError(f"{self._spec.id} cannot run on {device}; leave the device away")
        return ProjectedBackend(self._backend.on(device, cache_dir), self._projection, self._spec.id)

    def idle_device(self) -> str:
        """Say what stands idle; or nothing."""
        return self._backend.idle_device() if isinstance(self._backend, Movable) else ""

    @property
    def decode_px(self) -> int | None:
        """Shorter side, in pixels, that a decoded image must have at least; None for full size."""
        return self._backend.decode_px

    def prepare(self, image: Image.Image) -> Any:
        """Turn one upright RGB image into what `embed` takes a sequence of."""
        return self._backend.prepare(image)

    def embed(self, prepared: Sequence[Any]) -> NDArray[np.float32]:
        """Return the (n, dim) vectors of prepared images."""
        vectors = self._backend.embed(prepared)
        short = np.empty((len(vectors), self._spec.dim), np.float32)
        # One by one: a product of matrices rounds by their shape, and a vector must not depend on its batch.
        for at in range(len(vectors)):
            short[at] = self._projection.apply(vectors[at : at + 1])[0]
        return short


class ProjectedText:
    """Compares texts with projected image vectors, through what those probably were in full.

    Parameters
    ----------
    tower : TextTower
        Of the model whose vectors were projected.
    projection : Projection
        Of vectors of unit length.
    spec : ModelSpec
        The facts of the projected model.
    """

    # Even where texts and images share one space, projecting would lose how far each is from the mean.
    is_shared = False

    def __init__(self, tower: TextTower, projection: Projection, spec: ModelSpec) -> None:
        self.spec = spec
        self._tower = tower
        self._projection = projection

    @property
    def prompt(self) -> str:
        """How a bare name is best put, with ``{}`` for the name."""
        return self._tower.prompt

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the (n, d) vectors of texts, unit length."""
        return self._tower.embed(texts)

    def project(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring (n, dim) image vectors among texts: (n, d), unit length."""
        return self._tower.project(self._projection.restore(X))

    def aim(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the (n, dim) image vectors whose neighbors are the best candidates for texts."""
        return self._projection.apply(self._tower.aim(queries))

    def logits(self, X: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (n, m) log-odds, up to a constant an image, that texts name images."""
        return self._tower.logits(self._projection.restore(X), queries)


def pca(name: str) -> ModelEntry:
    """Return the model with a projection in a file, as the registry asks for it.

    Raises
    ------
    UnknownModelError, WeightsError
        There is no such file, it is damaged, or its model is not here.
    """
    # The registry finds this module by its entry point; the model below is found in the same way.
    from nearsight.models.registry import find_model

    path = Path(name).expanduser().absolute()
    projection = Projection.load(path)
    base = find_model(projection.base.id)
    if base.spec.fingerprint != projection.base.fingerprint:
        differences = "; ".join(projection.base.fingerprint.differences(base.spec.fingerprint))
        raise WeightsError(
            f"{path} was made for another {projection.base.id}; they differ in: {differences}. Make it again "
            "with nearsight reduce-dim"
        )
    id = f"pca:{path}"
    knows_words = base.load_text_encoder is not None and base.spec.normalize
    return ModelEntry(
        projection.spec(id),
        partial(_load, base, projection, id),
        base.available,
        base.install,
        partial(_load_text, base, projection) if knows_words else None,
        load_on=None if base.load_on is None else partial(_load_on, base.load_on, projection, id),
    )


def _load(base: ModelEntry, projection: Projection, id: str, cache_dir: Path) -> ProjectedBackend:
    return ProjectedBackend(base.load(cache_dir), projection, id)


def _load_on(
    load_on: Callable[[Path, str], Backend], projection: Projection, id: str, cache_dir: Path, device: str
) -> ProjectedBackend:
    return ProjectedBackend(load_on(cache_dir, device), projection, id)


def _load_text(base: ModelEntry, projection: Projection, cache_dir: Path, spec: ModelSpec) -> TextTower:
    if base.load_text_encoder is None:
        raise UnknownModelError(f"{base.spec.id} knows no texts")
    return ProjectedText(base.load_text_encoder(cache_dir, base.spec), projection, spec)
