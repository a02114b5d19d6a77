"""What to label next: doubtful, representative, and never the same twice."""

from importlib import import_module

import numpy as np
import pytest

from nearsight.errors import InvalidParameterError
from nearsight.estimators.classification import suggest

implementation = import_module("nearsight.estimators.classification.label_suggestions")


def groups(n_each, n=5, d=16, seed=0):
    rng = np.random.default_rng(seed)
    X = np.repeat(rng.normal(size=(n, d)), n_each, axis=0) + 0.1 * rng.normal(size=(n * n_each, d))
    return X, np.repeat(np.arange(n), n_each)


def naive(X, n, doubt, labeled):
    """Facility location by trying every row at every step."""
    X = X / np.linalg.norm(X, axis=1, keepdims=True)
    taken = []
    for _ in range(n):

        def covered(rows):
            near = np.concatenate([labeled, X[rows]])
            return sum(
                d * max(0.0, float((near @ x).max(initial=0.0))) for d, x in zip(doubt, X, strict=True)
            )

        taken.append(max((i for i in range(len(X)) if i not in taken), key=lambda i: covered([*taken, i])))
    return taken


def test_is_what_trying_every_row_finds():
    X, _ = groups(4)
    p = np.random.default_rng(2).dirichlet(np.ones(3), size=len(X))
    labeled = X[:2] / np.linalg.norm(X[:2], axis=1, keepdims=True)
    best = np.sort(p, axis=1)
    doubt = 1 - (best[:, -1] - best[:, -2])
    found = suggest(X, 5, probabilities=p, labeled=labeled)
    assert found.tolist() == naive(X, 5, doubt, labeled)


def test_each_group_once_before_any_twice():
    X, y = groups(20)
    assert set(y[suggest(X, 5)]) == set(range(5))


def test_what_is_labeled_is_not_asked_for_again():
    X, y = groups(20)
    assert set(y[suggest(X[20:], 4, labeled=X[:20])] + 1) == {1, 2, 3, 4}


def test_doubt_decides():
    X, y = groups(20)
    p = np.where((y == 3)[:, None], [[0.5, 0.5]], [[1.0, 0.0]])
    assert y[suggest(X, 1, probabilities=p)[0]] == 3


def test_copies_come_last():
    X, _ = groups(1)
    doubled = np.concatenate([X, X])
    assert sorted(suggest(doubled, 5) % 5) == [0, 1, 2, 3, 4]


def test_few_rows():
    X, _ = groups(1)
    assert suggest(X[:0], 3).tolist() == []
    assert sorted(suggest(X, 99)) == [0, 1, 2, 3, 4]
    assert suggest(np.repeat(X[:1], 4, axis=0), 4).tolist() == [0, 1, 2, 3]
    assert suggest(X, 2, probabilities=np.ones((5, 1))).shape == (2,)


def test_of_many_rows_the_most_doubtful_are_weighed(monkeypatch):
    monkeypatch.setattr(implementation, "_MOST_CANDIDATES", 10)
    X, y = groups(20)
    p = np.where((y == 3)[:, None], [[0.5, 0.5]], [[1.0, 0.0]])
    assert set(y[suggest(X, 10, probabilities=p)]) == {3}
    assert len(set(y[suggest(X, 5)])) == 5
    assert len(suggest(X, 30)) == 30


@pytest.mark.parametrize(
    ("X", "n", "options", "message"),
    [
        ([[1.0, 0.0]], 0, {}, "n is 0"),
        ([1.0], 1, {}, "X has shape"),
        ([[np.nan, 0.0]], 1, {}, "give finite numbers"),
        ([[1.0, 0.0]], 1, {"probabilities": [[0.5], [0.5]]}, "one row for each of 1"),
        ([[1.0, 0.0]], 1, {"labeled": [1.0]}, "labeled has shape"),
    ],
)
def test_bad_questions(X, n, options, message):
    with pytest.raises(InvalidParameterError, match=message):
        suggest(X, n, **options)
