"""Analyses as methods of `Collection`, without loading them before they are used."""

from collections.abc import Callable
from importlib import import_module
from types import MethodType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nearsight.analyses import audit as audit_analysis
    from nearsight.analyses import (
        classification,
        clusters,
        customer_segments,
        dimension_reduction,
        duplicates,
        label_check,
        map,
        recommendations,
        saved_clusters,
    )
    from nearsight.analyses import outliers as outlier_analysis


class _AnalysisMethod:
    """A function of `nearsight.analyses` as a method; its module is imported at the first use.

    Analyses import scikit-learn and SciPy, and stand above the collection: so they are named here, not
    imported.

    Parameters
    ----------
    module : str
        The module in `nearsight.analyses`; the function has the name of the attribute.
    """

    def __init__(self, module: str) -> None:
        self._module = f"nearsight.analyses.{module}"

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, collection: object, owner: type | None = None) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(import_module(self._module), self._name)
        return function if collection is None else MethodType(function, collection)


class AnalysisMethods:
    """The analyses as methods: typed for readers and type checkers, loaded when they are used."""

    if TYPE_CHECKING:
        assign_customers = customer_segments.assign_customers
        audit = audit_analysis.audit
        center = dimension_reduction.center
        check_labels = label_check.check_labels
        classify = classification.classify
        cluster = clusters.cluster
        find_duplicates = duplicates.find_duplicates
        find_leaks = duplicates.find_leaks
        fit_classifier = classification.fit_classifier
        fit_recommender = recommendations.fit_recommender
        layout_2d = map.layout_2d
        load_classifier = classification.load_classifier
        load_recommender = recommendations.load_recommender
        outliers = outlier_analysis.outliers
        predict_clusters = clusters.predict_clusters
        recommend = recommendations.recommend
        reduce_dim = dimension_reduction.reduce_dim
        save_clusters = saved_clusters.save_clusters
        segment_customers = customer_segments.segment_customers
        suggest_labels = classification.suggest_labels
    else:
        assign_customers = _AnalysisMethod("customer_segments")
        audit = _AnalysisMethod("audit")
        center = _AnalysisMethod("dimension_reduction")
        check_labels = _AnalysisMethod("label_check")
        classify = _AnalysisMethod("classification")
        cluster = _AnalysisMethod("clusters")
        find_duplicates = _AnalysisMethod("duplicates")
        find_leaks = _AnalysisMethod("duplicates")
        fit_classifier = _AnalysisMethod("classification")
        fit_recommender = _AnalysisMethod("recommendations")
        layout_2d = _AnalysisMethod("map")
        load_classifier = _AnalysisMethod("classification")
        load_recommender = _AnalysisMethod("recommendations")
        outliers = _AnalysisMethod("outliers")
        predict_clusters = _AnalysisMethod("clusters")
        recommend = _AnalysisMethod("recommendations")
        reduce_dim = _AnalysisMethod("dimension_reduction")
        save_clusters = _AnalysisMethod("saved_clusters")
        segment_customers = _AnalysisMethod("customer_segments")
        suggest_labels = _AnalysisMethod("classification")
