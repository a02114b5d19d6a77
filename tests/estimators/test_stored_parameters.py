import numpy as np
import pytest

from nearsight.estimators.anomaly import PatchMemory
from nearsight.estimators.recommendation import Recommender
from nearsight.estimators.stored_parameters import present_parameters


def test_present_names_stay_and_the_input_is_not_changed():
    stored = {"n_rows": 5, "method": "knn"}
    assert present_parameters(stored) == stored
    assert present_parameters({"method": "neighbours"}) == {"method": "neighbors"}


@pytest.mark.parametrize(
    ("fitted", "old_names"),
    [
        (
            lambda: PatchMemory(n_rows=9).fit(np.random.default_rng(0).normal(size=(2, 5, 5, 3))),
            {"neighborhood": "neighbourhood", "max_side": "most_places", "top_share": "top"},
        ),
        (
            lambda: Recommender().fit(np.eye(4)),
            {"normalization": "normalisation", "max_regressed_items": "most_regressed"},
        ),
    ],
    ids=["PatchMemory", "Recommender"],
)
def test_state_with_the_names_of_earlier_versions_opens(fitted, old_names):
    estimator = fitted()
    facts, arrays = estimator.state()
    facts["params"] = {old_names.get(name, name): value for name, value in facts["params"].items()}
    assert set(old_names.values()) <= set(facts["params"])
    again = type(estimator).from_state(facts, arrays)
    assert again.get_params() == estimator.get_params()
