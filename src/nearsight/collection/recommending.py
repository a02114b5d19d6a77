"""Recommends pictures of a collection: lookalikes, and what is bought together."""

import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import numpy as np
from scipy import sparse

from nearsight.collection.rows import Item
from nearsight.collection.view import View, gather
from nearsight.errors import InvalidParameterError, UnknownIdError
from nearsight.tasks.recommend import Reason, Recommender, diversify

# Of how many times as many pictures as are asked for a varied list is made.
_POOL = 10


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One picture that is recommended.

    Attributes
    ----------
    id, path : str
    score : float
        With baskets: the chance, in 0..1, that it is the next item of the basket. Without: the largest
        cosine to a picture of the history. Higher is better.
    why : str
        The evidence in words, what counts most first.
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
        Baskets that hold a picture of the collection.
    unknown : dict of str to int
        What baskets name and no single picture answers to, and in how many lines.
    learnt : bool
        Whether what counts how much was learnt from the baskets; they were too few otherwise.
    twins_together : float or None
        How often pictures that look much alike are bought together, over how often any two are: above 1
        they complement each other, below 1 they replace each other.
    """

    items: list[Suggestion]
    n_baskets: int = 0
    unknown: dict[str, int] = field(default_factory=dict)
    learnt: bool = False
    twins_together: float | None = None


class Names:
    """Finds pictures by id, path, the end of a path, file name, or file name without its ending.

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
        """Return the ids of the pictures that answer to a name; the first of the five ways that finds any."""
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


class Catalogue:
    """Pictures with what baskets tell of them, for any number of questions. See `Collection.catalogue`."""

    def __init__(
        self,
        view: View,
        baskets: Mapping[str, Sequence[str]],
        *,
        random_state: int = 0,
        progress: bool | None = None,
    ) -> None:
        self._view = view
        rows = gather(view)
        self._row = {id: row for row, id in enumerate(rows.ids)}
        self._ids = rows.ids
        self.unknown: dict[str, int] = defaultdict(int)
        lines: list[set[int]] = []
        names = Names(view.items())
        for contents in baskets.values():
            held = set()
            for name in contents:
                found = names.find(name) & self._row.keys()
                if len(found) == 1:
                    held.add(self._row[found.pop()])
                else:
                    self.unknown[name] += 1
            if held:
                lines.append(held)
        if baskets and not lines:
            raise InvalidParameterError(_nothing_known(self.unknown))
        at = np.repeat(np.arange(len(lines)), [len(held) for held in lines])
        columns = np.array([row for held in lines for row in sorted(held)], np.int64)
        self._baskets = sparse.csr_matrix(
            (np.ones(len(at), np.float32), (at, columns)), shape=(len(lines), len(self._ids))
        )
        shown = sys.stderr.isatty() if progress is None else progress
        self.recommender = Recommender(random_state=random_state, progress=shown).fit(
            rows.X, baskets=self._baskets
        )

    def recommend(
        self,
        ids: str | Sequence[str],
        *,
        k: int = 10,
        where: str | None = None,
        diversity: float = 0.0,
        fresh: bool = False,
    ) -> Advice:
        """Return what goes with pictures; see `Collection.recommend`."""
        asked = [self._view.get(id).id for id in _listed(ids)]
        missing = [id for id in asked if id not in self._row]
        if missing:
            raise UnknownIdError(f"picture {missing[0]} came in after this catalogue was made; make it again")
        among = None
        if where is not None:
            allowed = {
                id for batch in self._view.scan(["id"], where) for id in batch.column("id").to_pylist()
            }
            among = np.array([id in allowed for id in self._ids], bool)
        rows = [self._row[id] for id in asked]
        found = self.recommender.recommend(rows, k, among=among, diversity=diversity, fresh=fresh)
        texts = [(self._ids[one.item], one.score, one.why) for one in found]
        return Advice(
            _suggestions(self._view, texts, self._ids),
            self._baskets.shape[0],
            dict(self.unknown),
            self.recommender.blends_ is not None,
            self.recommender.twins_together_,
        )


def catalogue(
    self: View,
    baskets: Mapping[str, Sequence[str]],
    *,
    random_state: int = 0,
    progress: bool | None = None,
) -> Catalogue:
    """Learn from baskets, once for any number of `Catalogue.recommend`.

    Parameters
    ----------
    baskets : mapping of str to sequence of str
        The items of each basket: ids, paths, ends of paths, file names, or names without their endings (such
        as article numbers). What no single picture answers to is counted in `Catalogue.unknown`.
    random_state : int, default 0
    progress : bool, optional
        Show a progress bar on stderr; by default only when that is a terminal.

    Raises
    ------
    InvalidParameterError
        The baskets name no picture of the collection.

    Notes
    -----
    All vectors are read, 4 bytes a number. For the time see `Recommender.fit`.
    """
    return Catalogue(self, baskets, random_state=random_state, progress=progress)


def recommend(
    self: View,
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
    """Return what looks like pictures, or, with baskets, what is bought with them.

    Parameters
    ----------
    ids : str or sequence of str
        The picture looked at, or a customer's history. Unique starts of ids will do.
    baskets : mapping of str to sequence of str, optional
        See `catalogue`, which saves learning anew for each question.
    k : int, default 10
        At least 1.
    where : str, optional
        Recommend only what matches; all baskets count all the same.
    diversity : float, default 0.0
        In 0..1: how much the list should vary. See `nearsight.tasks.recommend.diversify`.
    fresh : bool, default False
        Whether pictures that no basket has came in after the baskets. Otherwise they were on offer and nobody
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
        No such picture; an expression that is not understood.
    InvalidParameterError
        No ids; the baskets name no picture; `k` or `diversity` is out of range.
    """
    if baskets is not None:
        return catalogue(self, baskets, random_state=random_state, progress=progress).recommend(
            ids, k=k, where=where, diversity=diversity, fresh=fresh
        )
    if k < 1:
        raise InvalidParameterError(f"k is {k}; it must be at least 1")
    history = list(dict.fromkeys(self.get(id).id for id in _listed(ids)))
    best: dict[str, tuple[float, int]] = {}
    for number, vector in enumerate(self.vectors(history)):
        for match in self.search_vector(vector, k=k * _POOL + len(history), where=where):
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
        raise InvalidParameterError("no id is given; name at least one picture")
    return asked


def _suggestions(
    view: View, found: Sequence[tuple[str, float, Sequence[Reason]]], ids: Sequence[str]
) -> list[Suggestion]:
    """Put reasons into words, with the pictures' file names, without their endings."""
    told = {
        ids[i] for _, _, why in found for r in why for i in (r.item, r.stand_in, r.lookalike) if i is not None
    }
    wanted = sorted(told | {id for id, _, _ in found})
    items: dict[str, Item] = {}
    # A few at a time, so that the expression stays short.
    for at in range(0, len(wanted), 100):
        listed = ", ".join(f"'{id}'" for id in wanted[at : at + 100])
        items |= {item.id: item for item in view.items(f"id IN ({listed})")}

    def name(row: int) -> str:
        item = items.get(ids[row])
        return (PurePath(item.path).stem if item else "") or ids[row][:12]

    return [
        Suggestion(id, items[id].path, score, "; ".join(r.text(name) for r in why), items[id].metadata)
        for id, score, why in found
        if id in items
    ]


def _nothing_known(unknown: Mapping[str, int]) -> str:
    some = ", ".join(repr(name) for name in list(unknown)[:3])
    return (
        f"the baskets name no picture of this collection, but {some}; name items by id, path or file name,"
        " as nearsight ls shows them"
    )
