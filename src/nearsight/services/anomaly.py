"""Detectors of defects: what the command line and the jobs of the service share."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nearsight.anomaly import AnomalyDetector, AnomalyResult
from nearsight.anomaly.heatmap import reason


def fitted_detector(
    images: Sequence[str],
    *,
    from_file: Path | None = None,
    options: Mapping[str, Any],
    runtime: Mapping[str, Any],
    walk: Mapping[str, Any],
) -> AnomalyDetector:
    """Fit a detector on good images, or let a saved one learn from more.

    Parameters
    ----------
    images : sequence of str
        Files, folders, globs and shards.
    from_file : Path, optional
        A saved detector.
    options : mapping
        Of `AnomalyDetector`, or of `AnomalyDetector.load`.
    runtime : mapping
        `n_threads`, `limits`, `cache_dir` and `progress`, which both take.
    walk : mapping
        Of `AnomalyDetector.fit`.

    Raises
    ------
    CalibrationError
        There are too few images for the false-alarm rate.
    """
    if from_file is not None:
        return AnomalyDetector.load(from_file, **options, **runtime).partial_fit(list(images), **walk)
    return AnomalyDetector(**options, **runtime).fit(list(images), **walk)


def fit_document(detector: AnomalyDetector, file: Path) -> dict[str, Any]:
    """Return what a detector was fitted on as plain data."""
    threshold = detector.threshold_
    return {
        "file": str(file),
        "images": detector.n_images_seen_,
        "held_out": threshold.n_examples,
        "threshold": threshold.value,
        "false_alarm_rate": threshold.false_alarm_rate,
        "expected_rate": threshold.expected_rate,
        "model": detector.features.spec.id,
        "layers": list(detector.features.layers),
        "duplicates": detector.duplicates_,
        "failed": [asdict(failure) for failure in detector.failed_],
    }


def score_document(result: AnomalyResult) -> dict[str, Any]:
    """Return the result of one image as plain data, without its heatmap."""
    return {
        "path": result.path,
        "score": result.score,
        "threshold": result.threshold,
        "defect": result.defect,
        "why": reason(result),
        "notes": list(result.notes),
    }
