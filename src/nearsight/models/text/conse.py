"""Words for the images of a classifier that never saw a text.

*Method*: ConSE (Norouzi et al. 2013, arXiv 1312.5650, section 3): an image's place among texts is the mean
of the classes' text vectors, weighted by what the classifier believes of them. We deviate in four ways, each
chosen on the captions of half of the images of one set (`benchmarks/text.py`) and told on others:

- texts are read as "a photo of ..."; a class's text vector is the mean of its names' and of its name with
  its WordNet meaning, less the mean of all classes: what every class has in common tells nothing;
- beliefs are a softmax of 8 times (unit vector · head weights) over the 30 likeliest classes;
- the way back is taken too: a text's likeliest classes, weighted by a softmax of cosine / 0.05, make a
  direction among image vectors, out of the rows of the classifier's head;
- both cosines count alike. They are the cosine of one longer vector, [text part, image part] / √2.
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
from nearsight.models.cache import kept
from nearsight.models.pooling import unit
from nearsight.models.spec import ModelSpec
from nearsight.models.text.minilm import DIM, MiniLM

_N_CLASSES = 30
_SHARPNESS = 8.0
_TEMPERATURE = 0.05
_STANDARD = 1.3

#: Part of the cached file's name: raise it whenever the classes' vectors would be others.
LABELS_VERSION = 1


class ConSE:
    """Compares texts with the pooled vectors of an ImageNet-1k classifier.

    Parameters
    ----------
    spec : ModelSpec
        The classifier; its vectors are of unit length.
    head : ndarray of shape (1000, dim), float32
        The weights that turn its features into classes.
    cache_dir : Path
        Where the text encoder and the classes' vectors are kept (they take some seconds to make).

    Raises
    ------
    MissingExtraError, WeightsError
        The text encoder is not installed, or damaged.
    """

    is_shared = False
    prompt = "{}"

    def __init__(self, spec: ModelSpec, head: NDArray[np.float32], cache_dir: Path) -> None:
        if head.shape != (len(classes()), spec.dim):
            raise WeightsError(
                f"the head of {spec.id} has shape {head.shape}; {len(classes())} classes of {spec.dim} "
                "features are needed"
            )
        self.spec = spec
        self._encoder = MiniLM(cache_dir)
        self._head = np.ascontiguousarray(head.T, np.float32)
        self._directions = unit(head) - unit(head).mean(0)
        labels = np.load(BytesIO(_kept_labels(self._encoder, cache_dir)))
        self._middle = labels.mean(0)
        self._labels = labels - self._middle
        self._typical = self.project(unit(head))

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the (n, 384 + dim) unit vectors of texts."""
        words = unit(self._encoder.embed([f"a photo of {text}" for text in texts]) - self._middle)
        beliefs = _softmax(words @ unit(self._labels).T / _TEMPERATURE)
        return _joined(words, unit(beliefs @ self._directions))

    def project(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring (n, dim) image vectors among texts: (n, 384 + dim), unit length."""
        logits = _SHARPNESS * (np.asarray(X, np.float32) @ self._head)
        least = np.partition(logits, -_N_CLASSES, axis=1)[:, [-_N_CLASSES]]
        beliefs = _softmax(np.where(logits >= least, logits, -np.inf))
        return _joined(unit(beliefs @ self._labels), X)

    def aim(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the (n, dim) image vectors whose neighbors are the best candidates for texts."""
        return unit(queries[:, DIM:])

    def logits(self, X: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (n, m) log-odds, up to a constant an image, that texts name images.

        *Method*: similarities in standard deviations above those of 1000 images, one of each class, text
        by text: to some texts nearly every image is rather similar. Times 1.3, the least log loss on
        half of one set of images.
        """
        typical = self._typical @ queries.T
        scaled = (self.project(X) @ queries.T - typical.mean(0)) / typical.std(0)
        result: NDArray[np.float32] = _STANDARD * scaled
        return result


@lru_cache(maxsize=1)
def classes() -> list[tuple[list[str], str]]:
    """Return names and meaning of each class of ImageNet-1k, in the order of a classifier's outputs."""
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
    return unit(unit(means) + meanings)


def _kept_labels(encoder: MiniLM, cache_dir: Path) -> bytes:
    def build() -> bytes:
        file = BytesIO()
        np.save(file, label_vectors(encoder.embed))
        return file.getvalue()

    content = hashlib.sha256(repr(classes()).encode()).hexdigest()[:12]
    return kept(cache_dir / "models", f"conse-{content}-v{LABELS_VERSION}", ".npy", build)


def _joined(text_part: NDArray[np.float32], image_part: NDArray[np.float32]) -> NDArray[np.float32]:
    joined: NDArray[np.float32] = np.hstack([text_part, image_part]).astype(np.float32, copy=False)
    joined *= np.float32(2**-0.5)
    return joined


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    shares = np.exp(logits - logits.max(1, keepdims=True))
    result: NDArray[np.float32] = shares / shares.sum(1, keepdims=True)
    return result
