"""SIFT and VLAD: the classical baseline, learned from images alone, behind the protocol of every model."""

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
from nearsight.models.preprocess import fit
from nearsight.models.sift_vlad.vocabulary import Method, Vocabulary
from nearsight.models.spec import ModelSpec
from nearsight.verification import sift

_log = logging.getLogger(__name__)

_SHIPPED = Path(__file__).with_name("vocabulary.npz")

# Words settle long before: 64 of them differ little between 100,000 descriptors and a million.
_MOST_DESCRIPTORS = 200_000
# The projection is learned from whole vectors, of 32 KB each with 64 words.
_MOST_VECTORS = 4_000


class SiftVlad:
    """Local features gathered into one vector: finds the same thing again, but knows no kinds of things.

    *Method*: SIFT keypoints of the gray image, their descriptors as RootSIFT (Arandjelović & Zisserman
    2012, https://doi.org/10.1109/CVPR.2012.6248018), gathered by `vlad`. With a projection, the vector is
    whitened (Jégou & Chum 2012, https://doi.org/10.1007/978-3-642-33709-3_55) and brought to unit length.

    An image without a single keypoint, such as a blank page, has nothing to gather: its vector is all
    zeros, and an `Embedder` reports it as failed.

    Parameters
    ----------
    vocabulary : Vocabulary
        What was learned; see `fit_sift_vlad`.
    id : str
        The name it is loaded by.
    size_bytes : int
        Size of its file.
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
        """Shorter side, in pixels, that a decoded image must have at least."""
        return self.vocabulary.method.size_px

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return the SIFT descriptors of one upright RGB image, shape (n, 128); n is 0 for a blank one."""
        pixels = fit(image.convert("L"), self._spec)
        return sift.find_keypoints(pixels, self.vocabulary.method.max_features).descriptors

    def embed(self, prepared: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return the vectors of prepared images.

        Parameters
        ----------
        prepared : sequence of ndarray of uint8, each of shape (n_i, 128)
            What `prepare` returned.

        Returns
        -------
        ndarray of float32, shape (n, dim)
            In order, of unit length; all zeros where there was no keypoint.
        """
        vectors = np.zeros((len(prepared), self._spec.dim), np.float32)
        # One by one: a product of matrices rounds by their shape, and a vector must not depend on its batch.
        for vector, descriptors in zip(vectors, prepared, strict=True):
            vector[:] = self._whitened(_gathered(descriptors, self.vocabulary))
        return vectors

    def save(self, path: str | Path) -> "SiftVlad":
        """Write the model to one file, without pickle, and return it under the name that loads it.

        Parameters
        ----------
        path : path
            By custom ``.npz``; an older file is replaced at the very end.

        Returns
        -------
        SiftVlad
            The same model with the id ``sift-vlad:PATH``, the path made absolute. Collections keep that
            name, so they find the model as long as the file stays where it is.

        Raises
        ------
        StorageError
            The disk is full or cannot be written to.
        """
        self.vocabulary.save(Path(path).absolute())
        return SiftVlad.load(path)

    @classmethod
    def load(cls, path: str | Path) -> "SiftVlad":
        """Read what `save` wrote.

        Raises
        ------
        WeightsError
            The file is missing, damaged or something else.
        """
        path = Path(path).absolute()
        return cls(Vocabulary.load(path), id=f"sift-vlad:{path}", size_bytes=path.stat().st_size)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self.vocabulary, self._spec.id, self._spec.size_bytes)

    def _whitened(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        projection, mean = self.vocabulary.projection, self.vocabulary.mean
        # Without the second test a blank image would get the direction of the mean.
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
    """Gather an image's descriptors into one vector.

    *Method*: Jégou et al. 2010 (https://doi.org/10.1109/CVPR.2010.5540039): each descriptor goes to its
    nearest word, and what is left of it after taking the word off is summed per word. Then power law (Jégou
    et al. 2012, https://doi.org/10.1109/TPAMI.2011.235) and unit length. `intra_normalize` brings each
    word's sum to unit length first (Arandjelović & Zisserman 2013, https://doi.org/10.1109/CVPR.2013.207).

    Parameters
    ----------
    descriptors : ndarray of float32, shape (n, d)
        Local features.
    words : ndarray of float32, shape (k, d)
        The vocabulary.
    power : float, default 0.5
        Greater than 0, at most 1; 1 changes nothing.
    intra_normalize : bool, default True
        See above. Of 248 edits of 372 product photographs it found .972 instead of .939.

    Returns
    -------
    ndarray of float32, shape (k * d,)
        Of unit length, word after word; zeros where there are no descriptors.
    """
    nearest = np.argmax(descriptors @ words.T - (words**2).sum(axis=1) / 2, axis=1)
    belongs = (nearest[:, None] == np.arange(len(words))).astype(np.float32)
    sums = belongs.T @ descriptors - belongs.sum(axis=0)[:, None] * words
    if intra_normalize:
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        sums /= np.where(lengths > 0, lengths, 1)
    flat = sums.ravel()
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
    """Learn a vocabulary, and optionally a whitening, from images; no labels are needed.

    *Method*: k-means in mini-batches (Sculley 2010, https://doi.org/10.1145/1772690.1772862) over a random
    200,000 of the images' RootSIFT descriptors; the whitening is a PCA of at most 4,000 of their vectors.

    Parameters
    ----------
    images : path, PIL image, uint8 array, bytes, or iterable of those
        Folders, globs and tar shards are walked. Those that cannot be used are left out, with a log entry.
    n_words : int, default 64
        Visual words, at least 1. Vectors are ``128 * n_words`` long.
    dim : int, optional
        Project to this many numbers, fewer than there are images.
    size_px : int, default 640
        Images are shrunk to this on the longer side, never enlarged.
    max_features : int, default 800
        Keypoints taken of an image, the strongest.
    power, intra_normalize
        See `vlad`.
    random_state : int, default 0
        Seeds the sample and k-means.

    Returns
    -------
    SiftVlad
        Ready to use; `SiftVlad.save` gives it a file and a name.

    Raises
    ------
    InvalidParameterError
        A value out of its range, or too few images for it.
    MissingExtraError
        OpenCV is not installed.

    Notes
    -----
    Some 50 ms an image, on one core; twice that with `dim`. Memory does not grow with the images.

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
    # A vocabulary of one word stands in until there is one: preparing needs the method alone.
    reader = SiftVlad(Vocabulary(np.zeros((1, sift.SIFT_DIM), np.float32), method))
    n_kept = 0 if dim is None else _MOST_VECTORS
    descriptors, n_used, kept = _read_all(images, reader, n_kept, np.random.default_rng(random_state))
    words = _learn_words(sift.root_sift(descriptors), n_words, random_state)
    learned_from = f"{n_used:,} images, {len(descriptors):,} of their descriptors"
    vocabulary = Vocabulary(words, method, learned_from=learned_from)
    if dim is not None:
        vectors = [_gathered(_descriptors(source, reader), vocabulary) for source in kept]
        mean, projection = _learn_whitening(np.stack(vectors), dim)
        vocabulary = Vocabulary(words, method, mean, projection, learned_from)
    return SiftVlad(vocabulary, id=f"sift-vlad:unsaved-{vocabulary.sha256[:12]}")


def sift_vlad() -> ModelEntry:
    """Return SIFT and VLAD with the vocabulary that comes along, learned from a few free photographs."""
    return _entry(SiftVlad(Vocabulary.load(_SHIPPED), size_bytes=_SHIPPED.stat().st_size))


def sift_vlad_file(path: str) -> ModelEntry:
    """Return the model in a file that `SiftVlad.save` wrote: ``sift-vlad:PATH``."""
    return _entry(SiftVlad.load(path))


def _entry(model: SiftVlad) -> ModelEntry:
    def load(cache_dir: Path) -> SiftVlad:
        sift.require()
        return model

    return ModelEntry(model.spec, load, sift.is_installed)


class _Sample:
    """A random choice among all rows that were ever added, in memory that does not grow with them."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self._size = size
        self._rng = rng
        self._rows: list[NDArray[np.uint8]] = []
        self._lots: list[NDArray[np.float64]] = []

    def add(self, rows: NDArray[np.uint8]) -> None:
        self._rows.append(rows)
        self._lots.append(self._rng.random(len(rows)))
        if sum(map(len, self._lots)) > 2 * self._size:
            self.rows()

    def rows(self) -> NDArray[np.uint8]:
        """Return the rows with the smallest lots, in the order they came in."""
        rows = np.concatenate([np.empty((0, sift.SIFT_DIM), np.uint8), *self._rows])
        lots = np.concatenate([np.empty(0), *self._lots])
        keep = np.sort(np.argsort(lots, kind="stable")[: self._size])
        self._rows, self._lots = [rows[keep]], [lots[keep]]
        return self._rows[0]


def _spec(vocabulary: Vocabulary, id: str, size_bytes: int) -> ModelSpec:
    size_px = vocabulary.method.size_px
    return ModelSpec(
        id=id,
        # A file is asked for by its place, and is the same model in any.
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


def _unpickled(vocabulary: Vocabulary, id: str, size_bytes: int) -> SiftVlad:
    return SiftVlad(vocabulary, id=id, size_bytes=size_bytes)


def _gathered(descriptors: NDArray[np.uint8], vocabulary: Vocabulary) -> NDArray[np.float32]:
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
        if value is not None and value < 1:
            raise InvalidParameterError(f"{name} is {value}; it must be at least 1")


def _sources(images: Any) -> Iterator[ImageSource]:
    for found in find(images):
        if isinstance(found, ImageFailure):
            _log.warning("%s: %s; it is left out of the vocabulary.", found.path, found.reason)
        else:
            yield found


def _descriptors(source: ImageSource, reader: SiftVlad) -> NDArray[np.uint8]:
    return reader.prepare(decode(source, min_side_px=reader.decode_px).image)


def _read_all(
    images: Any, reader: SiftVlad, n_kept: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], int, list[ImageSource]]:
    """Return a sample of all descriptors, how many images had any, and a random `n_kept` of those."""
    sample = _Sample(_MOST_DESCRIPTORS, rng)
    kept: list[ImageSource] = []
    n_used = 0
    for source in _sources(images):
        try:
            descriptors = _descriptors(source, reader)
        except ImageError as error:
            _log.warning("%s; it is left out of the vocabulary.", error)
            continue
        sample.add(descriptors)
        if not len(descriptors):
            continue
        n_used += 1
        # Sources out of archives hold their bytes, so no more of them are kept than will be used.
        if len(kept) < n_kept:
            kept.append(source)
        elif (place := int(rng.integers(n_used))) < n_kept:
            kept[place] = source
    return sample.rows(), n_used, kept


def _learn_words(descriptors: NDArray[np.float32], n_words: int, random_state: int) -> NDArray[np.float32]:
    # Here, since it takes half a second and loading a model needs none of it.
    from sklearn.cluster import MiniBatchKMeans

    if len(descriptors) < n_words:
        raise InvalidParameterError(
            f"n_words is {n_words}, but the images have {len(descriptors)} keypoints altogether; "
            "give more images, or ask for fewer words"
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
            f"span {min(len(vectors) - 1, vectors.shape[1])}; give more images, or ask for fewer dimensions"
        )
    pca = PCA(dim, svd_solver="full").fit(vectors)
    projection = pca.components_.T / np.sqrt(pca.explained_variance_)
    return pca.mean_.astype(np.float32), np.ascontiguousarray(projection, np.float32)
