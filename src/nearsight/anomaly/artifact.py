"""A fitted detector in one file: arrays and JSON in a zip archive, no pickle.

::

    about.npy   JSON: format, model, layers, views, fingerprint, conditions of the good images, facts of the
                estimator
    known.npy   hashes of the good images, so that none is learned twice
    template.npy   gray pixels of the template, where all images have one
    *.npy       arrays of the estimator

Formats 1 and 2 compared other layers and places. Their scores cannot be computed any more, so such
files are refused.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nearsight.anomaly.conditions import Conditions
from nearsight.anomaly.templates import Templates
from nearsight.anomaly.views import View
from nearsight.artifacts import read_artifact, write_artifact
from nearsight.errors import DetectorFileError, FingerprintMismatchError
from nearsight.models import Fingerprint
from nearsight.models.dense_features import FeatureMaps, load_features

if TYPE_CHECKING:
    from nearsight.estimators.anomaly import MultiLevelAnomaly

_KIND, _FORMAT = "detector", 3
_REMEDY = "fit one on good images: nearsight anomaly fit GOOD_DIR --to FILE"


@dataclass(frozen=True, slots=True)
class SavedDetector:
    """The content of a detector's file.

    Attributes
    ----------
    features : FeatureMaps
        The loaded model; its fingerprint is that of the file.
    views : tuple of View
    max_tiles : int
    estimator : MultiLevelAnomaly
        Fitted.
    conditions : Conditions
        Of the good images.
    known_ids : set of int
        The first 64 bits of the hash of each good image.
    templates : Templates or None
        None without templates, and where each image has its own.
    """

    features: FeatureMaps
    views: tuple[View, ...]
    max_tiles: int
    estimator: "MultiLevelAnomaly"
    conditions: Conditions
    known_ids: set[int]
    templates: Templates | None


def write_detector(path: Path, detector: SavedDetector) -> None:
    """Write a detector, whole or not at all.

    Raises
    ------
    StorageError
        The file cannot be written; the message says what to do.
    """
    facts, arrays = detector.estimator.state()
    document = {
        "model": detector.features.spec.id,
        "layers": list(detector.features.layers),
        "fingerprint": detector.features.fingerprint.to_dict(),
        "views": [view.to_dict() for view in detector.views],
        "max_tiles": detector.max_tiles,
        "conditions": detector.conditions.to_dict(),
        "task": facts,
    }
    known = np.array(sorted(detector.known_ids), np.uint64)
    template = detector.templates.pixels() if detector.templates else None
    pixels = {} if template is None else {"template": template}
    write_artifact(path, _KIND, _FORMAT, document, {**arrays, "known": known, **pixels})


def read_detector(path: Path, model: str | None, cache_dir: Path | None) -> SavedDetector:
    """Read a detector, and load its model; see `AnomalyDetector.load`."""
    from nearsight.estimators.anomaly import MultiLevelAnomaly

    with read_artifact(path, _KIND, _FORMAT, error=DetectorFileError, remedy=_REMEDY) as (document, arrays):
        if document["format"] < _FORMAT:
            raise DetectorFileError(
                f"{path} was saved by an earlier version of nearsight, which scored images in another way;"
                f" {_REMEDY}"
            )
        stamped = Fingerprint.from_dict(document["fingerprint"])
        estimator = MultiLevelAnomaly.from_state(document["task"], arrays)
        views = tuple(View.from_dict(view) for view in document["views"])
        conditions = Conditions.from_dict(document["conditions"])
        known_ids = set(arrays["known"].tolist())
        templates = Templates.of_pixels(arrays["template"]) if "template" in arrays else None
        layers, max_tiles = list(document["layers"]), int(document["max_tiles"])
        name = model or str(document["model"])
    features = load_features(name, layers, cache_dir=cache_dir)
    if features.fingerprint != stamped:
        differences = "; ".join(stamped.differences(features.fingerprint))
        raise FingerprintMismatchError(
            f"{path} was fitted on other features than {name} computes here: {differences}. Fit it again on"
            " the good images, or install the versions it was fitted with"
        )
    return SavedDetector(features, views, max_tiles, estimator, conditions, known_ids, templates)
