"""What every estimator of `nearsight.estimators` must do. Subclass it, and give a fixture `estimator`."""

import inspect
import pickle
from typing import Any, ClassVar

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.utils.estimator_checks import check_estimator

rng = np.random.default_rng(11)
#: 60 unit vectors in three groups, as embeddings are.
CENTERS = rng.normal(size=(3, 16))
X = (np.repeat(CENTERS, 20, axis=0) + 0.2 * rng.normal(size=(60, 16))).astype(np.float32)
X /= np.linalg.norm(X, axis=1, keepdims=True)
Y = np.repeat(["cat", "dog", "emu"], 20)


class EstimatorConformance:
    """One promise of an estimator per test."""

    #: scikit-learn's checks that this estimator cannot pass, each with its reason.
    expected_failed_checks: ClassVar[dict[str, str]] = {}
    #: Fewer rows than this are refused with a message that says how many are needed.
    least_rows = 1
    #: Whether `fit` takes labels.
    supervised = False

    def fit(self, estimator: Any, X: np.ndarray, y: np.ndarray | None = None) -> Any:
        """Fit as a user would."""
        return estimator.fit(X, Y[: len(X)] if y is None else y) if self.supervised else estimator.fit(X)

    def answers(self, estimator: Any, X: np.ndarray) -> np.ndarray:
        """Return what the fitted estimator says of rows, as one array."""
        for method in ("predict_proba", "score_samples", "transform", "predict"):
            if hasattr(estimator, method):
                return np.asarray(getattr(estimator, method)(X))
        return np.asarray(estimator.labels_)

    def test_scikit_learns_own_checks(self, estimator: BaseEstimator) -> None:
        check_estimator(estimator, expected_failed_checks=self.expected_failed_checks, on_skip=None)

    def test_parameters_are_keyword_only_and_stored_as_they_come(self, estimator: BaseEstimator) -> None:
        kinds = [p.kind for name, p in inspect.signature(type(estimator).__init__).parameters.items()][1:]
        assert set(kinds) <= {inspect.Parameter.KEYWORD_ONLY}
        assert vars(estimator) == estimator.get_params(deep=False)

    def test_the_same_data_give_the_same_answers(self, estimator: BaseEstimator) -> None:
        first, second = (self.answers(self.fit(clone(estimator), X), X) for _ in range(2))
        np.testing.assert_array_equal(first, second)

    def test_survives_pickling(self, estimator: BaseEstimator) -> None:
        fitted = self.fit(estimator, X)
        again = pickle.loads(pickle.dumps(fitted))
        np.testing.assert_array_equal(self.answers(fitted, X), self.answers(again, X))

    def test_does_not_change_what_it_is_given(self, estimator: BaseEstimator) -> None:
        given = X.copy()
        given.flags.writeable = False
        self.answers(self.fit(estimator, given), given)
        np.testing.assert_array_equal(given, X)

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_refuses_numbers_that_are_not_finite(self, estimator: BaseEstimator, bad: float) -> None:
        spoiled = X.copy()
        spoiled[7, 3] = bad
        with pytest.raises(ValueError, match="NaN|nan|inf"):
            self.fit(estimator, spoiled)

    @pytest.mark.parametrize("n", [0, 1, 2])
    def test_few_rows_are_enough_or_refused_by_number(self, estimator: BaseEstimator, n: int) -> None:
        few = X[::30][:n]
        if n < self.least_rows:
            with pytest.raises(ValueError, match=r"\d"):
                self.fit(estimator, few, Y[::30][:n])
        else:
            assert len(self.answers(self.fit(estimator, few, Y[::30][:n]), few)) == n

    def test_duplicate_rows_are_nothing_special(self, estimator: BaseEstimator) -> None:
        doubled = np.concatenate([X, X[:20]])
        found = self.answers(self.fit(estimator, doubled, np.concatenate([Y, Y[:20]])), doubled)
        assert len(found) == 80
        if found.dtype.kind == "f":
            assert not np.isnan(found).any()

    def test_rows_that_are_all_the_same(self, estimator: BaseEstimator) -> None:
        same = np.repeat(X[:1], 30, axis=0)
        found = self.answers(self.fit(estimator, same, Y[:60:2]), same)
        assert len(found) == 30
        if found.dtype.kind == "f":
            assert not np.isnan(found).any()
