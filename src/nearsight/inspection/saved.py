"""A fitted detector in one file: arrays and JSON in a zip archive, nothing that is run when it is read.

::

    facts.npy           JSON: format, library version, model, layers, fingerprint, tiles, what the task says
    *.npy               what was learnt

Zip's own checksums tell a damaged file.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import DetectorFileError, FingerprintMismatchError, NearsightError, NewerFormatError
from nearsight.files import exported
from nearsight.models import Fingerprint
from nearsight.models.places import FeatureMaps, load_features
from nearsight.tasks.anomaly import MultiLevelAnomaly

_FORMAT = 1
_KIND = "nearsight anomaly detector"


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
        "kind": _KIND,
        "format": _FORMAT,
        "model": features.spec.id,
        "layers": list(features.layers),
        "fingerprint": features.fingerprint.to_dict(),
        "max_tiles": max_tiles,
        "task": facts,
    }
    with exported(path) as file:
        np.savez(file, allow_pickle=False, facts=np.array(json.dumps(document)), **arrays)


def read(path: Path, model: str | None, cache_dir: Path | None) -> Saved:
    """Read a detector, and load its model; see `AnomalyDetector.load`."""
    document, arrays = _unpacked(path)
    stamped = Fingerprint.from_dict(document["fingerprint"])
    name = model or str(document["model"])
    features = load_features(name, document["layers"], cache_dir=cache_dir)
    if features.fingerprint != stamped:
        differences = "; ".join(stamped.differences(features.fingerprint))
        raise FingerprintMismatchError(
            f"{path} was fitted on features that {name} does not give here: {differences}. Fit it again on"
            " the good pictures, or install what it was fitted with"
        )
    try:
        task = MultiLevelAnomaly.from_state(document["task"], arrays)
    # Whatever is missing or misshapen in there.
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, error) from error
    return Saved(features, int(document["max_tiles"]), task)


def _unpacked(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            document = json.loads(str(archive["facts"]))
            if document["kind"] != _KIND:
                raise ValueError(f"it says it is {document['kind']!r}")
            if document["format"] > _FORMAT:
                raise NewerFormatError(
                    f"{path} was written by a newer nearsight: pip install --upgrade nearsight"
                )
            arrays = {name: archive[name] for name in archive.files if name != "facts"}
        for key in ("model", "layers", "fingerprint", "max_tiles", "task"):
            document[key]
        return document, arrays
    except FileNotFoundError:
        raise DetectorFileError(
            f"There is no file {path}; nearsight anomaly fit GOOD_DIR --out FILE makes one"
        ) from None
    except NearsightError:
        raise
    # A damaged archive can raise nearly anything.
    except Exception as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DetectorFileError:
    return DetectorFileError(
        f"{path} holds no sound detector ({type(error).__name__}: {error}); fit it again on the good pictures"
    )
