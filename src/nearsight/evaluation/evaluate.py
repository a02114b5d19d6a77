"""Compares models on one's own labeled images."""

import time
from collections.abc import Collection as Names
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight.collection import Collection
from nearsight.embedder import Embedder, Embeddings, KnownVectors
from nearsight.errors import InvalidParameterError, NearsightError
from nearsight.estimators.neighbors import unit_length
from nearsight.evaluation import metrics
from nearsight.evaluation.dimension_curve import advised_dim, pca_curve
from nearsight.evaluation.labeled_folder import LabeledFolder
from nearsight.evaluation.metrics import Task
from nearsight.evaluation.results import (
    Comparison,
    Evaluation,
    LearnedClasses,
    ModelResult,
    SkippedModel,
    Verdict,
)
from nearsight.evaluation.significance import (
    Estimate,
    auroc,
    estimate,
    holm,
    paired_difference,
    paired_differences,
)
from nearsight.models import Backend, ModelSpec
from nearsight.models.model_name import without_centering

METRICS = ("recall@1", "recall@5", "recall@10", "map@10", "r_precision", "knn_accuracy")
DEFAULT_METRIC = "map@10"
_SIGNIFICANT = 0.05


def duplicate_groups(collection: Collection, paths: Sequence[str]) -> NDArray[np.intp]:
    """Return a number for each image; near-duplicates and identical files share it.

    Parameters
    ----------
    collection : Collection
        It holds the images.
    paths : sequence of str
    """
    # Loads scikit-learn, which others do not need.
    from nearsight.analyses.duplicates import find_duplicates

    ids = {path: item.id for item in collection.items() for path in item.paths}
    kept = {item.id: group.keep.id for group in find_duplicates(collection).groups for item in group.items}
    names = [kept.get(ids[path], ids[path]) if path in ids else path for path in paths]
    numbers: NDArray[np.intp] = np.unique(names, return_inverse=True)[1]
    return numbers


@dataclass(frozen=True)
class ModelVectors:
    """What a model makes of images.

    Attributes
    ----------
    model : str
        Its name.
    spec : ModelSpec
    decode_px : int or None
        See `Backend`.
    embeddings : Embeddings
    images_per_second : float
    is_centered : bool
        Whether the vectors are to be centered.
    """

    model: str
    spec: ModelSpec
    decode_px: int | None
    embeddings: Embeddings
    images_per_second: float
    is_centered: bool = False

    def embedder(self, progress: bool | None = None) -> KnownVectors:
        """Return what gives these vectors to a collection of the images, without the network."""
        vectors = dict(zip(self.embeddings.ids, self.embeddings.vectors, strict=True))
        return KnownVectors(self.spec, self.decode_px, vectors, progress=progress)


def embed_by(
    model: str | Backend,
    paths: Sequence[str],
    *,
    device: str = "auto",
    cache_dir: Path | None = None,
    progress: bool | None = None,
) -> ModelVectors:
    """Embed images by a model, and take the time.

    Parameters
    ----------
    model, device, cache_dir, progress
        See `nearsight.Embedder`.
    paths : sequence of str

    Raises
    ------
    InvalidParameterError
        The model can use none of the images.
    """
    name = model if isinstance(model, str) else model.spec.id
    embedder = Embedder(model, device=device, cache_dir=cache_dir, progress=progress)
    started = time.perf_counter()
    result = embedder.embed(list(paths))
    seconds = time.perf_counter() - started
    if not len(result.vectors):
        raise InvalidParameterError(f"{name} could use none of the {len(paths):,} images")
    backend = embedder.backend
    return ModelVectors(name, backend.spec, backend.decode_px, result, len(result.vectors) / seconds)


def evaluate(
    folder: LabeledFolder,
    models: Sequence[str | Backend],
    groups: NDArray[np.integer],
    *,
    metric: str = DEFAULT_METRIC,
    learned: Mapping[str, Names[str]] | None = None,
    known: Sequence[ModelVectors] = (),
    skip_failing: bool = False,
    device: str = "auto",
    cache_dir: Path | None = None,
    progress: bool | None = None,
) -> Evaluation:
    """Compare models on labeled images.

    *Method*: with a test split, its images are searched among the others; else each image is searched among
    all others. Images of one group are never compared. Differences are paired by query, their intervals and
    p values drawn by group; p is adjusted for the number of comparisons (Holm). What is not significant is a
    tie, and of tied models the fastest is recommended.

    Parameters
    ----------
    folder : LabeledFolder
    models : sequence of str or Backend
        Names of models, or loaded models. ``NAME#centered`` is the model with vectors that are centered on
        the mean of the gallery; each network embeds the images once.
    groups : ndarray of shape (n,), int
        See `duplicate_groups`.
    metric : str
        The metric that decides, one of `METRICS`.
    learned : mapping of str to collection of str, optional
        The classes that trained models learned, by model. The metric is then told apart for the others.
    known : sequence of ModelVectors
        Of these images, by models that are not run again.
    skip_failing : bool
        Whether a model that cannot be loaded is left out with its reason, as long as another can.
    device, cache_dir, progress
        See `nearsight.Embedder`.

    Raises
    ------
    InvalidParameterError
        The metric is unknown, a model is named twice, or no class can be judged.
    """
    if metric not in METRICS:
        raise InvalidParameterError(f"the metric is {metric!r}; it must be one of {', '.join(METRICS)}")
    names = [model if isinstance(model, str) else model.spec.id for model in models]
    if len(set(names)) < len(names) or not names:
        raise InvalidParameterError(
            f"the models are {', '.join(names) or 'none'}; name each once, at least one"
        )
    embedded, skipped = _embed_all(folder.paths, models, known, skip_failing, device, cache_dir, progress)
    # A comparison is fair on the images that every model could use.
    usable = set.intersection(*(set(of_model.embeddings.positions.tolist()) for of_model in embedded))
    failed = {failure.path: failure for of_model in embedded for failure in of_model.embeddings.failed}
    kept = np.array(sorted(usable), np.intp)
    folder = folder.without({path for row, path in enumerate(folder.paths) if row not in usable})
    task = task_of(folder, np.asarray(groups)[kept])
    vectors = {e.model: _of_kept(e, kept, task) for e in embedded}
    results = [_judged(e, vectors[e.model], task, folder) for e in embedded]
    results.sort(key=lambda result: -result.metrics[metric].value)
    evaluation = Evaluation(
        results,
        _compared(results, metric, task),
        metric,
        folder.paths,
        folder.labels,
        task.queries,
        is_split=not task.is_left_out,
        n_gallery=len(task.gallery),
        n_groups=len(np.unique(task.groups[task.queries])),
        leaks=_leaks(task),
        failed=[*folder.failed, *failed.values()],
        skipped=skipped,
        learned_classes=_by_learned(results, metric, task, folder.labels, learned or {}),
    )
    curve = pca_curve(vectors[evaluation.recommended.model], task, metric)
    return replace(evaluation, dimensions=curve, advised_dim=advised_dim(curve))


def task_of(folder: LabeledFolder, groups: NDArray[np.integer]) -> Task:
    """Return the task of searching the test split among the others, or each image among all others."""
    y = np.unique(folder.labels, return_inverse=True)[1]
    if folder.has_split:
        return Task.split(y, groups, [split == "test" for split in folder.splits])
    return Task.left_out(y, groups)


def _embed_all(
    paths: Sequence[str],
    models: Sequence[str | Backend],
    known: Sequence[ModelVectors],
    skip_failing: bool,
    device: str,
    cache_dir: Path | None,
    progress: bool | None,
) -> tuple[list[ModelVectors], list[SkippedModel]]:
    """Embed the images by each model; a model and its centered form share the vectors."""
    by_name = {vectors.model: vectors for vectors in known}
    places: dict[str, Any] = {"device": device, "cache_dir": cache_dir, "progress": progress}
    all_embedded, skipped = [], []
    for number, model in enumerate(models, 1):
        try:
            if not isinstance(model, str):
                all_embedded.append(embed_by(model, paths, **places))
                continue
            name, is_centered = without_centering(model)
            if name not in by_name:
                by_name[name] = embed_by(name, paths, **places)
            all_embedded.append(replace(by_name[name], model=model, is_centered=is_centered))
        except NearsightError as error:
            if not skip_failing or (number == len(models) and not all_embedded):
                raise
            skipped.append(SkippedModel(model if isinstance(model, str) else model.spec.id, str(error)))
    return all_embedded, skipped


def _of_kept(embedded: ModelVectors, kept: NDArray[np.intp], task: Task) -> NDArray[np.float32]:
    """Return the vectors of the images that every model could use."""
    X = embedded.embeddings.vectors[np.searchsorted(embedded.embeddings.positions, kept)]
    if embedded.is_centered:
        X = unit_length(X - X[task.gallery].mean(axis=0))
    return X


def _judged(embedded: ModelVectors, X: NDArray[np.float32], task: Task, folder: LabeledFolder) -> ModelResult:
    groups = task.groups[task.queries]
    found = metrics.retrieval(X, task)
    values = dict(found.values)
    values["probe_accuracy"] = metrics.probe_accuracy(X, task)
    values |= {f"few_shot_{shots}": metrics.few_shot_accuracy(X, task, shots) for shots in (1, 5)}
    # A class with no more images than shots leaves none to judge.
    values = {name: v for name, v in values.items() if name in METRICS or np.isfinite(v).any()}
    estimates = {name: estimate(of_metric, groups) for name, of_metric in values.items()}
    if folder.good_label is not None:
        estimates["defect_auroc"] = _defect_auroc(X, task, np.array(folder.labels) == folder.good_label)
    # A model may have learned from the gallery, whose clusters would then be its labels.
    nmi, ari = metrics.cluster_agreement(X[task.queries], task.y[task.queries])
    return ModelResult(
        embedded.model,
        X.shape[1],
        X.shape[1] * 4,
        embedded.images_per_second,
        embedded.spec.license,
        estimates,
        nmi,
        ari,
        values,
        found.matches,
    )


def _defect_auroc(X: NDArray[np.float32], task: Task, is_good: NDArray[np.bool_]) -> Estimate:
    """Judge defects by distance from good images: those of the gallery, or of a random half of the groups."""
    if task.is_left_out:
        names, group = np.unique(task.groups, return_inverse=True)
        is_reference = (np.random.default_rng(0).permutation(len(names)) % 2 == 0)[group] & is_good
        queries: NDArray[np.integer] = np.flatnonzero(~is_reference)
    else:
        is_reference = np.zeros(len(X), bool)
        is_reference[task.gallery] = is_good[task.gallery]
        queries = task.queries
    is_defect = ~is_good[queries]
    if not is_reference.any() or is_defect.all() or not is_defect.any():
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    scores = metrics.defect_scores(X, np.flatnonzero(is_reference), queries)
    return auroc(scores, is_defect, task.groups[queries])


def _compared(results: Sequence[ModelResult], metric: str, task: Task) -> list[Comparison]:
    groups = task.groups[task.queries]
    pairs = list(combinations(results, 2))
    if not pairs:
        return []
    # All models have values for the same queries.
    first, second = (np.stack([pair[side].values[metric] for pair in pairs]) for side in (0, 1))
    differences = paired_differences(first, second, groups)
    adjusted = holm([difference.p for difference in differences])
    comparisons = []
    for (one, other), difference, p in zip(pairs, differences, adjusted, strict=True):
        is_clear = p < _SIGNIFICANT and not difference.low <= 0 <= difference.high
        verdict: Verdict = "tie" if not is_clear else "better" if difference.value > 0 else "worse"
        comparisons.append(Comparison(one.model, other.model, difference, p, verdict))
    return comparisons


def _by_learned(
    results: Sequence[ModelResult],
    metric: str,
    task: Task,
    labels: Sequence[str],
    learned: Mapping[str, Names[str]],
) -> LearnedClasses | None:
    """Judge the queries of learned classes and the others apart."""
    of_queries = np.asarray(labels)[task.queries]
    present = set(of_queries.tolist())
    trained = [result.model for result in results if present.intersection(learned.get(result.model, ()))]
    if not trained:
        return None
    classes = sorted(present & {name for model in trained for name in learned[model]})
    groups, values = task.groups[task.queries], {result.model: result.values[metric] for result in results}

    def means(rows: NDArray[np.bool_]) -> dict[str, Estimate]:
        return {model: estimate(of_model[rows], groups[rows]) for model, of_model in values.items()}

    # All models have values for the same queries.
    is_judged = np.isfinite(results[0].values[metric])
    is_learned = np.isin(of_queries, classes) & is_judged
    is_other = ~np.isin(of_queries, classes) & is_judged
    first = values[trained[0]]
    return LearnedClasses(
        trained,
        classes,
        means(is_learned) if is_learned.any() else {},
        means(is_other) if is_other.any() else {},
        {
            model: paired_difference(first[is_other], of_model[is_other], groups[is_other])
            for model, of_model in values.items()
            if model != trained[0] and is_other.any()
        },
    )


def _leaks(task: Task) -> list[tuple[int, int]]:
    """Return queries and gallery images of one group: the same thing on both sides of the split."""
    if task.is_left_out:
        return []
    by_group: dict[int, list[int]] = {}
    for row in task.gallery:
        by_group.setdefault(int(task.groups[row]), []).append(int(row))
    return [(int(query), row) for query in task.queries for row in by_group.get(int(task.groups[query]), [])]
