"""Analyses that a client can ask for: they run as jobs, and give documents as ``--json`` prints them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from nearsight.client.job_operations import finished
from nearsight.client.operations import collection_path, item_of
from nearsight.client.requests import Named, Operation, Request

if TYPE_CHECKING:
    from nearsight.analyses.outliers import Outlier

_NO_CLUSTER = 65535


@dataclass(frozen=True)
class RemoteMap:
    """Images on a plane.

    Attributes
    ----------
    ids : list of str, length n
    positions : ndarray of shape (n, 2), float32
    clusters : ndarray of shape (n,), int64
        The number of each image's saved cluster; -1 for none.
    """

    ids: list[str]
    positions: NDArray[np.float32]
    clusters: NDArray[np.int64]


def analyses(collection: Named) -> Operation[list[str]]:
    """Return which analyses have a result: ``"clusters"``, ``"map"``, ``"faces"`` and so on."""
    names: list[str] = (yield from _get(collection, "analyses"))["analyses"]
    return names


def find_duplicates(
    collection: Named,
    where: str | None = None,
    *,
    false_alarm_rate: float | None = None,
    min_similarity: float | None = None,
) -> Operation[dict[str, Any]]:
    """Find near-duplicates, and return the first 1,000 groups; see `Collection.find_duplicates`."""
    options = {"where": where, "false_alarm_rate": false_alarm_rate, "min_similarity": min_similarity}
    yield from _run(collection, "duplicates", options)
    return (yield from duplicates(collection, limit=1000))


def duplicates(collection: Named, *, offset: int = 0, limit: int = 100) -> Operation[dict[str, Any]]:
    """Return groups of the latest search for near-duplicates, without what was decided."""
    return (yield from _get(collection, "duplicates", offset=offset, limit=limit))


def decide_duplicates(
    collection: Named, ids: Sequence[str], decision: Literal["different", "keep_both", "undecided"]
) -> Operation[int]:
    """Remember a decision about every pair of some images; return the number of pairs."""
    body = {"ids": list(ids), "decision": decision}
    answer = yield Request("POST", collection_path(collection, "duplicates", "decisions"), json=body)
    return int(answer.json()["pairs"])


def duplicate_decisions(collection: Named) -> Operation[dict[tuple[str, str], str]]:
    """Return the decision about each pair of images; the smaller id comes first."""
    document = yield from _get(collection, "duplicates", "decisions")
    return {(*each["ids"],): each["decision"] for each in document["decisions"]}


def cluster(
    collection: Named,
    k: int | None = None,
    *,
    algorithm: Literal["density", "kmeans"] | None = None,
    where: str | None = None,
    min_cluster_size: int | None = None,
    detail: int | None = None,
) -> Operation[dict[str, Any]]:
    """Cluster the images, and return the clusters; see `Collection.cluster`."""
    options = {
        "k": k,
        "algorithm": algorithm,
        "where": where,
        "min_cluster_size": min_cluster_size,
        "detail": detail,
    }
    yield from _run(collection, "clusters", options)
    return (yield from clusters(collection))


def clusters(collection: Named) -> Operation[dict[str, Any]]:
    """Return the latest clusters; ``revision`` names their state."""
    return (yield from _get(collection, "clusters"))


def rename_cluster(
    collection: Named, id: int, name: str, *, revision: str | None = None
) -> Operation[dict[str, Any]]:
    """Rename a cluster, and return it.

    Parameters
    ----------
    revision : str, optional
        The state that the edit is meant for; the service refuses an edit of another one.
    """
    return (yield from _edit(collection, "PATCH", (str(id),), {"name": name, "revision": revision}))


def merge_clusters(
    collection: Named, ids: Sequence[int], *, revision: str | None = None
) -> Operation[dict[str, Any]]:
    """Make one cluster of several, and return all clusters; see `rename_cluster`."""
    return (yield from _edit(collection, "POST", ("merge",), {"ids": list(ids), "revision": revision}))


def move_images(
    collection: Named, ids: Sequence[str], to: int | None, *, revision: str | None = None
) -> Operation[dict[str, Any]]:
    """Move images to a cluster, to none (-1) or to a new one (None), and return all clusters.

    See `rename_cluster`.
    """
    body = {"ids": list(ids), "to": to, "revision": revision}
    place = collection_path(collection, "clusters", "move")
    document: dict[str, Any] = (yield Request("POST", place, json=body)).json()
    return document


def split_cluster(
    collection: Named, id: int, k: int | None = None, *, revision: str | None = None
) -> Operation[dict[str, Any]]:
    """Cluster one cluster again, by itself, and return all clusters; see `rename_cluster`."""
    body = {"k": k, "revision": revision}
    yield from finished((yield from _edit(collection, "POST", (str(id), "split"), body)))
    return (yield from clusters(collection))


def undo_cluster_edit(collection: Named, *, revision: str | None = None) -> Operation[dict[str, Any]]:
    """Take the latest edit of clusters back, and return all clusters; see `rename_cluster`."""
    return (yield from _edit(collection, "POST", ("undo",), {"revision": revision}))


def move_to_trash(
    collection: Named, ids: Sequence[str] | None = None, *, redundant_of: Sequence[str] | None = None
) -> Operation[dict[str, Any]]:
    """Move files into the collection's trash; nothing is deleted, and `restore_from_trash` puts them back.

    Parameters
    ----------
    ids : sequence of str, optional
        Images that lose all their files.
    redundant_of : sequence of str, optional
        Instead: the ``keep`` of certain groups of the latest duplicates, whose redundant files go.

    Returns
    -------
    dict
        ``entry``, None if every file was refused, and ``refused``, with reasons.
    """
    body = {"ids": ids and list(ids), "redundant_of": redundant_of and list(redundant_of)}
    document: dict[str, Any] = (yield Request("POST", collection_path(collection, "trash"), json=body)).json()
    return document


def trash(collection: Named) -> Operation[list[dict[str, Any]]]:
    """Return what is in the trash, the latest first."""
    entries: list[dict[str, Any]] = (yield from _get(collection, "trash"))["entries"]
    return entries


def restore_from_trash(collection: Named, id: str) -> Operation[dict[str, Any]]:
    """Put the files of an entry of the trash back, and their images into the collection."""
    place = collection_path(collection, "trash", id, "restore")
    document: dict[str, Any] = (yield Request("POST", place)).json()
    return document


def layout_2d(
    collection: Named, *, refit: bool = False, method: Literal["auto", "umap", "pca"] | None = None
) -> Operation[RemoteMap]:
    """Lay the images out on a plane, and return the map; see `Collection.layout_2d`."""
    yield from _run(collection, "map", {"refit": refit, "method": method})
    return (yield from map(collection))


def map(collection: Named) -> Operation[RemoteMap]:
    """Return the latest map, without images that have left the collection since."""
    content = (yield Request("GET", collection_path(collection, "map"))).content
    n = len(content) // 26
    x, y = (np.frombuffer(content, "<f4", n, offset) for offset in (0, 4 * n))
    category = np.frombuffer(content, "<u2", n, 8 * n).astype(np.int64)
    digits = content[10 * n :].hex()
    rows = np.flatnonzero(~np.isnan(x))
    ids = [digits[32 * row : 32 * row + 32] for row in rows.tolist()]
    clusters = np.where(category == _NO_CLUSTER, -1, category)
    return RemoteMap(ids, np.stack([x, y], axis=1)[rows], clusters[rows])


def audit(
    collection: Named,
    where: str | None = None,
    *,
    split: str | None = None,
    false_alarm_rate: float | None = None,
) -> Operation[dict[str, Any]]:
    """Look for images that are faulty, double, alone, or in two splits; see `Collection.audit`."""
    options = {"where": where, "split": split, "false_alarm_rate": false_alarm_rate}
    yield from _run(collection, "audit", options)
    return (yield from latest_audit(collection))


def latest_audit(collection: Named) -> Operation[dict[str, Any]]:
    """Return the latest audit."""
    return (yield from _get(collection, "audit"))


def advise_dimension(
    collection: Named, labels: str | None = None, *, keep: float | None = None
) -> Operation[dict[str, Any]]:
    """Say how many numbers of a vector are enough.

    Parameters
    ----------
    labels : str, optional
        Judge by labels: ``folder`` (of each image), or a metadata key; by default by neighbors.
    keep : float, optional
        Without labels: the share of the ten nearest neighbors to keep, by default 0.9.

    Returns
    -------
    dict
        As ``nearsight dimension --json`` prints it.
    """
    yield from _run(collection, "dimension", {"labels": labels, "keep": keep})
    return (yield from _get(collection, "dimension"))


def monitor(
    collection: Named,
    new: str | None = None,
    *,
    since: date | None = None,
    by: Sequence[str] = (),
    where: str | None = None,
) -> Operation[dict[str, Any]]:
    """Say whether new images are still like the known ones; the service notes the result for the next run.

    Parameters
    ----------
    new : str, optional
        A filter of the new images.
    since : date or datetime, optional
        Instead: when the first of them was added; UTC unless it has a zone.
    by : sequence of str
        Metadata keys whose values may have become more frequent; by default the saved clusters.
    where : str, optional
        A filter of the known images; by default all that are not new.

    Returns
    -------
    dict
        As ``nearsight monitor --json`` prints it.
    """
    moment = None if since is None else since.isoformat()
    yield from _run(collection, "monitor", {"new": new, "since": moment, "by": list(by), "where": where})
    return (yield from _get(collection, "monitor"))


def outliers(collection: Named, k: int = 20, *, where: str | None = None) -> "Operation[list[Outlier]]":
    """Return the most unusual images; see `Collection.outliers`."""
    from nearsight.analyses.outliers import Outlier

    yield from _run(collection, "outliers", {"k": k, "where": where})
    ranked = (yield from _get(collection, "outliers"))["items"]
    distances = [facts.pop("distance") for facts in ranked]
    return [Outlier(item_of(facts), each) for facts, each in zip(ranked, distances, strict=True)]


def _run(collection: Named, kind: str, options: Mapping[str, Any]) -> Operation[dict[str, Any]]:
    body = {name: value for name, value in options.items() if value is not None}
    answer = yield Request("POST", collection_path(collection, kind), json=body)
    return (yield from finished(answer.json()))


def _get(collection: Named, *parts: str, **params: Any) -> Operation[dict[str, Any]]:
    answer = yield Request("GET", collection_path(collection, *parts), params=params)
    document: dict[str, Any] = answer.json()
    return document


def _edit(
    collection: Named, method: str, parts: Sequence[str], body: Mapping[str, Any]
) -> Operation[dict[str, Any]]:
    sent = {name: value for name, value in body.items() if value is not None}
    document: dict[str, Any] = (
        yield Request(method, collection_path(collection, "clusters", *parts), json=sent)
    ).json()
    return document
