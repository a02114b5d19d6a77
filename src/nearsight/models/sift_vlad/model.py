"""SIFT with VLAD as a model: the classical baseline, fitted on images without labels."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nearsight.errors import ImageError, ImageFailure, InvalidParameterError
from nearsight.images import ImageSource, decode, find
from nearsight.models.base import ModelEntry
from nearsight.models.preprocess import resize_and_crop
from nearsight.models.sift_vlad.vocabulary import Method, Vocabulary
from nearsight.models.spec import ModelSpec
from nearsight.parameters import require_whole
from nearsight.verification import sift

_log = logging.getLogger(__name__)

_PACKAGED_VOCABULARY = Path(__file__).with_name("vocabulary.npz")

# More descriptors hardly change the words: 64 words from 100,000 and from a million are similar.
_MAX_DESCRIPTORS = 200_000
# The projection is fitted on full vectors; each has 32 KB with 64 words.
_MAX_VECTORS = 4_000


class SiftVlad:
    """Local features aggregated into one vector: finds the same object, not objects of the same kind.

    *Method*: SIFT keypoints of the gray image, their descriptors as RootSIFT (Arandjelović & Zisserman
    2012, https://doi.org/10.1109/CVPR.2012.6248018), aggregated by `vlad`. With a projection, the vector is
    whitened (Jégou & Chum 2012, https://doi.org/10.1007/978-3-642-33709-3_55) and scaled to unit length.

    The vector of an image without keypoints, such as a blank page, is all zeros, and an `Embedder` reports
    the image as failed.

    Parameters
    ----------
    vocabulary : Vocabulary
        The fitted vocabulary; see `fit_sift_vlad`.
    id : str
        The name that loads the model.
    size_bytes : int
        Size of the vocabulary file.
    """

    def __init__(self, vocabulary: Vocabulary, *, id: str = "sift-vlad", size_bytes: int = 0) -> None:
        self.vocabulary = vocabulary
        self._spec = _spec(vocabulary, id, size_bytes)

    @property
    def spec(self) -> ModelSpec:
        """The model's facts."""
        return self._spec

    @property
    def decode_px(self) -> int:
        """Minimum length of a decoded image's shorter side in pixels."""
        return self.vocabulary.method.size_px

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return the (n, 128) SIFT descriptors of one upright RGB image; n is 0 for a blank image."""
        pixels = resize_and_crop(image.convert("L"), self._spec)
        return sift.find_keypoints(pixels, self.vocabulary.method.max_features).descriptors

    def embed(self, prepared: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return the vectors of prepared images.

        Parameters
        ----------
        prepared : sequence of ndarray of uint8, each of shape (n_i, 128)
            Results of `prepare`.

        Returns
        -------
        ndarray of float32, shape (n, dim)
            In order, of unit length; all zeros for images without keypoints.
        """
        vectors = np.zeros((len(prepared), self._spec.dim), np.float32)
        # One by one: a matrix product rounds by its shape, and a vector must not depend on its batch.
        for vector, descriptors in zip(vectors, prepared, strict=True):
            vector[:] = self._whitened(_aggregate(descriptors, self.vocabulary))
        return vectors

    def save(self, path: str | Path) -> "SiftVlad":
        """Write the model to one file, without pickle, and return it with the name that loads it.

        Parameters
        ----------
        path : path
            The file, usually ``.npz``; an existing file is replaced atomically.

        Returns
        -------
        SiftVlad
            The same model with the id ``sift-vlad:PATH``, with an absolute path. Collections store that name,
            so do not move the file.

        Raises
        ------
        StorageError
            The file cannot be written, for example because the disk is full.
        """
        self.vocabulary.save(Path(path).absolute())
        return SiftVlad.load(path)

    @classmethod
    def load(cls, path: str | Path) -> "SiftVlad":
        """Read the result of `save`.

        Raises
        ------
        WeightsError
            The file is missing, damaged or not a vocabulary.
        """
        path = Path(path).absolute()
        return cls(Vocabulary.load(path), id=f"sift-vlad:{path}", size_bytes=path.stat().st_size)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self.vocabulary, self._spec.id, self._spec.size_bytes)

    def _whitened(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        projection, mean = self.vocabulary.projection, self.vocabulary.mean
        # A blank image must not get the direction of the mean.
        if projection is None or mean is None or not vector.any():
            return vector if projection is None else np.zeros(self._spec.dim, np.float32)
        return _unit(np.asarray((vector - mean) @ projection, np.float32))


def vlad(
    descriptors: NDArray[np.float32],
    words: NDArray[np.float32],
    *,
    power: float = 0.5,
    intra_normalize: bool = True,
) -> NDArray[np.float32]:
    """Aggregate an image's descriptors into one vector.

    *Method*: Jégou et al. 2010 (https://doi.org/10.1109/CVPR.2010.5540039): each descriptor is
    assigned to its nearest word, and the differences from the word are summed per word. Then power law (Jégou
    et al. 2012, https://doi.org/10.1109/TPAMI.2011.235) and unit length. `intra_normalize` first scales each
    word's sum to unit length (Arandjelović & Zisserman 2013, https://doi.org/10.1109/CVPR.2013.207).

    Parameters
    ----------
    descriptors : ndarray of float32, shape (n, d)
        Local features.
    words : ndarray of float32, shape (k, d)
        The vocabulary.
    power : float, default 0.5
        Exponent, greater than 0 and at most 1; 1 has no effect.
    intra_normalize : bool, default True
        See above. It raised the share of found edits, of 248 edits of 372 product photographs, from 0.939 to
        0.972.

    Returns
    -------
    ndarray of float32, shape (k * d,)
        Unit length, word after word; zeros if there are no descriptors.
    """
    nearest = np.argmax(descriptors @ words.T - (words**2).sum(axis=1) / 2, axis=1)
    assignment = (nearest[:, None] == np.arange(len(words))).astype(np.float32)
    residuals = assignment.T @ descriptors - assignment.sum(axis=0)[:, None] * words
    if intra_normalize:
        lengths = np.linalg.norm(residuals, axis=1, keepdims=True)
        residuals /= np.where(lengths > 0, lengths, 1)
    flat = residuals.ravel()
    return _unit(np.sign(flat) * np.abs(flat) ** np.float32(power))


def fit_sift_vlad(
    images: Any,
    *,
    n_words: int = 64,
    dim: int | None = None,
    size_px: int = 640,
    max_features: int = 800,
    power: float = 0.5,
    intra_normalize: bool = True,
    random_state: int = 0,
) -> SiftVlad:
    """Fit a vocabulary, and optionally a whitening, on images without labels.

    *Method*: k-means in mini-batches (Sculley 2010, https://doi.org/10.1145/1772690.1772862) over a random
    sample of 200,000 RootSIFT descriptors; the whitening is a PCA of at most 4,000 vectors.

    Parameters
    ----------
    images : path, PIL image, uint8 array, bytes, or iterable of those
        Folders, globs and tar shards are searched. Unreadable images are skipped with a log entry.
    n_words : int, default 64
        Number of visual words, at least 1. Vectors have length ``128 * n_words``.
    dim : int, optional
        Length of the vectors after the projection; less than the number of images.
    size_px : int, default 640
        Length to which the longer side is shrunk, in pixels; images are not enlarged.
    max_features : int, default 800
        Maximum number of keypoints per image; the strongest are used.
    power, intra_normalize
        See `vlad`.
    random_state : int, default 0
        Seed of the sample and of k-means.

    Returns
    -------
    SiftVlad
        Ready to use; `SiftVlad.save` gives it a file and a name.

    Raises
    ------
    InvalidParameterError
        A value is out of range, or there are too few images.
    MissingExtraError
        OpenCV is not installed.

    Notes
    -----
    About 50 ms per image on one core, twice that with `dim`. Memory does not grow with the number of images.

    Examples
    --------
    >>> import numpy as np
    >>> from nearsight.models.sift_vlad.model import fit_sift_vlad
    >>> blocks = np.random.default_rng(0).integers(0, 256, (6, 15, 20, 3), np.uint8)
    >>> images = blocks.repeat(8, axis=1).repeat(8, axis=2)
    >>> model = fit_sift_vlad(images, n_words=4)
    >>> model.spec.dim, model.vocabulary.learned_from.startswith("6 images")
    (512, True)
    """
    _check(n_words=n_words, dim=dim, size_px=size_px, max_features=max_features)
    if not 0 < power <= 1:
        raise InvalidParameterError(f"power is {power}; it must be greater than 0 and at most 1")
    method = Method(size_px=size_px, max_features=max_features, power=power, intra_normalize=intra_normalize)
    # `prepare` needs the method only, so a vocabulary of one word will do.
    reader = SiftVlad(Vocabulary(np.zeros((1, sift.SIFT_DIM), np.float32), method))
    n_sources = 0 if dim is None else _MAX_VECTORS
    descriptors, n_used, sources = _read_all(images, reader, n_sources, np.random.default_rng(random_state))
    words = _learn_words(sift.root_sift(descriptors), n_words, random_state)
    learned_from = f"{n_used:,} images, {len(descriptors):,} of their descriptors"
    vocabulary = Vocabulary(words, method, learned_from=learned_from)
    if dim is not None:
        vectors = [_aggregate(_descriptors(source, reader), vocabulary) for source in sources]
        mean, projection = _learn_whitening(np.stack(vectors), dim)
        vocabulary = Vocabulary(words, method, mean, projection, learned_from)
    return SiftVlad(vocabulary, id=f"sift-vlad:unsaved-{vocabulary.sha256[:12]}")


def sift_vlad() -> ModelEntry:
    """Return the entry with the packaged vocabulary, fitted on a few free photographs."""
    return _entry(
        SiftVlad(Vocabulary.load(_PACKAGED_VOCABULARY), size_bytes=_PACKAGED_VOCABULARY.stat().st_size)
    )


def sift_vlad_file(path: str) -> ModelEntry:
    """Return the entry of a file written by `SiftVlad.save`: ``sift-vlad:PATH``."""
    return _entry(SiftVlad.load(path))


def _entry(model: SiftVlad) -> ModelEntry:
    def load(cache_dir: Path) -> SiftVlad:
        sift.require()
        return model

    return ModelEntry(model.spec, load, sift.is_installed, sift.INSTALL)


class _RandomSample:
    """A uniform random sample of all added rows, in constant memory."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self._size = size
        self._rng = rng
        self._rows: list[NDArray[np.uint8]] = []
        self._keys: list[NDArray[np.float64]] = []

    def add(self, rows: NDArray[np.uint8]) -> None:
        self._rows.append(rows)
        self._keys.append(self._rng.random(len(rows)))
        if sum(map(len, self._keys)) > 2 * self._size:
            self.rows()

    def rows(self) -> NDArray[np.uint8]:
        """Return the rows with the smallest random keys, in the order of their addition."""
        rows = np.concatenate([np.empty((0, sift.SIFT_DIM), np.uint8), *self._rows])
        keys = np.concatenate([np.empty(0), *self._keys])
        smallest = np.sort(np.argsort(keys, kind="stable")[: self._size])
        self._rows, self._keys = [rows[smallest]], [keys[smallest]]
        return self._rows[0]


def _spec(vocabulary: Vocabulary, id: str, size_bytes: int) -> ModelSpec:
    size_px = vocabulary.method.size_px
    return ModelSpec(
        id=id,
        # The fingerprint does not depend on the path of the file.
        identity="" if id == "sift-vlad" else f"sift-vlad-{vocabulary.sha256[:16]}",
        dim=vocabulary.dim,
        weights_sha256=vocabulary.sha256,
        input_px=(size_px, size_px),
        resize_mode="shrink",
        mean=(0, 0, 0),
        std=(1, 1, 1),
        layer="vlad" if vocabulary.projection is None else "whitened vlad",
        source="OpenCV's SIFT, and a vocabulary of visual words",
        license="Apache-2.0" if id == "sift-vlad" else "yours",
        training_data=vocabulary.learned_from,
        size_bytes=size_bytes,
    )


def _restore(vocabulary: Vocabulary, id: str, size_bytes: int) -> SiftVlad:
    return SiftVlad(vocabulary, id=id, size_bytes=size_bytes)


def _aggregate(descriptors: NDArray[np.uint8], vocabulary: Vocabulary) -> NDArray[np.float32]:
    method = vocabulary.method
    return vlad(
        sift.root_sift(descriptors),
        vocabulary.words,
        power=method.power,
        intra_normalize=method.intra_normalize,
    )


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(vector)
    return vector / length if length > 0 else vector


def _check(*, dim: int | None, **counts: int) -> None:
    for name, value in {**counts, "dim": dim}.items():
        require_whole(name, value, optional=True)


def _sources(images: Any) -> Iterator[ImageSource]:
    for source in find(images):
        if isinstance(source, ImageFailure):
            _log.warning("%s: %s; it is skipped.", source.path, source.reason)
        else:
            yield source


def _descriptors(source: ImageSource, reader: SiftVlad) -> NDArray[np.uint8]:
    return reader.prepare(decode(source, min_side_px=reader.decode_px).image)


def _read_all(
    images: Any, reader: SiftVlad, n_sources: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], int, list[ImageSource]]:
    """Return a sample of all descriptors, the number of images with any, and `n_sources` random ones."""
    sample = _RandomSample(_MAX_DESCRIPTORS, rng)
    sources: list[ImageSource] = []
    n_used = 0
    for source in _sources(images):
        try:
            descriptors = _descriptors(source, reader)
        except ImageError as error:
            _log.warning("%s; it is skipped.", error)
            continue
        sample.add(descriptors)
        if not len(descriptors):
            continue
        n_used += 1
        # Sources from archives contain their bytes, so only `n_sources` are kept in memory.
        if len(sources) < n_sources:
            sources.append(source)
        elif (slot := int(rng.integers(n_used))) < n_sources:
            sources[slot] = source
    return sample.rows(), n_used, sources


def _learn_words(descriptors: NDArray[np.float32], n_words: int, random_state: int) -> NDArray[np.float32]:
    # Imported here: it takes half a second, and loading a model does not need it.
    from sklearn.cluster import MiniBatchKMeans

    if len(descriptors) < n_words:
        raise InvalidParameterError(
            f"n_words is {n_words}, but the images have {len(descriptors)} keypoints altogether; "
            "give more images, or a smaller n_words"
        )
    kmeans = MiniBatchKMeans(
        n_words, batch_size=4096, n_init=3, compute_labels=False, random_state=random_state
    )
    return np.asarray(kmeans.fit(descriptors).cluster_centers_, np.float32)


def _learn_whitening(
    vectors: NDArray[np.float32], dim: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    from sklearn.decomposition import PCA

    if dim >= min(len(vectors), vectors.shape[1] + 1):
        raise InvalidParameterError(
            f"dim is {dim}, but {len(vectors)} images with keypoints and vectors of {vectors.shape[1]} "
            f"span {min(len(vectors) - 1, vectors.shape[1])}; give more images, or a smaller dim"
        )
    pca = PCA(dim, svd_solver="full").fit(vectors)
    projection = pca.components_.T / np.sqrt(pca.explained_variance_)
    return pca.mean_.astype(np.float32), np.ascontiguousarray(projection, np.float32)
