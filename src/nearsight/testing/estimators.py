"""What every estimator of `nearsight.estimators` must do."""

import inspect
import pickle
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.utils.estimator_checks import check_estimator

_rng = np.random.default_rng(11)
#: The centers of three groups of embeddings.
CENTERS = _rng.normal(size=(3, 16))
#: 60 unit vectors in these groups, as embeddings are, and their labels.
X = (np.repeat(CENTERS, 20, axis=0) + 0.2 * _rng.normal(size=(60, 16))).astype(np.float32)
X /= np.linalg.norm(X, axis=1, keepdims=True)
Y = np.repeat(["cat", "dog", "emu"], 20)


class EstimatorTests:
    """Conformance suite of an estimator: one promise per test.

    Subclass it and give a fixture `estimator` that returns an unfitted one.

    Examples
    --------
    >>> import pytest
    >>> from nearsight.estimators.duplicates import NearDuplicates
    >>> from nearsight.testing import EstimatorTests
    >>> class TestNearDuplicates(EstimatorTests):
    ...     @pytest.fixture
    ...     def estimator(self):
    ...         return NearDuplicates()
    """

    #: scikit-learn's checks that this estimator cannot pass, each with its reason.
    expected_failed_checks: ClassVar[dict[str, str]] = {}
    #: Fewer rows are refused with a message that says how many are needed.
    min_rows = 1
    #: Whether `fit` needs labels.
    needs_labels = False

    def fit(self, estimator: Any, X: NDArray[Any], y: NDArray[Any] | None = None) -> Any:
        """Fit as a user would."""
        if not self.needs_labels:
            return estimator.fit(X)
        return estimator.fit(X, Y[: len(X)] if y is None else y)

    def output(self, estimator: Any, X: NDArray[Any]) -> NDArray[Any]:
        """Return the output of the fitted estimator for rows, as one array."""
        for method in ("predict_proba", "score_samples", "transform", "predict"):
            if hasattr(estimator, method):
                return np.asarray(getattr(estimator, method)(X))
        return np.asarray(estimator.labels_)

    def test_scikit_learn_checks_pass(self, estimator: BaseEstimator) -> None:
        check_estimator(estimator, expected_failed_checks=self.expected_failed_checks, on_skip=None)

    def test_parameters_are_keyword_only_and_stored_unchanged(self, estimator: BaseEstimator) -> None:
        kinds = [p.kind for name, p in inspect.signature(type(estimator).__init__).parameters.items()][1:]
        assert set(kinds) <= {inspect.Parameter.KEYWORD_ONLY}
        assert vars(estimator) == estimator.get_params(deep=False)

    def test_the_same_data_give_the_same_output(self, estimator: BaseEstimator) -> None:
        first, second = (self.output(self.fit(clone(estimator), X), X) for _ in range(2))
        np.testing.assert_array_equal(first, second)

    def test_output_survives_pickling(self, estimator: BaseEstimator) -> None:
        fitted = self.fit(estimator, X)
        again = pickle.loads(pickle.dumps(fitted))
        np.testing.assert_array_equal(self.output(fitted, X), self.output(again, X))

    def test_input_is_not_changed(self, estimator: BaseEstimator) -> None:
        rows = X.copy()
        rows.flags.writeable = False
        self.output(self.fit(estimator, rows), rows)
        np.testing.assert_array_equal(rows, X)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_numbers_that_are_not_finite_are_refused(self, estimator: BaseEstimator, value: float) -> None:
        rows = X.copy()
        rows[7, 3] = value
        with pytest.raises(ValueError, match="NaN|nan|inf"):
            self.fit(estimator, rows)

    @pytest.mark.parametrize("n", [0, 1, 2])
    def test_few_rows_are_enough_or_refused_by_number(self, estimator: BaseEstimator, n: int) -> None:
        rows, labels = X[::30][:n], Y[::30][:n]
        if n < self.min_rows:
            with pytest.raises(ValueError, match=r"\d"):
                self.fit(estimator, rows, labels)
        else:
            assert len(self.output(self.fit(estimator, rows, labels), rows)) == n

    def test_duplicate_rows_are_accepted(self, estimator: BaseEstimator) -> None:
        rows, labels = np.concatenate([X, X[:20]]), np.concatenate([Y, Y[:20]])
        output = self.output(self.fit(estimator, rows, labels), rows)
        assert len(output) == 80
        if output.dtype.kind == "f":
            assert not np.isnan(output).any()

    def test_rows_that_are_all_the_same_are_accepted(self, estimator: BaseEstimator) -> None:
        rows = np.repeat(X[:1], 30, axis=0)
        output = self.output(self.fit(estimator, rows, Y[:60:2]), rows)
        assert len(output) == 30
        if output.dtype.kind == "f":
            assert not np.isnan(output).any()
