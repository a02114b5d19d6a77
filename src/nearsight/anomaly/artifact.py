"""A fitted detector in one file: arrays and JSON in a zip archive, no pickle.

::

    about.npy   JSON: format, library version, model, layers, fingerprint, tiles, facts of the estimator
    *.npy       arrays of the estimator
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from nearsight.artifacts import read_artifact, write_artifact
from nearsight.errors import DetectorFileError, FingerprintMismatchError
from nearsight.estimators.anomaly import MultiLevelAnomaly
from nearsight.models import Fingerprint
from nearsight.models.dense_features import FeatureMaps, load_features

_KIND, _FORMAT = "detector", 1


@dataclass(frozen=True, slots=True)
class SavedDetector:
    """The content of a detector's file.

    Attributes
    ----------
    features : FeatureMaps
        The loaded model; its fingerprint is that of the file.
    max_tiles : int
    estimator : MultiLevelAnomaly
        Fitted.
    """

    features: FeatureMaps
    max_tiles: int
    estimator: MultiLevelAnomaly


def write_detector(
    path: Path,
    features: FeatureMaps,
    max_tiles: int,
    facts: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
) -> None:
    """Write a detector, whole or not at all.

    Raises
    ------
    StorageError
        The file cannot be written; the message says what to do.
    """
    document = {
        "model": features.spec.id,
        "layers": list(features.layers),
        "fingerprint": features.fingerprint.to_dict(),
        "max_tiles": max_tiles,
        "task": facts,
    }
    write_artifact(path, _KIND, _FORMAT, document, arrays)


def read_detector(path: Path, model: str | None, cache_dir: Path | None) -> SavedDetector:
    """Read a detector, and load its model; see `AnomalyDetector.load`."""
    remedy = "fit one on good images: nearsight anomaly fit GOOD_DIR --to FILE"
    with read_artifact(path, _KIND, _FORMAT, error=DetectorFileError, remedy=remedy) as (document, arrays):
        stamped = Fingerprint.from_dict(document["fingerprint"])
        estimator = MultiLevelAnomaly.from_state(document["task"], arrays)
        layers, max_tiles = list(document["layers"]), int(document["max_tiles"])
        name = model or str(document["model"])
    features = load_features(name, layers, cache_dir=cache_dir)
    if features.fingerprint != stamped:
        differences = "; ".join(stamped.differences(features.fingerprint))
        raise FingerprintMismatchError(
            f"{path} was fitted on other features than {name} computes here: {differences}. Fit it again on"
            " the good images, or install the versions it was fitted with"
        )
    return SavedDetector(features, max_tiles, estimator)
