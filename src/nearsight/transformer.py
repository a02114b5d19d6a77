"""The embedder as a scikit-learn transformer."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags

from nearsight.embedder import BATCH_SIZE, Embedder
from nearsight.errors import InvalidParameterError
from nearsight.models import DEFAULT_MODEL, Backend, find_model


class ImageEmbeddingTransformer(TransformerMixin, BaseEstimator):
    """Turn images into vectors inside a scikit-learn `Pipeline`.

    Fitting only checks the parameters. The model is loaded at the first `transform`, so that cloning and
    pickling are cheap.

    Parameters
    ----------
    model : str or Backend, default "efficientnet-lite0"
        Name of a model, or a loaded model.
    device : str, default "auto"
        Device of a model given by name; see `load_model`.
    n_threads : int, optional
        Worker threads; by default the number of cores that this process may use.
    batch_size : int, default 8
        Images that a worker embeds at once.
    on_error : {"raise", "nan"}, default "raise"
        Whether a failed image raises `ImageError` or gives a row of NaN.

    Attributes
    ----------
    n_features_out_ : int
        Length of the vectors.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from sklearn.pipeline import make_pipeline
    >>> from nearsight import ImageEmbeddingTransformer
    >>> dark, light = np.full((32, 32, 3), 20, np.uint8), np.full((32, 32, 3), 230, np.uint8)
    >>> model = make_pipeline(ImageEmbeddingTransformer(), KNeighborsClassifier(1))
    >>> model = model.fit([dark, light], ["dark", "light"])
    >>> list(map(str, model.predict([light + 5])))
    ['light']
    """

    def __init__(
        self,
        model: str | Backend = DEFAULT_MODEL,
        *,
        device: str = "auto",
        n_threads: int | None = None,
        batch_size: int = BATCH_SIZE,
        on_error: str = "raise",
    ) -> None:
        self.model = model
        self.device = device
        self.n_threads = n_threads
        self.batch_size = batch_size
        self.on_error = on_error

    def fit(self, X: Sequence[Any], y: Any = None) -> "ImageEmbeddingTransformer":
        """Check the parameters; `X` is not used."""
        if self.on_error not in ("raise", "nan"):
            raise InvalidParameterError(f"on_error is {self.on_error!r}; it must be 'raise' or 'nan'")
        spec = find_model(self.model).spec if isinstance(self.model, str) else self.model.spec
        self.n_features_out_ = spec.dim
        return self

    def transform(self, X: Sequence[Any]) -> NDArray[np.float32]:
        """Embed images.

        Parameters
        ----------
        X : sequence of path, PIL image, uint8 array or bytes, length n
            One image each.

        Returns
        -------
        ndarray of shape (n, dim), float32
            In the order of `X`.
        """
        self.fit(X)
        images = list(X)
        embedder = Embedder(
            self.model,
            device=self.device,
            n_threads=self.n_threads,
            batch_size=self.batch_size,
            progress=False,
        )
        result = embedder.embed(images, on_error="raise" if self.on_error == "raise" else "record")
        if len(result.vectors) + len(result.failed) != len(images):
            raise InvalidParameterError("X contains a folder or an archive; each element must be one image")
        vectors = np.full((len(images), self.n_features_out_), np.nan, np.float32)
        vectors[result.positions] = result.vectors
        return vectors

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Return a name for each component of the vectors."""
        self.fit([])
        return np.array([f"embedding{i}" for i in range(self.n_features_out_)], dtype=object)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.requires_fit = False
        return tags
