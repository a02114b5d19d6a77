"""The result of an evaluation: figures of each model, comparisons of models, and a recommendation."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import ImageFailure
from nearsight.evaluation.significance import Estimate, PairedDifference

Verdict = Literal["better", "worse", "tie"]


@dataclass(frozen=True)
class ModelResult:
    """The figures of one model.

    Attributes
    ----------
    model : str
    dim : int
    bytes_per_vector : int
        As float32.
    images_per_second : float
        Files to vectors, on this machine.
    license : str
    metrics : dict of str to Estimate
        Means over queries with 95 % intervals; see `metrics.Retrieval`, and ``probe_accuracy``,
        ``few_shot_1``, ``few_shot_5``, and ``defect_auroc`` where a class holds good images.
    nmi, ari : float
        Agreement of k-means with the classes.
    values : dict of str to ndarray of shape (n_queries,)
        The same metrics, query by query.
    matches : ndarray of shape (n_queries, 10), int64
        Rows of the images, the most similar first; -1 for none.
    """

    model: str
    dim: int
    bytes_per_vector: int
    images_per_second: float
    license: str
    metrics: dict[str, Estimate]
    nmi: float
    ari: float
    values: dict[str, NDArray[np.float64]]
    matches: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on the same queries.

    Attributes
    ----------
    first, second : str
    difference : PairedDifference
        First minus second.
    p_adjusted : float
        By Holm's method, for all comparisons of the evaluation.
    verdict : {"better", "worse", "tie"}
        Of the first. A tie unless the adjusted p is below 0.05 and the interval leaves out 0.
    """

    first: str
    second: str
    difference: PairedDifference
    p_adjusted: float
    verdict: Verdict


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`.

    Attributes
    ----------
    models : list of ModelResult
        The best mean of `metric` first.
    comparisons : list of Comparison
        Of each pair of models, in that order.
    metric : str
        The metric that decides.
    paths, labels : list of str, length n
    queries : ndarray of int
        Rows that were searched.
    is_split : bool
        Whether the queries are a test split; else each image was searched among all others.
    n_gallery, n_groups : int
        Images to find, and groups of near-duplicates among the queries.
    dimensions : list of (int, Estimate)
        The metric of the recommended model, shortened by PCA.
    advised_dim : int
        The shortest of these within one standard error of the best.
    leaks : list of (int, int)
        Query and gallery rows that are near-duplicates; they are not compared.
    failed : list of ImageFailure
    """

    models: list[ModelResult]
    comparisons: list[Comparison]
    metric: str
    paths: list[str]
    labels: list[str]
    queries: NDArray[np.integer]
    is_split: bool
    n_gallery: int
    n_groups: int
    dimensions: list[tuple[int, Estimate]] = field(default_factory=list)
    advised_dim: int = 0
    leaks: list[tuple[int, int]] = field(default_factory=list)
    failed: list[ImageFailure] = field(default_factory=list)

    @property
    def recommended(self) -> ModelResult:
        """The fastest of the models that the data cannot tell from the best one."""
        best = self.models[0]
        tied = {best.model} | {
            comparison.second
            for comparison in self.comparisons
            if comparison.first == best.model and comparison.verdict == "tie"
        }
        return max((m for m in self.models if m.model in tied), key=lambda m: m.images_per_second)

    @property
    def detectable(self) -> float | None:
        """The smallest true difference that these queries show, for any pair; None for one model."""
        return max((c.difference.detectable for c in self.comparisons), default=None)

    @property
    def verdict(self) -> str:
        """The recommendation in one or two sentences."""
        best, chosen, title = self.models[0], self.recommended, metric_title(self.metric)
        value = best.metrics[self.metric]
        figure = f"{title} {value.value:.3f} ({value.low:.3f} to {value.high:.3f})"
        if len(self.models) == 1:
            return f"{best.model} reaches {figure} on {value.n:,} queries. Name a second model to compare."
        if chosen is best:
            worse = [c for c in self.comparisons if c.first == best.model and c.verdict == "better"]
            if len(worse) == len(self.models) - 1:
                return f"Use {best.model}: {figure}, better than {_others(worse)}."
            return (
                f"Use {best.model}: {figure}. No other model is better, and of its equals it is the fastest."
            )
        gap = next(
            c.difference for c in self.comparisons if {c.first, c.second} == {best.model, chosen.model}
        )
        speed = chosen.images_per_second / best.images_per_second
        more = f" {gap.n_needed:,} queries would be needed to tell." if gap.n_needed else ""
        return (
            f"Use {chosen.model}: it is {speed:.1f} times as fast as {best.model}, whose {title} is higher by"
            f" {gap.value:.3f} ({gap.low:+.3f} to {gap.high:+.3f}), which may be chance.{more}"
        )


def metric_title(metric: str) -> str:
    """Return the name of a metric as a report writes it.

    Examples
    --------
    >>> metric_title("recall@1"), metric_title("map@10"), metric_title("few_shot_5")
    ('recall@1', 'mAP@10', 'accuracy of 5 shots')
    """
    titles = {
        "map@10": "mAP@10",
        "r_precision": "R-precision",
        "knn_accuracy": "kNN accuracy",
        "probe_accuracy": "linear probe",
        "few_shot_1": "accuracy of 1 shot",
        "few_shot_5": "accuracy of 5 shots",
        "defect_auroc": "AUROC of defects",
    }
    return titles.get(metric, metric)


def class_means(evaluation: Evaluation, models: Sequence[ModelResult]) -> dict[str, list[float]]:
    """Return the mean of the metric by class, for some models; NaN for a class without a judged query."""
    labels = np.asarray(evaluation.labels)[evaluation.queries]
    means = {}
    for label in sorted(set(labels.tolist())):
        rows = labels == label
        values = [model.values[evaluation.metric][rows] for model in models]
        means[label] = [float(np.nanmean(v)) if np.isfinite(v).any() else float("nan") for v in values]
    return means


def _others(worse: Sequence[Comparison]) -> str:
    if len(worse) > 1:
        return f"the other {len(worse)} models"
    gap = worse[0].difference
    return f"{worse[0].second} by {gap.value:.3f} ({gap.low:+.3f} to {gap.high:+.3f})"
