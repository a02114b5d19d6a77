"""Results of analyses as JSON documents: what ``--json`` prints, and what the service answers."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nearsight.analyses.audit import Audit
    from nearsight.analyses.classification import FittedClassifier, Prediction
    from nearsight.analyses.clusters import Clustering
    from nearsight.analyses.duplicate_groups import DuplicateGroup, Duplicates, Leak
    from nearsight.analyses.label_check import LabelCheck
    from nearsight.analyses.outliers import Outlier
    from nearsight.analyses.recommendations import Recommendations
    from nearsight.estimators.classification import LabelCut
    from nearsight.evaluation import DimensionAdvice, Estimate
    from nearsight.models.precision.int8_calibration import Int8Calibration, Int8Trial

#: How vectors in eight bits compare with exact ones.
INT8_MEASURES = ("smallest_cosine", "mean_cosine", "top10_overlap", "knn_agreement", "speedup")


def duplicates_document(result: "Duplicates") -> dict[str, Any]:
    """Return near-duplicates as plain data."""
    return {
        "groups": [_group_document(group) for group in result.groups],
        "leaks": [leak_document(leak) for leak in result.leaks],
        "images": result.n_images,
        "threshold": result.threshold,
        "false_alarm_rate": result.calibration.false_alarm_rate if result.calibration else None,
        "expected_rate": result.expected_rate,
    }


def clusters_document(clustering: "Clustering") -> dict[str, Any]:
    """Return clusters as plain data."""
    n_clusters = len(clustering.clusters)
    return {
        "clusters": [
            {
                "id": cluster.id,
                "size": len(cluster.ids),
                "representative": cluster.representative,
                "name": cluster.name,
                "ids": cluster.ids,
                "representatives": cluster.representatives,
                "words": cluster.words,
            }
            for cluster in clustering.clusters
        ],
        "noise": clustering.noise,
        "algorithm": clustering.algorithm,
        "coordinates": clustering.coordinates,
        "levels": clustering.levels,
        "level": clustering.level,
        "tree": [
            {"node": node, "joins": [a, b], "similarity": similarity, "size": size}
            for node, (a, b, similarity, size) in enumerate(clustering.tree, n_clusters)
        ],
    }


def edited_clusters_document(clustering: "Clustering") -> dict[str, Any]:
    """Return clusters as plain data, with what somebody changed about them, the latest last."""
    return {**clusters_document(clustering), "edits": [edit.title for edit in clustering.edits]}


def audit_document(result: "Audit") -> dict[str, Any]:
    """Return an audit as plain data."""
    return {
        "issues": [asdict(issue) for issue in result.issues],
        "counts": result.counts,
        "images": result.n_images,
        "classes": result.class_counts,
        "limits": result.limits.limits,
        "false_alarm_rate": result.limits.false_alarm_rate,
        "notes": result.notes,
        "label_cuts": [_rounded_cut(cut) for cut in result.label_cuts],
        "coverage": [
            {
                "split": part.split,
                "images": part.n,
                "covered": round(part.share, 4),
                "radius": round(part.radius, 4),
                "classes": {
                    label: {"images": n, "covered": n_covered}
                    for label, (n, n_covered) in part.by_class.items()
                },
            }
            for part in result.coverage
        ],
    }


def _rounded_cut(cut: "LabelCut") -> dict[str, Any]:
    precision = None if cut.precision is None else round(cut.precision, 4)
    return {"cut": cut.name, "images": cut.n, "precision": precision, "recall": round(cut.recall, 4)}


def classifier_document(classifier: "FittedClassifier") -> dict[str, Any]:
    """Return what a fitted classifier is as plain data."""
    estimator = classifier.estimator
    scores = estimator.left_out_.get(estimator.method_, {})
    threshold = estimator.threshold_
    return {
        "classes": [{"label": label, "examples": n} for label, n in classifier.counts.items()],
        "method": estimator.method_,
        "chosen_by": estimator.chosen_by_,
        "unlabeled": estimator.n_unlabeled_,
        "accuracy": scores.get("accuracy"),
        "calibration_error": scores.get("calibration_error"),
        "false_alarm_rate": threshold.false_alarm_rate if threshold else None,
        "why_no_unknown": estimator.why_no_threshold_,
        "failed": [asdict(failure) for failure in classifier.failed],
    }


def label_check_document(result: "LabelCheck") -> dict[str, Any]:
    """Return a check of labels as plain data."""
    return {
        "images": result.n_images,
        "accuracy": round(result.accuracy, 4),
        "expected_errors": result.n_expected,
        "classes": [asdict(facts) for facts in result.classes],
        "confusion": result.confusion,
        "suspects": [asdict(suspect) for suspect in result.suspects],
        "cuts": [_rounded_cut(cut) for cut in result.cuts],
        "failed": [asdict(failure) for failure in result.failed],
    }


def prediction_document(prediction: "Prediction") -> dict[str, Any]:
    """Return a prediction as plain data; without a classifier, label and probability are null."""
    has_label = bool(prediction.label)
    return {
        "id": prediction.id,
        "path": prediction.path,
        "label": prediction.label if has_label else None,
        "probability": round(prediction.probability, 4) if has_label else None,
        "unknown": prediction.unknown,
    }


def recommendations_document(
    result: "Recommendations", ids: Sequence[str], shown_path: Callable[[str], str] = str
) -> dict[str, Any]:
    """Return recommendations for the images `ids` as plain data."""
    return {
        "items": [{**asdict(image), "path": shown_path(image.path)} for image in result.items],
        "for": list(ids),
        "baskets": result.n_baskets,
        "learned": result.learned,
        "similar_lift": result.similar_lift,
        "new": result.n_new,
    }


def _group_document(group: "DuplicateGroup") -> dict[str, Any]:
    return {
        "keep": group.keep.id,
        "ids": [item.id for item in group.items],
        "similarity": group.similarity,
        "certain": group.certain,
        "agreement": group.agreement,
        "verified_against": group.verified_against,
        "paths": [path for item in group.items for path in item.paths],
        "redundant": group.redundant,
        "review": group.review,
        "hard_links": group.hard_links,
        "doubts": [doubt or None for doubt in group.doubts],
        "why": group.why,
    }


def leak_document(leak: "Leak") -> dict[str, Any]:
    """Return a near-duplicate across two parts of a collection as plain data."""
    return {
        "ids": [leak.first.id, leak.second.id],
        "paths": [leak.first.path, leak.second.path]
        if leak.first.id != leak.second.id
        else leak.first.paths[:2],  # identical files are one image
        "similarity": leak.similarity,
        "agreement": leak.agreement,
    }


def dimension_document(advice: "DimensionAdvice") -> dict[str, Any]:
    """Return what lengths of vectors are worth as plain data."""
    return {
        "advised_dim": advice.advised_dim,
        "rule": advice.rule,
        "method": advice.method,
        "images": advice.n_images,
        "dimensions": [
            {
                "dim": row.dim,
                "neighbors_kept": round(row.neighbors_kept.value, 5),
                "neighbors_kept_interval": _interval(row.neighbors_kept),
                "recall@1": None if row.recall is None else round(row.recall.value, 5),
                "recall@1_interval": None if row.recall is None else _interval(row.recall),
                "bytes_per_vector": row.bytes_per_vector,
                "search_ms": round(row.search_ms, 4),
            }
            for row in advice.rows
        ],
    }


def _interval(estimate: "Estimate") -> list[float]:
    return [round(estimate.low, 5), round(estimate.high, 5)]


def outliers_document(outliers: "Sequence[Outlier]") -> dict[str, Any]:
    """Return unusual images as plain data, the most unusual first."""
    return {
        "items": [
            {"id": each.item.id, "path": each.item.path, "distance": each.distance} for each in outliers
        ]
    }


def int8_document(calibrated: "Int8Calibration") -> dict[str, Any]:
    """Return an int8 variant of a model as plain data."""
    trials = [_int8_trial(trial) for trial in calibrated.trials]
    return {
        "model": calibrated.model,
        "calibrated_on": calibrated.n_calibration,
        "held_out": calibrated.n_held_out,
        **{key: trials[-1][key] for key in INT8_MEASURES},
        "trials": trials,
    }


def _int8_trial(trial: "Int8Trial") -> dict[str, Any]:
    parity = asdict(trial.parity)
    return {
        "float32_operations": trial.n_float32,
        "smallest_cosine": round(parity["smallest"], 5),
        "smallest_builtin_cosine": round(trial.smallest_synthetic, 5),
        "mean_cosine": round(parity["mean"], 5),
        "top10_overlap": round(parity["overlap"], 3),
        "knn_agreement": round(trial.knn_agreement, 3),
        "speedup": round(trial.speedup, 2),
    }
