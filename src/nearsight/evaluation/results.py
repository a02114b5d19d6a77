"""The result of an evaluation: figures of each model, comparisons of models, and a recommendation."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import ImageFailure
from nearsight.evaluation.significance import Estimate, PairedDifference
from nearsight.text_format import count

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
        Agreement of k-means of the queries with the classes.
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
class SkippedModel:
    """A model that was not compared, and why."""

    model: str
    reason: str


@dataclass(frozen=True)
class LearnedClasses:
    """The metric apart for classes that trained models learned, and for all others.

    Attributes
    ----------
    models : list of str
        Those that learned classes.
    classes : list of str
        Classes of the queries that any of them learned.
    learned, others : dict of str to Estimate
        By model, the mean over the queries of these classes, and over those of the others; empty where there
        are none.
    differences : dict of str to PairedDifference
        By model but the first of `models`: that one's metric minus this one's, on the queries of the others.
    """

    models: list[str]
    classes: list[str]
    learned: dict[str, Estimate]
    others: dict[str, Estimate]
    differences: dict[str, PairedDifference]


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
    skipped : list of SkippedModel
        Models that could not be compared.
    learned_classes : LearnedClasses or None
        None where no model is known to have learned any of the classes.
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
    skipped: list[SkippedModel] = field(default_factory=list)
    learned_classes: LearnedClasses | None = None

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
    def decisive(self) -> Comparison | None:
        """The pair that the verdict is about: the best model with the recommended one, else with the next.

        None for one model.
        """
        best, chosen = self.models[0], self.recommended
        others = [model.model for model in (self.models[1:2] if chosen is best else [chosen])]
        return next((c for c in self.comparisons if c.first == best.model and c.second in others), None)

    @property
    def detectable_sentence(self) -> str:
        """What these queries can show of the `decisive` pair; empty for one model."""
        if self.decisive is None:
            return ""
        pair = self.decisive
        return (
            f"{count(len(self.queries), 'query', 'queries')} show a difference of"
            f" {pair.difference.detectable:.3f} in {metric_title(self.metric)} between {pair.first} and"
            f" {pair.second} in 4 of 5 cases; smaller ones are mostly ties."
        )

    @property
    def tied_sets(self) -> list[list[str]]:
        """Sets of models of which the data tell no two apart: all that cannot be extended.

        *Method*: maximal cliques (Bron and Kerbosch 1973) of the graph that joins models with a tie, as a
        critical-difference diagram joins them (Demšar 2006); models without a tie are left out.
        """
        names = [model.model for model in self.models]
        tied: dict[str, set[str]] = {name: set() for name in names}
        for comparison in self.comparisons:
            if comparison.verdict == "tie":
                tied[comparison.first].add(comparison.second)
                tied[comparison.second].add(comparison.first)
        sets: list[list[str]] = []

        def extend(members: list[str], candidates: list[str], excluded: set[str]) -> None:
            if not candidates and not excluded and len(members) > 1:
                sets.append(sorted(members, key=names.index))
            for at, name in enumerate(candidates):
                rest = [other for other in candidates[at + 1 :] if other in tied[name]]
                extend([*members, name], rest, (excluded | set(candidates[:at])) & tied[name])

        extend([], names, set())
        return sets

    @property
    def verdict(self) -> str:
        """The recommendation in one or two sentences."""
        best, chosen, title = self.models[0], self.recommended, metric_title(self.metric)
        value = best.metrics[self.metric]
        figure = f"{title} {value.value:.3f} ({value.low:.3f} to {value.high:.3f})"
        if self.decisive is None:
            return f"{best.model} reaches {figure} on {value.n:,} queries. Name a second model to compare."
        if chosen is best:
            worse = [c for c in self.comparisons if c.first == best.model and c.verdict == "better"]
            if len(worse) == len(self.models) - 1:
                return f"Use {best.model}: {figure}, better than {_others(worse)}."
            return (
                f"Use {best.model}: {figure}. No other model is better, and of its equals it is the fastest."
            )
        gap = self.decisive.difference
        speed = chosen.images_per_second / best.images_per_second
        # That many are for one comparison: among several, fewer than there are say nothing.
        is_more = gap.n_needed is not None and gap.n_needed > value.n
        more = f" About {gap.n_needed:,} queries would be needed to tell." if is_more else ""
        # The interval is of this pair alone: it may leave out 0, and the largest of many be chance.
        among = f" among {len(self.comparisons)} comparisons" if gap.low > 0 else ""
        return (
            f"Use {chosen.model}: it is {speed:.1f} times as fast as {best.model}, whose {title} is higher by"
            f" {gap.value:.3f} ({gap.low:+.3f} to {gap.high:+.3f}), which may be chance{among}.{more}"
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


def learned_sentence(evaluation: Evaluation) -> str:
    """Return what is known of classes that trained models did not learn; empty for nothing."""
    part = evaluation.learned_classes
    if part is None:
        return ""
    first = part.models[0]
    if not part.others:
        return f"{first} learned all of these classes, so its figures say nothing about other classes."
    by_change: dict[str, list[str]] = {}
    for model, gap in part.differences.items():
        if model not in part.models:
            change = "worse than" if gap.high < 0 else "better than" if gap.low > 0 else "not to be told from"
            by_change.setdefault(change, []).append(model)
    found = "; ".join(f"{change} {', '.join(models)}" for change, models in sorted(by_change.items()))
    return f"For classes that it did not learn, {first} is {found or 'compared with no other model'}."


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
