"""Makes a collection of shorter vectors out of one that is there, without embedding anything again."""

from pathlib import Path

from nearsight.collection import Collection
from nearsight.collection.arrays import sample_vectors
from nearsight.errors import InvalidParameterError
from nearsight.models.pca import Projection, fit_projection

# Enough for any sensible dimension: the directions hardly move after some four times as many images.
_MOST_IMAGES = 20_000


def reduce_dim(
    self: Collection,
    dim: int,
    directory: str | Path,
    *,
    storage: str | None = None,
    random_state: int = 0,
) -> Projection:
    """Make a collection of shorter vectors, `dim` numbers each, from the images that are here.

    Everything else of an image comes along. Images can be added to the new collection like to any other:
    they are embedded and projected. It holds its projection itself, so that it can be moved.

    Parameters
    ----------
    dim : int
        At least 1, less than the model's own, and less than there are images.
    directory : path
        Of the new collection: missing or empty.
    storage : {"float32", "float16"}, optional
        What each number is kept as; by default as here.
    random_state : int, default 0
        Chooses the images that the projection is learned on where there are more than 20,000.

    Returns
    -------
    Projection
        What was learned; `variance_kept` says how much of the differences is left.

    Raises
    ------
    InvalidParameterError
        `dim` is out of its range; the message says which there is.
    NotACollectionError
        The directory holds something.
    """
    directory = Path(directory)
    if self.spec.layer.rpartition(" > ")[1]:
        raise InvalidParameterError(
            f"{self.directory} is projected already; project the collection it came from"
        )
    if directory.resolve() == self.directory.resolve():
        raise InvalidParameterError(
            f"{directory} is this collection; choose another directory for the new one"
        )
    sample = sample_vectors(self, _MOST_IMAGES, random_state=random_state)
    projection = fit_projection(sample.X, dim, self.spec)
    self.copy_projected(directory, projection, storage=storage)
    return projection
