"""Recommends images of a collection: lookalikes, and what is bought together."""

import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from nearsight.artifacts import read_artifact, write_artifact
from nearsight.collection import Collection
from nearsight.collection.arrays import items_by_id, read_vectors
from nearsight.collection.schema import Item
from nearsight.errors import InvalidParameterError, UnknownIdError
from nearsight.estimators.recommendation import Reason, Recommender, diversify
from nearsight.models import Fingerprint

# Of how many times as many images as are asked for a varied list is made.
_POOL = 10
_KIND, _FORMAT = "catalogue", 1
# Characters of a name that a reason has room for.
_NAME = 24


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One image that is recommended.

    Attributes
    ----------
    id, path : str
    score : float
        With baskets: the chance, in 0..1, that it is the next item of the basket. Without: the largest
        cosine to an image of the history. Higher is better.
    why : str
        The evidence in words, what counts most first; files by their names without endings, long ones
        without their middle.
    metadata : dict
        What the user attached.
    """

    id: str
    path: str
    score: float
    why: str
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Advice:
    """What is recommended, and what it rests on.

    Attributes
    ----------
    items : list of Suggestion
        The best first.
    n_baskets : int
        Baskets that hold an image of the collection.
    unknown : dict of str to int
        What baskets name and no single image answers to, and in how many lines.
    learned : bool
        Whether what counts how much was learned from the baskets; they were too few otherwise.
    twins_together : float or None
        How often images that look much alike are bought together, over how often any two are: above 1
        they complement each other, below 1 they replace each other.
    n_new : int
        Images that came in after this was learned, and cannot be recommended.
    """

    items: list[Suggestion]
    n_baskets: int = 0
    unknown: dict[str, int] = field(default_factory=dict)
    learned: bool = False
    twins_together: float | None = None
    n_new: int = 0


class ImageLookup:
    """Finds images by id, path, the end of a path, file name, or file name without its ending.

    Parameters
    ----------
    items : iterable of Item
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self._paths: dict[str, str] = {}
        self._names: dict[str, set[tuple[str, str]]] = defaultdict(set)
        self.ids: set[str] = set()
        for item in items:
            self.ids.add(item.id)
            for path in item.paths:
                self._paths[path] = item.id
                name = PurePath(path).name
                for key in {name, PurePath(name).stem}:
                    self._names[key].add((path, item.id))

    def find(self, name: str) -> set[str]:
        """Return the ids of the images that answer to a name; the first of the five ways that finds any."""
        if name in self.ids:
            return {name}
        if name in self._paths:
            return {self._paths[name]}
        called = self._names.get(PurePath(name).name, set())
        if len(PurePath(name).parts) > 1:
            return {
                id
                for path, id in called
                if PurePath(path).parts[-len(PurePath(name).parts) :] == PurePath(name).parts
            }
        whole = {id for path, id in called if PurePath(path).name == name}
        return whole or {id for _, id in called}


class Catalog:
    """Images with what baskets tell of them, for any number of questions. See `Collection.catalog`.

    Attributes
    ----------
    recommender : Recommender
        Fitted.
    n_baskets : int
        Baskets that hold an image of the collection.
    unknown : dict of str to int
        What baskets name and no single image answers to, and in how many lines.
    n_new : int
        Images of the collection that came in after this was learned: they are not recommended.
    """

    def __init__(
        self, view: Collection, ids: list[str], recommender: Recommender, unknown: dict[str, int]
    ) -> None:
        self._view, self._ids = view, ids
        self._row = {id: row for row, id in enumerate(ids)}
        self._is_here = np.ones(len(ids), bool)
        self.recommender, self.unknown = recommender, unknown
        self.n_baskets = int(recommender.baskets_.shape[0])  # type: ignore[union-attr]  # there are some
        self.n_new = 0

    def save(self, file: str | Path) -> None:
        """Write to one ``.npz`` what `Collection.load_catalog` needs to answer the same; no pickle.

        Vectors stay with the collection. The file grows with the baskets, some 2 kB an image, and up to
        4,000 bought images with the square of their number, 128 MB at most.

        Raises
        ------
        StorageError
            The disk refuses.
        """
        facts, arrays = self.recommender.state()
        del arrays["X"]
        about = {
            "fingerprint": self._view.fingerprint.to_dict(),
            "unknown": self.unknown,
            "recommender": facts,
        }
        write_artifact(Path(file), _KIND, _FORMAT, about, {"ids": np.array(self._ids, dtype="S32"), **arrays})

    @classmethod
    def load(cls, view: Collection, file: str | Path) -> "Catalog":
        """Read what `save` wrote; see `Collection.load_catalog`."""
        remedy = "learn one: nearsight recommend --baskets CSV --to FILE"
        with read_artifact(Path(file), _KIND, _FORMAT, error=InvalidParameterError, remedy=remedy) as (
            about,
            arrays,
        ):
            fingerprint = Fingerprint.from_dict(about["fingerprint"])
            fingerprint.require_same(view.fingerprint, f"{file}", _again(remedy))
            ids: list[str] = np.char.decode(arrays["ids"], "ascii").tolist()
            X, is_here, n_new = _vectors(view, ids)
            if not is_here.any():
                raise InvalidParameterError(
                    f"none of the {len(ids)} images that {file} knows is in {view.directory}; {remedy}"
                )
            recommender = Recommender.from_state(about["recommender"], {**arrays, "X": X})
            found = cls(view, ids, recommender, about["unknown"])
        found._is_here, found.n_new = is_here, n_new
        return found

    def recommend(
        self,
        ids: str | Sequence[str],
        *,
        k: int = 10,
        where: str | None = None,
        diversity: float = 0.0,
        fresh: bool = False,
    ) -> Advice:
        """Return what goes with images; see `Collection.recommend`."""
        asked = [self._view.get(id).id for id in _listed(ids)]
        missing = [id for id in asked if id not in self._row]
        if missing:
            raise UnknownIdError(f"image {missing[0]} came in after this catalog was made; make it again")
        among = self._is_here
        if where is not None:
            allowed = {
                id
                for batch in self._view.iter_batches(["id"], where)
                for id in batch.column("id").to_pylist()
            }
            among = among & np.array([id in allowed for id in self._ids], bool)
        rows = [self._row[id] for id in asked]
        found = self.recommender.recommend(rows, k, among=among, diversity=diversity, fresh=fresh)
        texts = [(self._ids[one.item], one.score, one.why) for one in found]
        return replace(self.nothing(), items=_suggestions(self._view, texts, self._ids))

    def nothing(self) -> Advice:
        """Return no suggestions, and what all of them would rest on."""
        return Advice(
            [],
            self.n_baskets,
            dict(self.unknown),
            self.recommender.blends_ is not None,
            self.recommender.twins_together_,
            self.n_new,
        )


def catalog(
    self: Collection,
    baskets: Mapping[str, Sequence[str]],
    *,
    random_state: int = 0,
    progress: bool | None = None,
) -> Catalog:
    """Learn from baskets, once for any number of `Catalog.recommend`; `Catalog.save` keeps it.

    Parameters
    ----------
    baskets : mapping of str to sequence of str
        The items of each basket: ids, paths, ends of paths, file names, or names without their endings (such
        as article numbers). What no single image answers to is counted in `Catalog.unknown`.
    random_state : int, default 0
    progress : bool, optional
        Show a progress bar on stderr; by default only when that is a terminal.

    Raises
    ------
    InvalidParameterError
        The baskets name no image of the collection.

    Notes
    -----
    All vectors are read, 4 bytes a number. For the time see `Recommender.fit`.
    """
    rows = read_vectors(self)
    row = {id: at for at, id in enumerate(rows.ids)}
    unknown: dict[str, int] = defaultdict(int)
    lines: list[set[int]] = []
    names = ImageLookup(self.items())
    for contents in baskets.values():
        held = set()
        for name in contents:
            found = names.find(name) & row.keys()
            if len(found) == 1:
                held.add(row[found.pop()])
            else:
                unknown[name] += 1
        if held:
            lines.append(held)
    if baskets and not lines:
        raise InvalidParameterError(_nothing_known(unknown))
    at = np.repeat(np.arange(len(lines)), [len(held) for held in lines])
    columns = np.array([item for held in lines for item in sorted(held)], np.int64)
    matrix = sparse.csr_matrix(
        (np.ones(len(at), np.float32), (at, columns)), shape=(len(lines), len(rows.ids))
    )
    shown = sys.stderr.isatty() if progress is None else progress
    recommender = Recommender(random_state=random_state, progress=shown).fit(rows.X, baskets=matrix)
    return Catalog(self, rows.ids, recommender, dict(unknown))


def load_catalog(self: Collection, file: str | Path) -> Catalog:
    """Return what `Catalog.save` kept, with the vectors of this collection; it gives the same answers.

    Images that were removed since are not recommended, and baskets of theirs still count. Those that came
    in since are counted in `Catalog.n_new`.

    Raises
    ------
    InvalidParameterError
        There is no such file, it is another, or knows no image of this collection.
    NewerFormatError
        A newer nearsight wrote it.
    FingerprintMismatchError
        It was learned on vectors that cannot be compared with these.

    Notes
    -----
    All vectors are read, 4 bytes a number.
    """
    return Catalog.load(self, file)


def _vectors(view: Collection, ids: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_], int]:
    """Return vectors in the order of ids, zeros for what is gone; what is there; and how many others are."""
    rows = read_vectors(view)
    if rows.ids == list(ids):
        return rows.X, np.ones(len(ids), bool), 0
    row = {id: at for at, id in enumerate(rows.ids)}
    at = np.array([row.get(id, -1) for id in ids], np.intp)
    X = np.zeros((len(ids), view.spec.dim), np.float32)
    X[at >= 0] = rows.X[at[at >= 0]]
    return X, at >= 0, len(rows) - int((at >= 0).sum())


def _again(remedy: str) -> str:
    return remedy[0].upper() + remedy[1:]


def recommend(
    self: Collection,
    ids: str | Sequence[str],
    *,
    baskets: Mapping[str, Sequence[str]] | None = None,
    k: int = 10,
    where: str | None = None,
    diversity: float = 0.0,
    fresh: bool = False,
    random_state: int = 0,
    progress: bool | None = None,
) -> Advice:
    """Return what looks like images, or, with baskets, what is bought with them.

    Parameters
    ----------
    ids : str or sequence of str
        The image looked at, or a customer's history. Unique starts of ids will do.
    baskets : mapping of str to sequence of str, optional
        See `catalog`, which saves learning anew for each question.
    k : int, default 10
        At least 1.
    where : str, optional
        Recommend only what matches; all baskets count all the same.
    diversity : float, default 0.0
        In 0..1: how much the list should vary. See `nearsight.estimators.recommendation.diversify`.
    fresh : bool, default False
        Whether images that no basket has came in after the baskets. Otherwise they were on offer and nobody
        took them, and they come after what was taken.
    random_state : int, default 0
    progress : bool, optional
        Show a progress bar on stderr; by default only when that is a terminal.

    Returns
    -------
    Advice

    Raises
    ------
    UnknownIdError, FilterError
        No such image; an expression that is not understood.
    InvalidParameterError
        No ids; the baskets name no image; `k` or `diversity` is out of range.

    Notes
    -----
    Without baskets, it costs one search for each image asked about, and memory for what they find. The
    only image of a collection has nothing to go with it, two have each other, and images that are all
    the same have a similarity of 1.
    """
    if baskets is not None:
        made = catalog(self, baskets, random_state=random_state, progress=progress)
        return made.recommend(ids, k=k, where=where, diversity=diversity, fresh=fresh)
    if k < 1:
        raise InvalidParameterError(f"k is {k}; it must be at least 1")
    history = list(dict.fromkeys(self.get(id).id for id in _listed(ids)))
    best: dict[str, tuple[float, int]] = {}
    for number, vector in enumerate(self.vectors(history)):
        for match in self.search(vector=vector, k=k * _POOL + len(history), where=where):
            if match.id not in history and match.similarity > best.get(match.id, (-np.inf, 0))[0]:
                best[match.id] = (match.similarity, number)
    pool = sorted(best, key=lambda id: -best[id][0])[: k * _POOL]
    order = diversify([best[id][0] for id in pool], self.vectors(pool), k, diversity=diversity)
    reasons = [
        (
            pool[i],
            best[pool[i]][0],
            (Reason("similarity", item=best[pool[i]][1], similarity=best[pool[i]][0]),),
        )
        for i in order
    ]
    return Advice(_suggestions(self, reasons, history))


def _listed(ids: str | Sequence[str]) -> list[str]:
    asked = [ids] if isinstance(ids, str) else list(ids)
    if not asked:
        raise InvalidParameterError("no id is given; name at least one image")
    return asked


def _suggestions(
    view: Collection, found: Sequence[tuple[str, float, Sequence[Reason]]], ids: Sequence[str]
) -> list[Suggestion]:
    """Put reasons into words, with the images' file names, without their endings."""
    told = {
        ids[i] for _, _, why in found for r in why for i in (r.item, r.stand_in, r.lookalike) if i is not None
    }
    wanted = sorted(told | {id for id, _, _ in found})
    items = items_by_id(view, wanted)

    def name(row: int) -> str:
        item = items.get(ids[row])
        return _short((PurePath(item.path).stem if item else "") or ids[row][:12])

    return [
        Suggestion(id, items[id].path, score, "; ".join(r.text(name) for r in why), items[id].metadata)
        for id, score, why in found
        if id in items
    ]


def _short(name: str) -> str:
    """Leave out the middle of a name that would be most of the sentence, such as 36 digits."""
    return name if len(name) <= _NAME else f"{name[: _NAME // 2]}…{name[-_NAME // 4 :]}"


def _nothing_known(unknown: Mapping[str, int]) -> str:
    some = ", ".join(repr(name) for name in list(unknown)[:3])
    return (
        f"the baskets name no image of this collection, but {some}; name items by id, path or file name,"
        " as nearsight ls shows them"
    )
