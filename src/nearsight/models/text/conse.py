"""Compares texts with the images of a classifier that was not trained with texts.

*Method*: ConSE (Norouzi et al. 2013, arXiv 1312.5650, section 3): the text-space vector of an image is the
mean of the classes' text vectors, weighted by the classifier's probabilities. We deviate in four ways, each
chosen on the captions of half of the images of one set and evaluated on others (`benchmarks/text.py`):

- the prompt is "a photo of ..."; a class's text vector is the mean of the vectors of its names and of its
  name with its WordNet meaning, minus the mean of all classes, which carries no information;
- probabilities are a softmax of 8 times (unit vector · head weights) over the 30 most probable classes;
- texts are also mapped to image space: the rows of the classifier's head, weighted by a softmax of
  cosine / 0.05 over the classes, give a direction for a text;
- both cosines have the same weight: they are the cosine of one vector, [text part, image part] / √2.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.resources import files
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import WeightsError
from nearsight.models.cache import cached_bytes
from nearsight.models.pooling import unit_length
from nearsight.models.spec import ModelSpec
from nearsight.models.text.minilm import DIM, MiniLmEncoder

_N_CLASSES = 30
_PROBABILITY_SCALE = 8.0
_TEMPERATURE = 0.05
_LOGIT_SCALE = 1.3

#: Part of the cached file's name: increase it whenever the classes' vectors change.
LABELS_VERSION = 1


class ConseTextEncoder:
    """Compares texts with the pooled vectors of an ImageNet-1k classifier.

    Parameters
    ----------
    spec : ModelSpec
        The facts of the classifier; its vectors have unit length.
    head : ndarray of shape (1000, dim), float32
        The weights of its classification layer.
    cache_dir : Path
        Directory for the text encoder and the classes' vectors, which take some seconds to compute.

    Raises
    ------
    MissingExtraError, WeightsError
        The text encoder is not installed, or damaged.
    """

    shares_space = False
    prompt = "{}"

    def __init__(self, spec: ModelSpec, head: NDArray[np.float32], cache_dir: Path) -> None:
        if head.shape != (len(classes()), spec.dim):
            raise WeightsError(
                f"the head of {spec.id} has shape {head.shape}; {len(classes())} classes of {spec.dim} "
                "features are needed"
            )
        self.spec = spec
        self._encoder = MiniLmEncoder(cache_dir)
        self._head = np.ascontiguousarray(head.T, np.float32)
        self._directions = unit_length(head) - unit_length(head).mean(0)
        labels = np.load(BytesIO(_cached_label_vectors(self._encoder, cache_dir)))
        self._mean_label = labels.mean(0)
        self._labels = labels - self._mean_label
        self._reference_images = self.to_text_space(unit_length(head))

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the (n, 384 + dim) vectors of texts, unit length."""
        text_part = unit_length(
            self._encoder.embed([f"a photo of {text}" for text in texts]) - self._mean_label
        )
        probabilities = _softmax(text_part @ unit_length(self._labels).T / _TEMPERATURE)
        return _join_parts(text_part, unit_length(probabilities @ self._directions))

    def to_text_space(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map (n, dim) image vectors to the space of text vectors: (n, 384 + dim), unit length."""
        logits = _PROBABILITY_SCALE * (np.asarray(X, np.float32) @ self._head)
        threshold = np.partition(logits, -_N_CLASSES, axis=1)[:, [-_N_CLASSES]]
        probabilities = _softmax(np.where(logits >= threshold, logits, -np.inf))
        return _join_parts(unit_length(probabilities @ self._labels), X)

    def to_image_space(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map text vectors to (n, dim) image vectors whose neighbors are good candidates for the texts."""
        return unit_length(queries[:, DIM:])

    def logits(self, X: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (n, m) log-odds that texts describe images, up to a constant per image.

        *Method*: for each text, the similarity as a z-score among 1,000 images, one of each class, since some
        texts are similar to nearly every image. The factor 1.3 minimizes the log loss on half of one set of
        images.
        """
        typical = self._reference_images @ queries.T
        scaled = (self.to_text_space(X) @ queries.T - typical.mean(0)) / typical.std(0)
        result: NDArray[np.float32] = _LOGIT_SCALE * scaled
        return result


@lru_cache(maxsize=1)
def classes() -> list[tuple[list[str], str]]:
    """Return names and meaning of each class of ImageNet-1k, in the order of the classifier's outputs."""
    text = files("nearsight.models.text").joinpath("data/imagenet.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines() if not line.startswith("#"))
    return [(names.split(", "), meaning) for names, meaning in rows]


def label_vectors(embed: Callable[[Sequence[str]], NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the (1000, 384) text vectors of the classes, unit length."""
    names = [name for names, _ in classes() for name in names]
    owners = np.repeat(np.arange(len(classes())), [len(names) for names, _ in classes()])
    means = np.zeros((len(classes()), DIM), np.float32)
    np.add.at(means, owners, embed([f"a photo of a {name}" for name in names]))
    meanings = embed([f"{names[0]}: {meaning}" for names, meaning in classes()])
    return unit_length(unit_length(means) + meanings)


def _cached_label_vectors(encoder: MiniLmEncoder, cache_dir: Path) -> bytes:
    def build() -> bytes:
        file = BytesIO()
        np.save(file, label_vectors(encoder.embed))
        return file.getvalue()

    content = hashlib.sha256(repr(classes()).encode()).hexdigest()[:12]
    return cached_bytes(cache_dir / "models", f"conse-{content}-v{LABELS_VERSION}", ".npy", build)


def _join_parts(text_part: NDArray[np.float32], image_part: NDArray[np.float32]) -> NDArray[np.float32]:
    joined: NDArray[np.float32] = np.hstack([text_part, image_part]).astype(np.float32, copy=False)
    joined *= np.float32(2**-0.5)
    return joined


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    shares = np.exp(logits - logits.max(1, keepdims=True))
    result: NDArray[np.float32] = shares / shares.sum(1, keepdims=True)
    return result
