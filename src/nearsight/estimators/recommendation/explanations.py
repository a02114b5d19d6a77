"""The reasons of a recommendation, in words for a customer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from nearsight.estimators.recommendation.signals import Signals

Kind = Literal["together", "lookalike", "popularity", "similarity"]


@dataclass(frozen=True, slots=True)
class Reason:
    """One piece of evidence.

    Attributes
    ----------
    kind : {"together", "lookalike", "popularity", "similarity"}
    item : int or None
        The item of the history that the reason refers to.
    stand_in : int or None
        A lookalike of `item`, whose baskets count because nobody has bought `item`.
    lookalike : int or None
        A lookalike of the recommended item, whose baskets count for it.
    times, of : int
        In `times` of `of` baskets: those of `item` or its stand-in, or all without an item.
    similarity : float or None
        Cosine to `item`.
    lift : float or None
        How often the two are bought together, over how often they would be by chance: 1 is no relation.
    """

    kind: Kind
    item: int | None = None
    stand_in: int | None = None
    lookalike: int | None = None
    times: int = 0
    of: int = 0
    similarity: float | None = None
    lift: float | None = None

    def text(self, name: Callable[[int], str]) -> str:
        """Return the reason in words.

        Parameters
        ----------
        name : callable
            From an item to what people call it.

        Examples
        --------
        >>> names = ["bread", "butter", "margarine"].__getitem__
        >>> Reason("together", item=0, times=12, of=40).text(names)
        'bought with bread in 12 of its 40 baskets'
        >>> Reason("lookalike", item=0, lookalike=1, times=12, of=40).text(names)
        'looks like butter, which is bought with bread in 12 of its 40 baskets'
        """
        if self.kind == "similarity" and self.item is not None:
            return f"looks like {name(self.item)} (similarity {self.similarity:.2f})"
        if self.item is None:
            if not self.times:
                return "in no basket so far"
            return f"in {self.times} of all {self.of} baskets" if self.of > 1 else "in the only basket"
        own = self.item if self.stand_in is None else self.stand_in
        text = f"bought with {name(own)} in {self.times} of its {self.of} baskets"
        if self.stand_in is not None:
            text += f", and {name(self.stand_in)} looks like {name(self.item)}"
        return text if self.lookalike is None else f"looks like {name(self.lookalike)}, which is {text}"


def reasons(
    item: int, history: NDArray[np.int64], signals: Signals, baskets: sparse.csc_matrix
) -> dict[Kind, Reason]:
    """Return the reasons for an item by kind; kinds that do not apply are left out.

    Two items look alike if `Signals.similar_above` is exceeded. An item
    that nobody has bought has only its visual neighbors, however far they are.
    """
    result: dict[Kind, Reason] = {}
    pairs = [
        (int(h), None if signals.bought[h] else int(s))
        for h in history
        for s in ([h] if signals.bought[h] else _row(signals.stand_ins, int(h)))
    ]
    direct = _strongest(item, None, pairs, signals, baskets)
    if direct:
        result["together"] = direct
    similar = [
        _strongest(item, int(m), pairs, signals, baskets)
        for m in _row(signals.stand_ins, item)
        if not signals.bought[item] or signals.X[m] @ signals.X[item] > signals.similar_above
    ]
    bridges = [reason for reason in similar if reason is not None]
    if bridges:
        # The most similar one, unless another is bought together with the history more often.
        result["lookalike"] = max(bridges, key=lambda reason: _weight(reason, item, signals))
    if signals.bought[item]:
        result["popularity"] = Reason("popularity", times=int(signals.bought[item]), of=baskets.shape[0])
    cosines = signals.X[history] @ signals.X[item]
    if cosines.max() > signals.similar_above:
        best = int(np.argmax(cosines))
        result["similarity"] = Reason(
            "similarity", item=int(history[best]), similarity=min(1.0, float(cosines[best]))
        )
    return result


def _strongest(
    item: int,
    lookalike: int | None,
    pairs: list[tuple[int, int | None]],
    signals: Signals,
    baskets: sparse.csc_matrix,
) -> Reason | None:
    """Return the item of the history that is most strongly bought together with `item` or its lookalike."""
    target = item if lookalike is None else lookalike
    drawing = [
        (signals.related[h if s is None else s, target], h, s) for h, s in pairs if target not in (h, s)
    ]
    strength, h, s = max(drawing, key=lambda candidate: candidate[0], default=(0, 0, None))
    if not strength > 0:
        return None
    own = h if s is None else s
    times = len(np.intersect1d(_column(baskets, own), _column(baskets, target), assume_unique=True))
    return Reason(
        "together" if lookalike is None else "lookalike",
        item=h,
        stand_in=s,
        lookalike=lookalike,
        times=times,
        of=int(signals.bought[own]),
        lift=times * baskets.shape[0] / int(signals.bought[own] * signals.bought[target]),
    )


def _weight(reason: Reason, item: int, signals: Signals) -> float:
    own = reason.item if reason.stand_in is None else reason.stand_in
    weight: float = signals.stand_ins[item, reason.lookalike] * signals.related[own, reason.lookalike]
    return weight


def _row(matrix: sparse.csr_matrix, row: int) -> NDArray[np.int64]:
    columns: NDArray[np.int64] = matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]].astype(np.int64)
    return columns


def _column(matrix: sparse.csc_matrix, column: int) -> NDArray[np.int64]:
    rows: NDArray[np.int64] = matrix.indices[matrix.indptr[column] : matrix.indptr[column + 1]]
    return rows
