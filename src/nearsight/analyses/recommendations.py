"""Recommends images of a collection: similar ones, or those that are bought together."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import scipy
from numpy.typing import NDArray

from nearsight.analyses.recommended_images import (
    Evidence,
    Recommendations,
    RecommendedImage,
    recommended_images,
    recommended_lists,
)
from nearsight.artifacts import read_artifact, write_artifact
from nearsight.collection import Collection
from nearsight.collection.arrays import image_lookup, read_vectors
from nearsight.errors import InvalidParameterError, UnknownIdError
from nearsight.models import Fingerprint
from nearsight.parameters import require_whole
from nearsight.progress import steps

if TYPE_CHECKING:
    from nearsight.estimators.recommendation import Recommender

# A list is diversified among so many times as many candidates as it has items.
_CANDIDATES_PER_ITEM = 10
# Earlier versions wrote another kind.
_KIND, _FORMER_KIND, _FORMAT = "recommender", "catalogue", 1
_REMEDY = "fit a recommender: nearsight recommend --baskets CSV --to FILE"

__all__ = [
    "Evidence",
    "FittedRecommender",
    "Recommendations",
    "RecommendedImage",
    "RecommenderFacts",
    "fit_recommender",
    "load_recommender",
    "recommend",
    "recommend_similar",
]


class FittedRecommender:
    """A recommender fitted on baskets of a collection's images. See `Collection.fit_recommender`.

    Attributes
    ----------
    recommender : Recommender
        The fitted estimator.
    n_baskets : int
        Baskets that hold an image of the collection.
    unmatched : dict of str to int
        Names in the baskets that match no image or several, and how often each occurs.
    n_new : int
        Images added to the collection after the fit, which are not recommended.
    """

    def __init__(
        self, collection: Collection, ids: list[str], recommender: "Recommender", unmatched: dict[str, int]
    ) -> None:
        self._collection, self._ids = collection, ids
        self._rows = {id: row for row, id in enumerate(ids)}
        self._is_present = np.ones(len(ids), bool)
        self.recommender, self.unmatched = recommender, unmatched
        self.n_baskets = int(recommender.baskets_.shape[0])  # type: ignore[union-attr]  # there are some
        self.n_new = 0

    def save(self, file: str | Path) -> None:
        """Write a ``.npz`` file that `Collection.load_recommender` reads; it holds no pickle.

        Vectors stay in the collection. The file grows with the baskets, by some 2 kB an image, and up to
        4,000 bought images with the square of their number, 128 MB at most.

        Raises
        ------
        StorageError
            The file cannot be written.
        """
        facts, arrays = self.recommender.state()
        del arrays["X"]
        about = {
            "fingerprint": self._collection.fingerprint.to_dict(),
            "unknown": self.unmatched,
            "baskets": self.n_baskets,
            "images": len(self._ids),
            "recommender": facts,
        }
        write_artifact(Path(file), _KIND, _FORMAT, about, {"ids": np.array(self._ids, dtype="S32"), **arrays})

    @classmethod
    def load(cls, collection: Collection, file: str | Path) -> "FittedRecommender":
        """Read a file that `save` wrote; see `Collection.load_recommender`."""
        from nearsight.estimators.recommendation import Recommender

        with read_artifact(
            Path(file),
            _KIND,
            _FORMAT,
            error=InvalidParameterError,
            remedy=_REMEDY,
            former_kind=_FORMER_KIND,
        ) as (about, arrays):
            fingerprint = Fingerprint.from_dict(about["fingerprint"])
            fingerprint.require_same(collection.fingerprint, f"{file}", _REMEDY[0].upper() + _REMEDY[1:])
            ids: list[str] = np.char.decode(arrays["ids"], "ascii").tolist()
            X, is_present, n_new = _vectors_in_order(collection, ids)
            if not is_present.any():
                raise InvalidParameterError(
                    f"none of the {len(ids)} images of {file} is in {collection.uri}; {_REMEDY}"
                )
            recommender = Recommender.from_state(about["recommender"], {**arrays, "X": X})
            fitted = cls(collection, ids, recommender, about["unknown"])
        fitted._is_present, fitted.n_new = is_present, n_new
        return fitted

    @classmethod
    def refitted(cls, collection: Collection, file: str | Path) -> "FittedRecommender":
        """Learn again from the baskets in a file that `save` wrote, by the collection's vectors.

        Raises
        ------
        InvalidParameterError
            None of its images is in the collection.
        """
        from nearsight.estimators.recommendation import Recommender

        with read_artifact(
            Path(file), _KIND, _FORMAT, error=InvalidParameterError, remedy=_REMEDY, former_kind=_FORMER_KIND
        ) as (about, arrays):
            ids: list[str] = np.char.decode(arrays["ids"], "ascii").tolist()
            X, is_present, n_new = _vectors_in_order(collection, ids)
            if not is_present.any():
                raise InvalidParameterError(f"none of its {len(ids)} images is in {collection.directory}")
            former = Recommender.from_state(about["recommender"], {**arrays, "X": X})
            recommender = Recommender(**former.get_params()).fit(X.copy(), baskets=former.baskets_)
            fitted = cls(collection, ids, recommender, about["unknown"])
        fitted._is_present, fitted.n_new = is_present, n_new
        return fitted

    def __contains__(self, id: object) -> bool:
        """Whether the whole id is of an image that was there when this was fitted."""
        return id in self._rows

    def recommend(
        self,
        ids: str | Sequence[str],
        *,
        k: int = 10,
        where: str | None = None,
        diversity: float = 0.0,
        include_new_items: bool = False,
    ) -> Recommendations:
        """Recommend images for one image or for a history; see `Collection.recommend`."""
        history = [self._collection.get(id).id for id in _as_list(ids)]
        missing = [id for id in history if id not in self._rows]
        if missing:
            raise UnknownIdError(
                f"image {missing[0]} was added after the recommender was fitted; fit it again"
            )
        candidates = self._is_present
        if where is not None:
            batches = self._collection.iter_batches(["id"], where)
            matching = {id for batch in batches for id in batch.column("id").to_pylist()}
            candidates = candidates & np.array([id in matching for id in self._ids], bool)
        ranking = self.recommender.recommend(
            [self._rows[id] for id in history],
            k,
            among=candidates,
            diversity=diversity,
            include_new_items=include_new_items,
        )
        explained = [(self._ids[entry.item], entry.score, entry.why) for entry in ranking]
        return replace(self.summary(), items=recommended_images(self._collection, explained, self._ids))

    def summary(self) -> Recommendations:
        """Return what recommendations are based on, without any."""
        return Recommendations(
            [],
            self.n_baskets,
            dict(self.unmatched),
            self.recommender.blends_ is not None,
            self.recommender.similar_pair_lift_,
            self.n_new,
        )


@dataclass(frozen=True)
class RecommenderFacts:
    """What a file of a recommender says of itself, without its arrays.

    Attributes
    ----------
    n_baskets, n_images : int or None
        Baskets that held an image of the collection, and images when it was fitted; None in files of earlier
        versions.
    unmatched, learned, similar_lift
        See `Recommendations`.
    """

    n_baskets: int | None
    n_images: int | None
    unmatched: dict[str, int]
    learned: bool
    similar_lift: float | None

    @classmethod
    def read(cls, file: str | Path) -> "RecommenderFacts":
        """Read the facts that `FittedRecommender.save` wrote.

        Raises
        ------
        InvalidParameterError
            There is no such file, or it is another kind of file.
        """
        with read_artifact(
            Path(file),
            _KIND,
            _FORMAT,
            error=InvalidParameterError,
            remedy=_REMEDY,
            former_kind=_FORMER_KIND,
            only=(),
        ) as (about, _):
            fitted = about["recommender"]
            return cls(
                about.get("baskets"),
                about.get("images"),
                about["unknown"],
                fitted["blends"] is not None,
                fitted["twins_together"],
            )


def fit_recommender(
    collection: Collection,
    baskets: Mapping[str, Sequence[str]],
    *,
    random_state: int = 0,
    progress: bool | None = None,
) -> FittedRecommender:
    """Learn from baskets once, for any number of `FittedRecommender.recommend`.

    *Method*: `estimators.recommendation.Recommender`.

    Parameters
    ----------
    baskets : mapping of str to sequence of str
        The items of each basket: ids, paths, ends of paths, file names, or file names without their endings,
        such as article numbers. Names that match no image or several are counted in `unmatched`.
    random_state : int, default 0
    progress : bool, optional
        Show progress on stderr; by default only where that is a terminal.

    Raises
    ------
    InvalidParameterError
        The baskets name no image of the collection.

    Notes
    -----
    Memory: all vectors, 4 bytes a number. For the time see `Recommender.fit`.
    """
    from nearsight.estimators.recommendation import Recommender

    table = read_vectors(collection)
    rows = {id: row for row, id in enumerate(table.ids)}
    unmatched: dict[str, int] = defaultdict(int)
    contents: list[set[int]] = []
    lookup = image_lookup(collection)
    for names in baskets.values():
        basket = set()
        for name in names:
            matches = lookup.find(name) & rows.keys()
            if len(matches) == 1:
                basket.add(rows[matches.pop()])
            else:
                unmatched[name] += 1
        if basket:
            contents.append(basket)
    if baskets and not contents:
        examples = ", ".join(repr(name) for name in list(unmatched)[:3])
        raise InvalidParameterError(
            f"the baskets name no image of this collection, but {examples}; name items by id, path or file"
            " name, as nearsight ls shows them"
        )
    basket_rows = np.repeat(np.arange(len(contents)), [len(basket) for basket in contents])
    item_columns = np.array([item for basket in contents for item in sorted(basket)], np.int64)
    matrix = scipy.sparse.csr_matrix(
        (np.ones(len(basket_rows), np.float32), (basket_rows, item_columns)),
        shape=(len(contents), len(table.ids)),
    )
    recommender = Recommender(random_state=random_state, progress=progress)
    with steps(2):
        recommender.fit(table.X, baskets=matrix)
    return FittedRecommender(collection, table.ids, recommender, dict(unmatched))


def load_recommender(collection: Collection, file: str | Path) -> FittedRecommender:
    """Read a recommender that `FittedRecommender.save` wrote; it gives the same answers.

    Images that were removed since are not recommended, though their baskets still count. Images that were
    added since are counted in `FittedRecommender.n_new`.

    Raises
    ------
    InvalidParameterError
        There is no such file, it is another kind of file, or it has no image of this collection.
    NewerFormatError
        A newer nearsight wrote it.
    FingerprintMismatchError
        It was fitted on vectors of another model.

    Notes
    -----
    Memory: all vectors, 4 bytes a number.
    """
    return FittedRecommender.load(collection, file)


def recommend(
    collection: Collection,
    ids: str | Sequence[str],
    *,
    baskets: Mapping[str, Sequence[str]] | None = None,
    k: int = 10,
    where: str | None = None,
    diversity: float = 0.0,
    include_new_items: bool = False,
    random_state: int = 0,
    progress: bool | None = None,
) -> Recommendations:
    """Recommend similar images, or, with baskets, images that are bought together.

    Parameters
    ----------
    ids : str or sequence of str
        One image, or a customer's history. The beginning of an id is enough.
    baskets : mapping of str to sequence of str, optional
        What was bought together, see `fit_recommender`, which is faster for several queries.
    k : int, default 10
        Number of recommendations, at least 1.
    where : str, optional
        Recommend only images that match; all baskets still count.
    diversity : float, default 0.0
        In 0..1: how much the list varies. See `nearsight.estimators.recommendation.diversify`.
    include_new_items : bool, default False
        Whether images in no basket are new items. Otherwise they were on offer and nobody bought them, and
        they are ranked last.
    random_state : int, default 0
    progress : bool, optional
        Show progress on stderr; by default only where that is a terminal.

    Returns
    -------
    Recommendations

    Raises
    ------
    UnknownIdError, FilterError
        There is no such image; `where` is not understood.
    InvalidParameterError
        `ids` is empty, the baskets name no image, or `k` or `diversity` is out of its range.

    Notes
    -----
    Without baskets: one search for each image of the history.
    """
    from nearsight.estimators.recommendation import Reason, diversify

    if baskets is not None:
        fitted = fit_recommender(collection, baskets, random_state=random_state, progress=progress)
        return fitted.recommend(
            ids, k=k, where=where, diversity=diversity, include_new_items=include_new_items
        )
    require_whole("k", k)
    history = list(dict.fromkeys(collection.get(id).id for id in _as_list(ids)))
    n_candidates = k * _CANDIDATES_PER_ITEM
    # The highest similarity of each candidate, and the image of the history that it is similar to.
    best: dict[str, tuple[float, int]] = {}
    for number, vector in enumerate(collection.vectors(history)):
        for match in collection.search(vector=vector, k=n_candidates + len(history), where=where):
            if match.id not in history and match.similarity > best.get(match.id, (-np.inf, 0))[0]:
                best[match.id] = (match.similarity, number)
    candidates = sorted(best, key=lambda id: -best[id][0])[:n_candidates]
    similarities = [best[id][0] for id in candidates]
    order = diversify(similarities, collection.vectors(candidates), k, diversity=diversity)
    explained = []
    for id in (candidates[i] for i in order):
        similarity, number = best[id]
        explained.append((id, similarity, (Reason("similarity", item=number, similarity=similarity),)))
    return Recommendations(recommended_images(collection, explained, history))


def recommend_similar(
    collection: Collection,
    ids: Sequence[str],
    *,
    k: int = 10,
    where: str | None = None,
    diversity: float = 0.0,
) -> list[Recommendations]:
    """Recommend similar images for each of several images, as `recommend` does for one after another.

    All are searched for together, and the rows of all recommendations are read at once.

    Parameters
    ----------
    ids : sequence of str
        Whole ids.
    k, where, diversity
        See `recommend`.

    Raises
    ------
    UnknownIdError, FilterError, InvalidParameterError
        See `recommend`.
    """
    from nearsight.estimators.recommendation import Reason, diversify

    require_whole("k", k)
    if not ids:
        return []
    n_candidates = k * _CANDIDATES_PER_ITEM
    lists = []
    found = collection.search_vectors(collection.vectors(ids), k=n_candidates + 1, where=where)
    for number, (id, matches) in enumerate(zip(ids, found, strict=True)):
        candidates = [match for match in matches if match.id != id][:n_candidates]
        # Without diversity, vectors make no difference.
        X = (
            collection.vectors([match.id for match in candidates])
            if diversity
            else np.zeros((len(candidates), 1))
        )
        order = diversify([match.similarity for match in candidates], X, k, diversity=diversity)
        chosen = [candidates[i] for i in order]
        lists.append(
            [
                (
                    match.id,
                    match.similarity,
                    (Reason("similarity", item=number, similarity=match.similarity),),
                )
                for match in chosen
            ]
        )
    return [Recommendations(images) for images in recommended_lists(collection, lists, ids)]


def _vectors_in_order(
    collection: Collection, ids: Sequence[str]
) -> tuple[NDArray[np.float32], NDArray[np.bool_], int]:
    """Return the vectors of `ids` (zeros if removed), which are present, and the number of other images."""
    table = read_vectors(collection)
    if table.ids == list(ids):
        return table.X, np.ones(len(ids), bool), 0
    table_rows = {id: row for row, id in enumerate(table.ids)}
    rows = np.array([table_rows.get(id, -1) for id in ids], np.intp)
    is_present = rows >= 0
    X = np.zeros((len(ids), collection.spec.dim), np.float32)
    X[is_present] = table.X[rows[is_present]]
    return X, is_present, len(table) - int(is_present.sum())


def _as_list(ids: str | Sequence[str]) -> list[str]:
    listed = [ids] if isinstance(ids, str) else list(ids)
    if not listed:
        raise InvalidParameterError("no id is given; name at least one image")
    return listed
