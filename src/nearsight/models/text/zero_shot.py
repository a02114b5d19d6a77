"""Labels images by label names, without examples."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import InvalidParameterError
from nearsight.models.base import TextEncoder
from nearsight.models.text.conse import classes

# Every fifth class of ImageNet-1k serves as a background label: animals, plants, things, places.
_BACKGROUND_STEP = 5
# An image is unknown if more than this share of background labels fits better than the best name.
_MAX_BETTER_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class ZeroShotLabels:
    """Predicted labels of images.

    Attributes
    ----------
    names : list of str, length m
        The candidate names.
    probabilities : ndarray of shape (n, m), float32
        Probability of each name, given that one of them is right; each row sums to 1.
    unknown : ndarray of shape (n,), bool
        Whether probably none of the names is right.
    """

    names: list[str]
    probabilities: NDArray[np.float32]
    unknown: NDArray[np.bool_]

    @property
    def labels(self) -> list[str]:
        """The most probable name of each image."""
        return [self.names[i] for i in self.probabilities.argmax(1)]


class ZeroShotClassifier:
    """Classifies image vectors by label names, without examples.

    *Method*: Radford et al. 2021 (arXiv 2103.00020, section 3.1): a softmax over the similarities of an
    image and each name in a prompt. We add "unknown": the best name is compared with 200 background labels,
    and the image is unknown if more than a tenth of them fits better. On photographs of clothes, 0.5 % were
    unknown with the right names as candidates, and 99 % with names of animals.

    Parameters
    ----------
    encoder : TextEncoder
        Text encoder of the model of the vectors.
    names : sequence of str
        At least one; all different.

    Raises
    ------
    InvalidParameterError
        There is no name, an empty one, or the same name twice.
    """

    def __init__(self, encoder: TextEncoder, names: Sequence[str]) -> None:
        self.encoder = encoder
        self.names = [name.strip() for name in names]
        if not self.names or "" in self.names:
            raise InvalidParameterError("names must contain at least one name and no empty one")
        if len(set(self.names)) < len(self.names):
            repeated = next(name for name in self.names if self.names.count(name) > 1)
            raise InvalidParameterError(f"names contains {repeated!r} twice; give each name once")
        self._queries = self._embed_names(self.names)

    def predict(self, X: NDArray[np.float32]) -> ZeroShotLabels:
        """Label (n, dim) image vectors."""
        X = np.asarray(X, np.float32).reshape(len(X), self.encoder.spec.dim)
        logits = self.encoder.logits(X, self._queries)
        shares = np.exp(logits - logits.max(1, keepdims=True))
        others = self.encoder.logits(X, self._background)
        n_better = (others > logits.max(1, keepdims=True)).sum(1)
        return ZeroShotLabels(
            self.names,
            (shares / shares.sum(1, keepdims=True)).astype(np.float32),
            n_better > _MAX_BETTER_SHARE * others.shape[1],
        )

    @cached_property
    def _background(self) -> NDArray[np.float32]:
        return self._embed_names([names[0] for names, _ in classes()[::_BACKGROUND_STEP]])

    def _embed_names(self, names: Sequence[str]) -> NDArray[np.float32]:
        return self.encoder.embed([self.encoder.prompt.replace("{}", name) for name in names])
