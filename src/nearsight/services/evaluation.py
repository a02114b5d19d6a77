"""What doors share about evaluation: which models can be compared, and what they learned."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight.collection import Collection
from nearsight.errors import InvalidParameterError, MissingExtraError
from nearsight.evaluation import (
    Estimate,
    Evaluation,
    LabeledFolder,
    LearnedClasses,
    ModelResult,
    PairedDifference,
    SkippedModel,
    duplicate_groups,
    embed_by,
    evaluate,
)
from nearsight.images import content_id
from nearsight.models import DEFAULT_MODEL, list_models
from nearsight.models.huggingface.hub import fetched_models
from nearsight.models.huggingface.known_models import KNOWN_MODELS
from nearsight.models.model_name import without_centering
from nearsight.models.registry import find_model
from nearsight.services.collections import temporary_collection
from nearsight.text_format import count
from nearsight.training import content_digest, learned_classes, learned_images


def installed_models() -> tuple[list[str], list[SkippedModel]]:
    """Return the models that can be compared without a download, and the known ones that cannot, with why."""
    names, skipped = [], []
    for entry in list_models():
        if entry.available():
            names.append(entry.spec.id)
        else:
            remedy = f": {entry.install}" if entry.install else ""
            skipped.append(SkippedModel(entry.spec.id, f"not installed{remedy}"))
    fetched = [entry.spec.id for entry in fetched_models()]
    for model in KNOWN_MODELS:
        if downloaded := [name for name in fetched if name.startswith(model.source)]:
            names += downloaded[:1]
        else:
            skipped.append(
                SkippedModel(
                    model.name, f"not downloaded; --model {model.name} downloads it ({model.license})"
                )
            )
    return names, skipped


def learned_by(models: Iterable[str]) -> dict[str, frozenset[str]]:
    """Return the classes that trained models learned, by name of the model; others are left out.

    Parameters
    ----------
    models : iterable of str
        Names of models; those of folders, ``dir:PATH``, may say what they learned.
    """
    return {name: classes for name, folder in _folders(models) if (classes := learned_classes(folder))}


def learned_ids(models: Iterable[str]) -> frozenset[str]:
    """Return the ids, in collections, of all images that trained models learned from.

    Parameters
    ----------
    models : iterable of str
        See `learned_by`.
    """
    length = len(content_id(b""))
    return frozenset(digest[:length] for _, place in _folders(models) for digest in learned_images(place))


def require_unlearned(folder: LabeledFolder, models: Iterable[str]) -> LabeledFolder:
    """Return the folder with only such queries as no trained model learned from.

    Where a model learned from some of the images, it finds them too well. So these are the gallery, and the
    others of the queries are searched among them.

    Parameters
    ----------
    folder : LabeledFolder
    models : iterable of str
        See `learned_by`.

    Raises
    ------
    InvalidParameterError
        No query is left.
    """
    learned = _learned_rows(folder, models)
    return _without_queries(folder, set[int]().union(*learned.values()), " or ".join(learned))


def require_far_from_learned(
    folder: LabeledFolder, models: Iterable[str], collection: Collection, groups: NDArray[np.integer]
) -> LabeledFolder:
    """Return the folder without queries that are near-duplicates of images that a trained model learned from.

    Such an image, saved again or made smaller, is found too well as its original is.

    Parameters
    ----------
    folder, models
        See `require_unlearned`.
    collection : Collection
        It holds the images.
    groups : ndarray of shape (n,), int
        See `evaluation.duplicate_groups`.

    Raises
    ------
    InvalidParameterError
        No query is left.
    """
    learned = learned_ids(models)
    if not learned:
        return folder
    paths = {path for item in collection.items() if item.id in learned for path in item.paths}
    is_learned = np.array([path in paths for path in folder.paths])
    rows = set(np.flatnonzero(np.isin(groups, groups[is_learned])).tolist())
    n_near = len(_queries(folder) & rows)
    left = _without_queries(folder, rows, "A model")
    if n_near:
        warnings.warn(
            f"{count(n_near, 'image')} not searched for either: near-duplicates of what a model learned"
            " from.",
            stacklevel=4,
        )
    return left


def _without_queries(folder: LabeledFolder, rows: set[int], who: str) -> LabeledFolder:
    """Return the folder with rows that a model knows as images to find, and not to search for."""
    queries = _queries(folder)
    if not queries & rows:
        return folder
    if queries <= rows:
        raise InvalidParameterError(
            f"{who} learned from each image that would be searched for, or from a near-duplicate of it, so"
            " these cannot judge it. Put a part of each class into a folder test, train again, and compare"
            " the models then; or name others only"
        )
    left = queries - rows
    return replace(folder, splits=["test" if row in left else "train" for row in range(len(folder.paths))])


def without_learned(folder: LabeledFolder, models: Sequence[str]) -> tuple[list[str], list[SkippedModel]]:
    """Return the models that `require_unlearned` lets through, and those that it is left without, with why.

    Where no query is left, the model that learned from most of them goes, until one is left. If every model
    would go, all stay.
    """
    queries = _queries(folder)
    learned = {name: rows & queries for name, rows in _learned_rows(folder, models).items()}
    skipped: list[SkippedModel] = []
    while queries and learned and queries <= set[int]().union(*learned.values()):
        name = max(learned, key=lambda each: len(learned[each]))
        n = len(learned.pop(name))
        which = "each image" if n == len(queries) else f"{n} of the {len(queries)} images"
        skipped.append(
            SkippedModel(
                name,
                f"it learned from {which} that would be searched for: put a part of each class into a folder"
                " test, train again, and compare it then",
            )
        )
    left = [name for name in models if name not in {one.model for one in skipped}]
    return (left, skipped) if left else (list(models), [])


def _queries(folder: LabeledFolder) -> set[int]:
    """Return the positions of the images that are searched for."""
    return {row for row, split in enumerate(folder.splits) if not folder.has_split or split == "test"}


def _learned_rows(folder: LabeledFolder, models: Iterable[str]) -> dict[str, set[int]]:
    """Return the positions of the images that each trained model learned from, by its name."""
    learned = {name: digests for name, place in _folders(models) if (digests := learned_images(place))}
    if not learned:
        return {}
    rows: dict[str, set[int]] = {name: set() for name in learned}
    for row, path in enumerate(folder.paths):
        try:
            digest = content_digest(path)
        except OSError:
            continue  # Whoever embeds it says so.
        for name, digests in learned.items():
            if digest in digests:
                rows[name].add(row)
    return rows


def _folders(models: Iterable[str]) -> list[tuple[str, Path]]:
    """Return the names that stand for folders, and the folders."""
    found = []
    for name in models:
        scheme, _, folder = without_centering(name)[0].partition(":")
        if scheme == "dir":
            found.append((name, Path(folder.partition("#")[0])))
    return found


@contextmanager
def evaluated(
    labeled: LabeledFolder,
    names: Sequence[str],
    *,
    metric: str,
    skip_failing: bool,
    device: str = "auto",
    cache_dir: Path | None = None,
    progress: bool | None = None,
) -> Iterator[tuple[Evaluation, Collection]]:
    """Compare models on the images of a folder; give the result, and a collection of them for the block.

    Parameters
    ----------
    labeled : LabeledFolder
        See `require_unlearned`.
    names : sequence of str
    metric, skip_failing, device, cache_dir, progress
        See `nearsight.evaluation.evaluate`.

    Raises
    ------
    UnknownModelError, MissingExtraError
        Unless failing models are skipped: one is not known or not installed; said before images are embedded.
    """
    if not skip_failing:
        _require_installed(names)
    places: dict[str, Any] = {"device": device, "cache_dir": cache_dir, "progress": progress}
    # The default model proposes near-duplicates. Where it is compared, too, it embeds the images once.
    is_default = DEFAULT_MODEL in {without_centering(name)[0] for name in names}
    known = [embed_by(DEFAULT_MODEL, labeled.paths, **places)] if is_default else []
    embedder = known[0].embedder(progress) if known else None
    with temporary_collection(labeled.paths, **places, embedder=embedder) as (collection, _):
        groups = duplicate_groups(collection, labeled.paths)
        result = evaluate(
            require_far_from_learned(labeled, names, collection, groups),
            names,
            groups,
            metric=metric,
            learned=learned_by(names),
            known=known,
            skip_failing=skip_failing,
            **places,
        )
        yield result, collection


def _require_installed(names: Sequence[str]) -> None:
    for name in names:
        entry = find_model(without_centering(name)[0])
        # What a hub has can be downloaded; that has no command.
        if entry.install and not entry.available():
            raise MissingExtraError(f"{name} is not installed. Run: {entry.install}")


def evaluation_document(result: Evaluation) -> dict[str, Any]:
    """Return a comparison of models as plain data."""
    decisive = result.decisive
    return {
        "models": [_model(model) for model in result.models],
        "comparisons": [
            {
                "first": one.first,
                "second": one.second,
                "difference": round(one.difference.value, 5),
                "low": round(one.difference.low, 5),
                "high": round(one.difference.high, 5),
                "p": round(one.p_adjusted, 5),
                "verdict": one.verdict,
                "detectable": round(one.difference.detectable, 5),
                "queries_needed": one.difference.n_needed,
            }
            for one in result.comparisons
        ],
        "metric": result.metric,
        "recommended": result.recommended.model,
        "verdict": result.verdict,
        "queries": len(result.queries),
        "gallery": result.n_gallery,
        "detectable": None if decisive is None else round(decisive.difference.detectable, 5),
        "skipped": [{"model": one.model, "reason": one.reason} for one in result.skipped],
        "learned_classes": _learned(result.learned_classes),
        "leaks": [[result.paths[query], result.paths[row]] for query, row in result.leaks],
        "dimensions": [{"dim": dim, **_interval(e)} for dim, e in result.dimensions],
        "advised_dim": result.advised_dim,
        "failed": [{"path": failure.path, "reason": failure.reason} for failure in result.failed],
    }


def _learned(classes: LearnedClasses | None) -> dict[str, Any] | None:
    if classes is None:
        return None
    return {
        "models": classes.models,
        "classes": classes.classes,
        "learned": {model: _interval(e) for model, e in classes.learned.items()},
        "others": {model: _interval(e) for model, e in classes.others.items()},
        "differences": {
            model: {**_interval(d), "p": round(d.p, 5)} for model, d in classes.differences.items()
        },
    }


def _interval(estimate: Estimate | PairedDifference) -> dict[str, float]:
    return {name: round(getattr(estimate, name), 5) for name in ("value", "low", "high")}


def _model(model: ModelResult) -> dict[str, Any]:
    judged = {name: e for name, e in model.metrics.items() if e.n}
    return {
        "model": model.model,
        "dim": model.dim,
        "bytes_per_vector": model.bytes_per_vector,
        "images_per_second": round(model.images_per_second, 1),
        "license": model.license,
        **{name: round(e.value, 5) for name, e in judged.items()},
        "nmi": round(model.nmi, 5),
        "ari": round(model.ari, 5),
        "intervals": {name: [round(e.low, 5), round(e.high, 5)] for name, e in judged.items()},
    }
