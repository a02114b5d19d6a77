"""Every public estimator says what it rests on, what it costs, and what it does with odd data."""

import importlib
import pkgutil
import re

import pytest
from sklearn.base import BaseEstimator

from nearsight import estimators as estimators_module


def estimators():
    for module in pkgutil.walk_packages(estimators_module.__path__, "nearsight.estimators."):
        for name, one in vars(importlib.import_module(module.name)).items():
            if isinstance(one, type) and issubclass(one, BaseEstimator) and one.__module__ == module.name:
                yield pytest.param(one, id=name)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("its method", r"\*Method\*"),
        ("where that is from", r"(19|20)\d\d"),
        ("what it costs", r"[Cc]ost|[Mm]emory|operations"),
        (
            "what it does without rows",
            r"[Nn]o\s+(rows|map|face|item)|0 rows|[Ww]ithout rows|none, one and two|[Ff]ewer",
        ),
        ("what it does with one row", r"\b[Oo]ne\b"),
        ("what it does with NaN and infinity", r"NaN"),
        ("what it does with duplicates", r"[Dd]uplicate|repeat"),
        ("what it does with rows that are all the same", r"all the same|[Ii]dentical|\bsame\b"),
        ("an example", r">>> "),
    ],
)
@pytest.mark.parametrize("estimator", list(estimators()))
def test_an_estimator_says(estimator, what, words):
    methods = (getattr(estimator, name, None) for name in ("fit", "predict", "transform"))
    text = "\n".join([estimator.__doc__ or "", *(method.__doc__ or "" for method in methods if method)])
    assert re.search(words, text), f"{estimator.__name__} does not say {what}"
