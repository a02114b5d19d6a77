"""Moves a collection to another model after a comparison of both, and names what no longer fits."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nearsight.collection import Collection
from nearsight.collection.bridged_search import BridgedResult, BridgedSearch
from nearsight.collection.upgrade import Missing, Upgrade, UpgradeState, commit, rollback
from nearsight.errors import InvalidParameterError, ParityError
from nearsight.estimators.neighbors import highest, unit_length
from nearsight.models import Backend, Fingerprint, load_model
from nearsight.models.model_name import without_centering
from nearsight.services.refit import RefitReport, StaleFile, refit, stale_files
from nearsight.store import Filter, Location, locate

if TYPE_CHECKING:
    from nearsight.evaluation import Estimate, PairedDifference

# Images that are embedded first, to learn the bridge and to foretell time: a tenth, within bounds.
_MIN_SAMPLED, _MAX_SAMPLED, _SAMPLED_SHARE = 500, 2000, 0.1
_N_COMPARED = 5000
_N_NEIGHBORS = 10
_SIGNIFICANT = 0.05


@dataclass(frozen=True)
class ModelComparison:
    """Two models on images of one collection.

    Attributes
    ----------
    n_images : int
        Images that have vectors of both.
    overlap : Estimate
        Share of the old model's ten nearest that the new model finds among its ten, 0..1.
    recall : PairedDifference or None
        Recall@1 of the labels, new minus old; None without labels, or where nothing is left to search for.
    old_recall, new_recall : float or None
    n_learned : int
        Labeled images that one of the models learned from: they are found too well, and are not searched for.
    """

    n_images: int
    overlap: "Estimate"
    recall: "PairedDifference | None" = None
    old_recall: float | None = None
    new_recall: float | None = None
    n_learned: int = 0

    @property
    def is_worse(self) -> bool:
        """Whether the new model finds fewer images of the right label, and chance hardly does that."""
        return self.recall is not None and self.recall.p < _SIGNIFICANT and self.recall.high < 0


@dataclass(frozen=True)
class CollectionUpgrade:
    """What an upgrade did, or would do.

    Attributes
    ----------
    old_model, new_model : str
    n_images : int
        Of the collection before.
    n_embedded : int
        In this call.
    expected_seconds : float
        For the images that were left after the sample.
    new_bytes : int
        Of the new vectors.
    comparison : ModelComparison
    switched : bool
    refitted : list of Path
        Fitted files in the collection's directory that were fitted again on the new vectors.
    stale : list of StaleFile
        Those that must be fitted again, or would have to be.
    n_dropped, n_estimated : int
        Images that were left out, because their files are gone, and those that keep an estimated vector.
    bridge_recall : (float, float, float) or None
        Before the change: the expected share of the new model's ten nearest images that searches by the
        bridge find, with its 95 % interval.
    """

    old_model: str
    new_model: str
    n_images: int
    n_embedded: int
    expected_seconds: float
    new_bytes: int
    comparison: ModelComparison
    switched: bool
    refitted: list[Path]
    stale: list[StaleFile]
    n_dropped: int
    n_estimated: int = 0
    bridge_recall: tuple[float, float, float] | None = None


def upgrade(
    collection: Collection,
    model: str,
    *,
    labels: Mapping[str, str] | None = None,
    missing: Missing = "refuse",
    only_sample: bool = False,
    allow_worse: bool = False,
    device: str = "auto",
    cache_dir: Path | None = None,
    progress: bool | None = None,
) -> CollectionUpgrade:
    """Embed a collection with another model, compare both, and change it.

    Where the collection has changed to this model already, fitted files are refitted that an interrupted call
    has left.

    Parameters
    ----------
    collection : Collection
    model : str
        Name of the new model.
    labels : mapping of str to str, optional
        Label by id, to compare recall@1.
    missing : {"refuse", "keep", "drop"}
        See `collection.upgrade.Upgrade`.
    only_sample : bool
        Whether to stop after a sample; what was embedded is kept for the upgrade.
    allow_worse : bool
        Whether to change it although the new model's recall is significantly lower.
    device, cache_dir, progress
        See `nearsight.Embedder`.

    Raises
    ------
    FingerprintMismatchError, MissingFilesError, StorageError
        See `collection.upgrade.Upgrade`.
    ParityError
        The new model is significantly worse; the collection stays as it is.
    InvalidParameterError
        The name ends in ``#centered``.
    """
    plain, is_centered = without_centering(model)
    if is_centered:
        # The mean is that of all new vectors, and those are complete only at the end of an upgrade.
        raise InvalidParameterError(
            f"an upgrade cannot center: {model} needs the mean of all new vectors. Upgrade first, then copy"
            f" the collection: nearsight upgrade --to {plain}, and then nearsight reduce-dim --center --out"
            " DIR"
        )
    from nearsight.services.evaluation import learned_ids

    backend = load_model(model, device=device, cache_dir=cache_dir)
    state = UpgradeState.read(collection.location)
    is_there = backend.spec.fingerprint == collection.fingerprint
    if is_there and state is not None and state.phase == "switched" and not only_sample:
        return _finished(collection, model, state, progress)
    run = Upgrade(collection, backend, model=model, missing=missing)
    learned = learned_ids([collection.model_name, model])
    n_images = len(collection)
    n_embedded = run.sample(n_sampled(n_images), progress=progress)
    expected = run.n_left() * run.state.image_seconds
    recall_by_bridge = run.expected_recall()
    comparison = compare_models(run, labels, learned)
    old_digest = collection.fingerprint.digest
    refits = RefitReport([], stale_files(collection.directory, old_digest))
    if not only_sample:
        n_embedded += run.shadow(progress=progress)
        run.verify()
        comparison = compare_models(run, labels, learned)
        recall = comparison.recall
        if recall is not None and comparison.is_worse and not allow_worse:
            raise ParityError(
                f"{model} is worse on your labels: recall@1 {recall.value:+.3f} ({recall.low:+.3f} to"
                f" {recall.high:+.3f}). The collection stays as it is; --force changes it all the same, and"
                " --abandon deletes the new vectors"
            )
        new = run.switch()
        refits = refit(new, old_digest, progress=progress)
    return CollectionUpgrade(
        collection.spec.id,
        model,
        n_images,
        n_embedded,
        expected,
        _vector_bytes(collection, n_images, backend.spec.dim),
        comparison,
        not only_sample,
        refits.refitted,
        refits.stale,
        run.state.dropped,
        run.state.estimated,
        recall_by_bridge,
    )


def _finished(
    collection: Collection, model: str, state: UpgradeState, progress: bool | None
) -> CollectionUpgrade:
    """Do what an upgrade does once the collection has changed; a process may have been killed before."""
    from nearsight.evaluation import Estimate

    none = Estimate(float("nan"), float("nan"), float("nan"), 0)
    refits = refit(collection, _previous_fingerprint(state).digest, progress=progress)
    return CollectionUpgrade(
        state.previous["model"]["id"],
        model,
        len(collection),
        0,
        0.0,
        _vector_bytes(collection, len(collection), collection.spec.dim),
        ModelComparison(0, none),
        True,
        refits.refitted,
        refits.stale,
        state.dropped,
        state.estimated,
    )


def _previous_fingerprint(state: UpgradeState) -> Fingerprint:
    return Fingerprint.from_dict(dict(state.previous["fingerprint"]))


def _vector_bytes(collection: Collection, n_images: int, dim: int) -> int:
    return n_images * dim * (2 if collection.storage == "float16" else 4)


def upgrade_document(report: CollectionUpgrade) -> dict[str, Any]:
    """Return an upgrade as a JSON document."""
    comparison = report.comparison
    recall = comparison.recall
    has_overlap = comparison.overlap.n > 0
    return {
        "old_model": report.old_model,
        "new_model": report.new_model,
        "images": report.n_images,
        "embedded": report.n_embedded,
        "expected_seconds": round(report.expected_seconds, 1),
        "new_bytes": report.new_bytes,
        "overlap": round(comparison.overlap.value, 5) if has_overlap else None,
        "overlap_interval": [round(comparison.overlap.low, 5), round(comparison.overlap.high, 5)]
        if has_overlap
        else None,
        "compared": comparison.n_images,
        "learned": comparison.n_learned,
        "recall@1": None
        if recall is None
        else {
            "old": comparison.old_recall,
            "new": comparison.new_recall,
            **{key: value for key, value in asdict(recall).items() if key in ("low", "high", "p")},
            "difference": recall.value,
        },
        "switched": report.switched,
        "bridge_recall": None
        if report.bridge_recall is None
        else dict(zip(("value", "low", "high"), (round(x, 5) for x in report.bridge_recall), strict=True)),
        "dropped": report.n_dropped,
        "estimated": report.n_estimated,
        "refitted": [str(path) for path in report.refitted],
        "stale": [{**asdict(file), "path": str(file.path)} for file in report.stale],
    }


def n_sampled(n_images: int) -> int:
    """Return how many of a collection's images are embedded first.

    Examples
    --------
    >>> n_sampled(300), n_sampled(10_000), n_sampled(1_000_000)
    (500, 1000, 2000)
    """
    return min(_MAX_SAMPLED, max(_MIN_SAMPLED, round(_SAMPLED_SHARE * n_images)))


@dataclass(frozen=True)
class Rollback:
    """What a rollback did.

    Attributes
    ----------
    collection : Collection
        As it is now.
    n_lacking : int
        Images that came after the upgrade and lack a vector now.
    report : RefitReport
    was_done : bool
        Whether the collection had been rolled back already.
    """

    collection: Collection
    n_lacking: int
    report: RefitReport
    was_done: bool


def roll_back(place: Path | Location, *, cache_dir: Path | None = None) -> Rollback:
    """Bring back the model before the latest upgrade, and refit what had been fitted on the new vectors.

    Raises
    ------
    InvalidParameterError
        See `collection.upgrade.rollback`.
    """
    location = locate(place)
    state = UpgradeState.read(location)
    n_lacking = rollback(location)
    collection = Collection.open(location, cache_dir=cache_dir)
    report = refit(collection, state.fingerprint) if state else RefitReport([], [])
    return Rollback(collection, n_lacking, report, state is not None and state.was_rolled_back)


def commit_upgrade(collection: Collection) -> RefitReport:
    """Delete the old vectors, and refit first what an interrupted upgrade left of the old model.

    Raises
    ------
    InvalidParameterError
        See `collection.upgrade.commit`.
    """
    state = UpgradeState.read(collection.location)
    report = RefitReport([], [])
    if state is not None and state.phase == "switched":
        report = refit(collection, _previous_fingerprint(state).digest)
    commit(collection.location)
    return report


def search_by_model(
    collection: Collection,
    model: str | Backend,
    query: Any = None,
    *,
    ids: Sequence[str] = (),
    k: int = 10,
    where: str | Filter | None = None,
    exact: bool = False,
    allow_remote: bool = False,
    device: str = "auto",
    cache_dir: Path | None = None,
) -> BridgedResult:
    """Search by a model that the collection has, or that an upgrade under way moves it to.

    Parameters
    ----------
    collection : Collection
    model : str or Backend
        The model, or its name.
    query, k, where, exact, allow_remote
        See `Collection.search`.
    ids : sequence of str
        Images of the collection to look for.
    device, cache_dir
        See `nearsight.Embedder`.

    Raises
    ------
    FingerprintMismatchError
        The collection has another model, and no upgrade to this one is under way.
    """
    backend = load_model(model, device=device, cache_dir=cache_dir) if isinstance(model, str) else model
    options: dict[str, Any] = {"k": k, "where": where, "exact": exact, "allow_remote": allow_remote}
    if backend.spec.fingerprint == collection.fingerprint:
        matches = collection.search(query, id=ids, **options)
        return BridgedResult(matches, [], 0, 1.0, 1.0, 1.0, 1.0)
    return BridgedSearch(collection, backend).search(query, id=ids, **options)


def bridge_document(result: BridgedResult) -> dict[str, Any]:
    """Return what a search by the bridge says of itself, as a JSON document."""
    figures = {name: round(getattr(result, name), 5) for name in ("recall", "low", "high", "share")}
    return {**figures, "embedded": result.n_embedded}


def compare_models(
    run: Upgrade, labels: Mapping[str, str] | None = None, learned: Container[str] = ()
) -> ModelComparison:
    """Compare the vectors of both models, of images that have them.

    Parameters
    ----------
    run : Upgrade
    labels : mapping of str to str, optional
        Label by id.
    learned : container of str, optional
        Ids of images that one of the models learned from; these are found, and not searched for.
    """
    from nearsight.evaluation import Estimate, estimate, paired_difference
    from nearsight.evaluation.metrics import Task, retrieval

    ids, old, new = run.paired_vectors(_N_COMPARED)
    if len(ids) < 2:
        return ModelComparison(len(ids), Estimate(float("nan"), float("nan"), float("nan"), 0))
    first, second = _nearest(old), _nearest(new)
    shared = (first[:, :, None] == second[:, None, :]).any(axis=2).mean(axis=1)
    overlap = estimate(shared, np.arange(len(shared)))
    rows = np.array([row for row, id in enumerate(ids) if labels and id in labels], np.intp)
    queries = np.array([row for row in rows if ids[row] not in learned], np.intp)
    names = [labels[ids[row]] for row in rows] if labels else []
    n_learned = len(rows) - len(queries)
    if len(set(names)) < 2 or len(set(names)) == len(names) or not len(queries):
        return ModelComparison(len(ids), overlap, n_learned=n_learned)
    y = np.full(len(ids), -1)
    y[rows] = np.unique(names, return_inverse=True)[1]
    task = Task(queries, rows, y, np.arange(len(ids)))
    recalls = [retrieval(X, task).values["recall@1"] for X in (old, new)]
    difference = paired_difference(recalls[1], recalls[0], queries)
    means = [float(np.nanmean(recall)) for recall in recalls]
    return ModelComparison(len(ids), overlap, difference, means[0], means[1], n_learned)


def _nearest(X: NDArray[np.float32]) -> NDArray[np.integer]:
    X = unit_length(X)
    similarities = X @ X.T
    np.fill_diagonal(similarities, -np.inf)
    return highest(similarities, min(_N_NEIGHBORS, len(X) - 1))[0]
