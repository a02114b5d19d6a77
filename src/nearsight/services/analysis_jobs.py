"""Analyses as jobs: each writes its result to a file, and returns a summary."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nearsight.artifacts import exported
from nearsight.collection import Collection
from nearsight.errors import CopyDifferenceError, InvalidParameterError, NearsightError, NotACollectionError
from nearsight.services import documents
from nearsight.text_format import plain

if TYPE_CHECKING:
    from nearsight.faces import FaceBank

_MOST_LISTED = 1000


def duplicates(args: Mapping[str, Any]) -> dict[str, Any]:
    """Find near-duplicates."""
    options = _given(args, "where", "false_alarm_rate", "min_similarity", "n_threads")
    document = documents.duplicates_document(_collection(args).find_duplicates(**options))
    _write(args, document)
    n_certain = sum(group["certain"] for group in document["groups"])
    return {"groups": len(document["groups"]), "certain": n_certain, "images": document["images"]}


def clusters(args: Mapping[str, Any]) -> dict[str, Any]:
    """Cluster the images; clusters of all images are saved in the collection."""
    from nearsight.services.cluster_edits import ClusterEdits
    from nearsight.services.clusters import save_clustering

    collection = _collection(args)
    options = _given(args, "k", "algorithm", "where", "min_cluster_size", "detail")
    clustering = collection.cluster(**options)
    save_clustering(collection, clustering, where=args.get("where"))
    facts = {"where": args.get("where"), "revision": ClusterEdits(collection).revision}
    _write(args, {**documents.clusters_document(clustering), **facts})
    return {"clusters": len(clustering.clusters), "noise": len(clustering.noise)}


def cluster_split(args: Mapping[str, Any]) -> dict[str, Any]:
    """Cluster one cluster again, by itself."""
    from nearsight.services.cluster_edits import ClusterEdits

    edits = ClusterEdits(_collection(args))
    clustering = edits.split(args["id"], **_given(args, "k", "revision"))
    _write(args, {**documents.edited_clusters_document(clustering), "revision": edits.revision})
    return {"clusters": len(clustering.clusters)}


def map(args: Mapping[str, Any]) -> dict[str, Any]:
    """Lay the images out on a plane.

    The file holds, little-endian and without gaps, for n images: x (float32), y (float32), the number of the
    cluster (uint16, 65535 for none), and the ids (16 bytes each). So it has 26 bytes for each image.
    """
    from nearsight.services.map import saved_clusters

    collection = _collection(args)
    layout = collection.layout_2d(**_given(args, "refit", "method"))
    numbers = saved_clusters(collection)
    category = np.array([numbers.get(id, (-1, None))[0] for id in layout.ids], np.int64)
    category[(category < 0) | (category >= 65535)] = 65535
    with exported(Path(args["result_file"])) as file:
        for column in (layout.positions[:, 0], layout.positions[:, 1]):
            file.write(np.ascontiguousarray(column, "<f4").tobytes())
        file.write(category.astype("<u2").tobytes())
        file.write(bytes.fromhex("".join(layout.ids)))
    return {"points": len(layout.ids), "method": layout.method, "trustworthiness": layout.trustworthiness}


def audit(args: Mapping[str, Any]) -> dict[str, Any]:
    """Look for images that are faulty, double, alone, or in two splits."""
    options = _given(args, "where", "split", "false_alarm_rate", "n_threads")
    document = documents.audit_document(_collection(args).audit(**options))
    _write(args, document)
    return {"issues": len(document["issues"]), "counts": document["counts"], "images": document["images"]}


def compact(args: Mapping[str, Any]) -> dict[str, Any]:
    """Rewrite the collection into fewer and larger files."""
    from nearsight.services.collections import compacted

    return compacted(_collection(args))


def copy(args: Mapping[str, Any]) -> dict[str, Any]:
    """Copy the collection; where the copy is compared and differs, the result says how."""
    from nearsight.services.collections import copied

    options = _given(args, "storage", "verify", "start_over")
    _mark_uploads(args)
    try:
        return copied(args["directory"], args["target"], shown=args["to"], **options)
    except CopyDifferenceError as error:
        return {"collection": args["to"], "verified": False, "differences": error.differences}
    except NotACollectionError as error:
        raise InvalidParameterError(
            f"under the name {args['to']!r} is something else, or an unfinished copy of another collection: "
            "choose another name, or delete what is there with start_over"
        ) from error


def reduce_dim(args: Mapping[str, Any]) -> dict[str, Any]:
    """Make a collection of shorter or centered vectors."""
    from nearsight.services.collections import reduced

    options = _given(args, "dim", "storage")
    _mark_uploads(args)
    return reduced(_collection(args), args["target"], shown=args["to"], **options)


def _mark_uploads(args: Mapping[str, Any]) -> None:
    """Say that the new collection will show uploads of this one; on disk before its rows are."""
    for mark, content in args.get("marks", {}).items():
        Path(mark).parent.mkdir(parents=True, exist_ok=True)
        with exported(Path(mark)) as file:
            file.write(content.encode())


def dimension(args: Mapping[str, Any]) -> dict[str, Any]:
    """Say how many numbers of a vector are enough."""
    from nearsight.evaluation import advise_dimension

    collection = _collection(args)
    advice = advise_dimension(collection, _labels(collection, args.get("labels")), **_given(args, "keep"))
    _write(args, documents.dimension_document(advice))
    return {"advised_dim": advice.advised_dim, "rule": advice.rule}


def monitor(args: Mapping[str, Any]) -> dict[str, Any]:
    """Say whether new images are still like the known ones."""
    from nearsight.services.monitor import monitor as compare
    from nearsight.services.monitor import monitoring_document

    result = compare(_collection(args), args["new"], known=args.get("where"), by=args.get("by") or ())
    _write(args, monitoring_document(result))
    return {"known": result.n_known, "new": result.n_new, "advice": result.advice}


def outliers(args: Mapping[str, Any]) -> dict[str, Any]:
    """Rank the images by how unusual they are."""
    found = _collection(args).outliers(**_given(args, "k", "where"))
    _write(args, documents.outliers_document(found))
    return {"images": len(found)}


def classifier(args: Mapping[str, Any]) -> dict[str, Any]:
    """Fit a classifier on labels."""
    from nearsight.services.classifiers import fit_on_labels

    options = _given(
        args,
        "name",
        "doubtful",
        "method",
        "false_alarm_rate",
        "examples_per_class",
        "use_unlabeled",
        "n_threads",
    )
    return fit_on_labels(_collection(args), args["key"], **options)


def label_check(args: Mapping[str, Any]) -> dict[str, Any]:
    """Look for labels that are probably wrong."""
    from nearsight.services.classifiers import check_on_labels

    document = check_on_labels(_collection(args), args["key"], **_given(args, "doubtful"))
    _write(args, document)
    return {name: document[name] for name in ("images", "accuracy", "expected_errors")}


def predictions(args: Mapping[str, Any]) -> dict[str, Any]:
    """Save the predicted labels of all images, or of those that match, as metadata."""
    from nearsight.services.classifiers import require_classifier
    from nearsight.services.labels import save_labels

    collection = _collection(args)
    file = require_classifier(collection, args["name"])
    found = collection.classify(**_given(args, "where"), file=file)
    return {"saved": save_labels(collection, found, args["save_as"], overwrite=bool(args.get("overwrite")))}


def baskets(args: Mapping[str, Any]) -> dict[str, Any]:
    """Learn what is bought together from a table; an uploaded one is deleted then."""
    from nearsight.services.recommenders import StoredRecommenders

    with _table(args) as table:
        return StoredRecommenders(_collection(args)).fit(args["baskets"], table)


def segments(args: Mapping[str, Any]) -> dict[str, Any]:
    """Segment the customers of a table; an uploaded one is deleted then."""
    from nearsight.services.customer_segments import customer_lines, segmentation_document

    collection = _collection(args)
    with _table(args) as table:
        lines, resolution = customer_lines(collection, table)
        segmentation = collection.segment_customers(lines, **_given(args, "k", "words", "false_alarm_rate"))
    segmentation.save(args["segments_file"])
    _write(args, segmentation_document(segmentation, resolution))
    return {"segments": len(segmentation.segments), "customers": len(segmentation.customers)}


def recommendations(args: Mapping[str, Any]) -> dict[str, int]:
    """Write a table of the recommendations for every image, or for some."""
    from nearsight.services.recommendations import RecommendationOptions, write_recommendation_table
    from nearsight.services.recommenders import RecommenderCache
    from nearsight.services.shown_path import shown_path

    collection = _collection(args)
    name = args.get("baskets")
    recommender = None if name is None else RecommenderCache().get(collection, name)
    roots = {alias: Path(place) for alias, place in args["roots"].items()}
    options = RecommendationOptions(**_given(args, "k", "where", "rules", "diversity", "include_new_items"))
    return write_recommendation_table(
        Path(args["result_file"]),
        collection,
        options,
        recommender,
        ids=args.get("ids"),
        shown_path=lambda path: shown_path(path, roots),
    )


def faces(args: Mapping[str, Any]) -> dict[str, Any]:
    """Look for faces in images that were not looked into, and group all by person; the bank keeps both."""
    from nearsight.services.faces import unread_paths

    collection, bank = _collection(args), _bank(args)
    paths = unread_paths(bank, collection, args.get("where"))
    failed = bank.scan(paths)
    groups = bank.group(**_given(args, "false_match_rate"))
    return {
        "persons": sum(bool(group.person) for group in groups),
        "groups": sum(not group.person and len(group.faces) > 1 for group in groups),
        "faces": sum(len(group.faces) for group in groups),
        "images": len(paths),
        "n_failed": len(failed),
        "failed": [asdict(failure) for failure in failed[:_MOST_LISTED]],
    }


def faces_upgrade(args: Mapping[str, Any]) -> dict[str, Any]:
    """Compute the faces in the bank again from their images."""
    bank = _bank(args)
    try:
        report = bank.upgrade(**_given(args, "drop_missing"))
    except InvalidParameterError as error:
        # The message names files of this machine.
        raise InvalidParameterError(
            "some images are missing or have changed, so their faces cannot be computed again: put them "
            "back, or remove these faces (drop_missing)"
        ) from error
    return {
        "faces": report.faces,
        "n_removed": len(report.removed),
        "removed": report.removed[:_MOST_LISTED],
    }


def upgrade(args: Mapping[str, Any]) -> dict[str, Any]:
    """Move the collection to another model; the result names models by alias, and files without folders."""
    from nearsight.services.upgrade import upgrade as move
    from nearsight.services.upgrade import upgrade_document

    collection = _collection(args)
    report = move(
        collection,
        args["model_name"],
        labels=_labels(collection, args.get("labels")),
        missing=args["missing"],
        only_sample=args["dry_run"],
        allow_worse=args["force"],
        device=args.get("device", "auto"),
        cache_dir=collection.cache_dir,
    )
    document = {**upgrade_document(report), **args["aliases"]}
    document["refitted"] = [path.name for path in report.refitted]
    document["stale"] = [
        {"path": file.path.name, "kind": file.kind, "reason": file.reason} for file in report.stale
    ]
    _write(args, document)
    return document


def _collection(args: Mapping[str, Any]) -> Collection:
    cache_dir = args.get("cache_dir")
    return Collection.open(
        args["directory"],
        device=args.get("device", "auto"),
        cache_dir=None if cache_dir is None else Path(cache_dir),
    )


def _bank(args: Mapping[str, Any]) -> "FaceBank":
    from nearsight.services.faces import bank_directory, open_or_create_bank

    cache_dir = args.get("cache_dir")
    return open_or_create_bank(
        bank_directory(Path(args["directory"])),
        cache_dir=None if cache_dir is None else Path(cache_dir),
        **_given(args, "n_threads"),
    )


def _labels(collection: Collection, key: str | None) -> dict[str, str] | None:
    """Return labels by id. A key is a key, whatever folders this process stands beside."""
    from nearsight.analyses.labeled_images import labels_by_folder, labels_by_key

    if key is None:
        return None
    return (labels_by_folder(collection) if key == "folder" else labels_by_key(collection, key)) or None


@contextmanager
def _table(args: Mapping[str, Any]) -> Iterator[Path]:
    """Give the table of a job; an uploaded one is deleted when all went well."""
    table = Path(args["table"])
    try:
        yield table
    except NearsightError as error:
        # The message names the table, which has another name for clients.
        raise InvalidParameterError(str(error).replace(str(table), args["title"])) from error
    if args["is_upload"]:
        table.unlink(missing_ok=True)


def _given(args: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: args[name] for name in names if args.get(name) is not None}


def _write(args: Mapping[str, Any], document: Mapping[str, Any]) -> None:
    with exported(Path(args["result_file"])) as file:
        file.write(json.dumps(plain(document)).encode())
        file.flush()
        os.fsync(file.fileno())
