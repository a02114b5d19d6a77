"""The weight of each signal, learned from the baskets."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nearsight.estimators.recommendation.signals import FEATURES, Signals
from nearsight.progress import track

# Negatives for each item held out.
_N_NEGATIVES = 10
# The share of items that are hidden as if nobody had bought them, to learn how new items rank.
_HIDDEN_SHARE = 0.2
_FOLDS = 5
# Held-out items that each part of a blend needs; with fewer, fixed weights replace it.
_LEAST_HELD_OUT = 20
# Strengths of the penalty that are tried, as scikit-learn's C.
_PENALTIES = (0.001, 0.03, 1.0)


@dataclass(frozen=True)
class LogisticWeights:
    """A logistic regression on standardized features."""

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    intercept: float

    def parts(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what each feature adds, (m, 6)."""
        parts: NDArray[np.float64] = (features - self.mean) / self.scale * self.coefficients
        return parts

    def to_dict(self) -> dict[str, float]:
        """Return the weight of each feature, in log odds for one standard deviation."""
        return {name: round(float(c), 4) for name, c in zip(FEATURES, self.coefficients, strict=True)}

    def state(self) -> dict[str, Any]:
        """Return plain data for a file; see `from_state`."""
        lists = {name: getattr(self, name).tolist() for name in ("mean", "scale", "coefficients")}
        return {**lists, "intercept": self.intercept}

    @classmethod
    def from_state(cls, facts: Mapping[str, Any]) -> "LogisticWeights":
        """Return the object that `state` was called on."""
        mean, scale, coefficients = (
            np.array(facts[name], np.float64).reshape(len(FEATURES))
            for name in ("mean", "scale", "coefficients")
        )
        return cls(mean, scale, coefficients, float(facts["intercept"]))


@dataclass(frozen=True)
class Blend:
    """The weights of signals, for items that have been bought and for items that have not.

    Attributes
    ----------
    bought, new : LogisticWeights
    rarity : float
        Log of how much rarer than others an item is that was on offer but is in no basket; at most 0.
    """

    bought: LogisticWeights
    new: LogisticWeights
    rarity: float = 0.0

    def state(self) -> dict[str, Any]:
        """Return plain data for a file; see `from_state`."""
        return {"bought": self.bought.state(), "new": self.new.state(), "rarity": self.rarity}

    @classmethod
    def from_state(cls, facts: Mapping[str, Any]) -> "Blend":
        """Return the object that `state` was called on."""
        bought, new = LogisticWeights.from_state(facts["bought"]), LogisticWeights.from_state(facts["new"])
        return cls(bought, new, float(facts["rarity"]))

    def parts(self, features: NDArray[np.float64], bought: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return what each feature adds to the log odds of an item, (m, 6)."""
        return np.where(bought[:, None], self.bought.parts(features), self.new.parts(features))

    def probabilities(
        self, features: NDArray[np.float64], bought: NDArray[np.bool_], *, include_new_items: bool
    ) -> NDArray[np.float64]:
        """Return the probability that an item is the next of its basket, (m,); see `Recommender.scores`."""
        new = self.new.intercept if include_new_items else self.new.intercept + self.rarity
        intercept = np.where(bought, self.bought.intercept, new)
        probabilities: NDArray[np.float64] = 1 / (
            1 + np.exp(-(self.parts(features, bought).sum(axis=1) + intercept))
        )
        return probabilities


@dataclass
class _Examples:
    """Candidates, whether each was the one held out, and the basket it came from.

    Attributes
    ----------
    n_others : int
        Items that those held out compete with, all together.
    n_unseen, n_chances : int
        Items held out that no basket that taught has, and how many there could have been.
    """

    features: list[NDArray[np.float64]] = field(default_factory=list)
    held_out: list[NDArray[np.bool_]] = field(default_factory=list)
    bought: list[NDArray[np.bool_]] = field(default_factory=list)
    basket: list[NDArray[np.int64]] = field(default_factory=list)
    n_others: int = 0
    n_unseen: int = 0
    n_chances: int = 0


def fit_blends(
    baskets: sparse.csr_matrix,
    compute_signals: Callable[[sparse.csr_matrix], Signals],
    *,
    n_examples: int,
    random_state: int,
    progress: bool | None = False,
) -> dict[str, Blend] | None:
    """Learn the weights of signals, for histories of one item ("item") and for longer ones ("history").

    *Method*: leave one out. In each of five folds, signals are computed from the baskets of the other folds,
    of which a fifth of the items are hidden, as if nobody had bought them. One item of a basket is held out;
    the rest of the basket, or one item of it, is the history. Ten random items that are not in the basket are
    the negatives. A logistic regression is fitted, its penalty chosen by three-fold cross-validation over
    baskets; the intercept is corrected for the items that were not drawn (King and Zeng 2001, section 4.1),
    so that a score is the probability to be the next item of the basket. The rarity of items that were on
    offer but never bought is counted in the same folds, on items that the other baskets do not have.

    Parameters
    ----------
    baskets : sparse matrix of shape (n_baskets, n_items)
    compute_signals : callable
        From baskets to signals.
    n_examples : int
        Held-out items at most, for each kind of history.
    random_state : int
    progress : bool
        Whether progress is shown on stderr.

    Returns
    -------
    dict of str to Blend, or None
        None if there are too few baskets: fewer than 5 of two items, or fewer than 20 held-out items
        among the bought or the hidden ones.
    """
    usable = np.flatnonzero(np.diff(baskets.indptr) >= 2)
    if len(usable) < _FOLDS:
        return None
    rng = np.random.default_rng(random_state)
    examples = {"item": _Examples(), "history": _Examples()}
    in_stock = is_bought(baskets)
    folds = list(KFold(_FOLDS, shuffle=True, random_state=random_state).split(usable))
    for rest, fold in track(folds, "learning from baskets", unit="folds", progress=progress):
        hidden = rng.random(baskets.shape[1]) < _HIDDEN_SHARE
        shown = (baskets[usable[rest]] @ sparse.diags((~hidden).astype(np.float32))).tocsr()
        shown.eliminate_zeros()
        held_out = list(_held_out(baskets, usable[fold], n_examples // _FOLDS, rng))
        _add(examples, held_out, compute_signals(shown), in_stock, rng)
        unseen = ~is_bought(baskets[usable[rest]])
        for collected in examples.values():
            collected.n_unseen += sum(bool(unseen[target]) for _, target, _ in held_out)
            collected.n_chances += int(unseen.sum()) * len(held_out)
    blends = {kind: _fitted(collected, int(in_stock.sum())) for kind, collected in examples.items()}
    learned = {kind: blend for kind, blend in blends.items() if blend is not None}
    return learned if len(learned) == len(blends) else None


def _held_out(
    baskets: sparse.csr_matrix, fold: NDArray[np.int64], most: int, rng: np.random.Generator
) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
    """Yield basket, item held out, and the others; every basket equally often as far as it goes."""
    each = max(1, most // max(len(fold), 1))
    for basket in rng.permutation(fold)[:most]:
        items = baskets.indices[baskets.indptr[basket] : baskets.indptr[basket + 1]].astype(np.int64)
        for target in rng.permutation(items)[:each]:
            yield int(basket), int(target), items[items != target]


def _add(
    examples: dict[str, _Examples],
    held_out: list[tuple[int, int, NDArray[np.int64]]],
    signals: Signals,
    in_stock: NDArray[np.bool_],
    rng: np.random.Generator,
) -> None:
    """Add the signals of each item held out, and of random items that are not in its basket."""
    n = len(in_stock)
    against = []
    for _, target, others in held_out:
        drawn = np.unique(rng.integers(n, size=3 * _N_NEGATIVES))
        drawn = drawn[in_stock[drawn] & (drawn != target) & ~np.isin(drawn, others)]
        against.append(np.concatenate([[target], rng.permutation(drawn)[:_N_NEGATIVES]]).astype(np.int64))
    event = np.repeat(np.arange(len(held_out)), [len(candidates) for candidates in against])
    item = np.concatenate([*against, np.empty(0, np.int64)])
    for kind, collected in examples.items():
        histories = [others if kind == "history" else rng.choice(others, 1) for _, _, others in held_out]
        rows = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
        columns = np.concatenate([*histories, np.empty(0, np.int64)])
        held = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), (len(histories), n))
        collected.features.append(signals.features_of(held, event, item))
        collected.held_out.append(item == np.array([target for _, target, _ in held_out])[event])
        collected.bought.append(signals.bought[item] > 0)
        collected.basket.append(np.array([basket for basket, _, _ in held_out])[event])
        collected.n_others += sum(n - len(others) - 1 for _, _, others in held_out)


def is_bought(baskets: sparse.csr_matrix) -> NDArray[np.bool_]:
    """Return which items are in any basket."""
    counts: NDArray[np.bool_] = np.bincount(baskets.indices, minlength=baskets.shape[1]) > 0
    return counts


def _fitted(examples: _Examples, n_in_stock: int) -> Blend | None:
    features, held_out = np.concatenate(examples.features), np.concatenate(examples.held_out)
    bought = np.concatenate(examples.bought)
    basket = np.concatenate(examples.basket)
    # Only some of the items that a held-out one competes with were drawn.
    drawn = (~held_out).sum() / max(examples.n_others, 1)
    halves = [_weights(features[of], held_out[of], basket[of], drawn) for of in (bought, ~bought)]
    if halves[0] is None or halves[1] is None:
        return None
    # The frequency of an item that was on offer but in no basket so far, over that of any other.
    rarity = np.log((examples.n_unseen + 0.5) / (examples.n_chances + 0.5) * n_in_stock)
    return Blend(halves[0], halves[1], min(0.0, float(rarity)))


def _weights(
    features: NDArray[np.float64], held_out: NDArray[np.bool_], basket: NDArray[np.int64], drawn: float
) -> LogisticWeights | None:
    if (
        held_out.sum() < _LEAST_HELD_OUT
        or (~held_out).sum() < _LEAST_HELD_OUT
        or len(np.unique(basket)) < _FOLDS
    ):
        return None

    def model(penalty: float) -> Any:
        return make_pipeline(StandardScaler(), LogisticRegression(C=penalty, solver="newton-cholesky"))

    folds = list(GroupKFold(3).split(features, groups=basket))
    if all(len(np.unique(held_out[part])) == 2 for fold in folds for part in fold):
        losses = [
            cross_val_score(model(c), features, held_out, cv=folds, scoring="neg_log_loss").mean()
            for c in _PENALTIES
        ]
        chosen = _PENALTIES[int(np.argmax(losses))]
    else:
        chosen = _PENALTIES[0]
    scaler, regression = (step for _, step in model(chosen).fit(features, held_out).steps)
    return LogisticWeights(
        scaler.mean_, scaler.scale_, regression.coef_[0], float(regression.intercept_[0] + np.log(drawn))
    )
