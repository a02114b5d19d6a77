"""A fitted detector in one file: arrays and JSON in a zip archive, nothing that is run when it is read.

::

    about.npy           JSON: format, library version, model, layers, fingerprint, tiles, what the task says
    *.npy               what was learned
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
class Saved:
    """What a file holds.

    Attributes
    ----------
    features : FeatureMaps
        The model, found and checked.
    max_tiles : int
    task : MultiLevelAnomaly
        Fitted.
    """

    features: FeatureMaps
    max_tiles: int
    task: MultiLevelAnomaly


def write(
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
        The disk refuses.
    """
    document = {
        "model": features.spec.id,
        "layers": list(features.layers),
        "fingerprint": features.fingerprint.to_dict(),
        "max_tiles": max_tiles,
        "task": facts,
    }
    write_artifact(path, _KIND, _FORMAT, document, arrays)


def read(path: Path, model: str | None, cache_dir: Path | None) -> Saved:
    """Read a detector, and load its model; see `AnomalyDetector.load`."""
    remedy = "nearsight anomaly fit GOOD_DIR --out FILE makes one of good images"
    with read_artifact(path, _KIND, _FORMAT, error=DetectorFileError, remedy=remedy) as (document, arrays):
        stamped = Fingerprint.from_dict(document["fingerprint"])
        task = MultiLevelAnomaly.from_state(document["task"], arrays)
        layers, max_tiles = list(document["layers"]), int(document["max_tiles"])
        name = model or str(document["model"])
    features = load_features(name, layers, cache_dir=cache_dir)
    if features.fingerprint != stamped:
        differences = "; ".join(stamped.differences(features.fingerprint))
        raise FingerprintMismatchError(
            f"{path} was fitted on features that {name} does not give here: {differences}. Fit it again on"
            " the good images, or install what it was fitted with"
        )
    return Saved(features, max_tiles, task)
