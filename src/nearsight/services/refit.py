"""Fitted files of a collection after its model changed: refitted where their inputs are kept, else listed."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nearsight.analyses import classification
from nearsight.analyses.classification import FittedClassifier
from nearsight.analyses.clusters import Clustering
from nearsight.analyses.recommendations import FittedRecommender
from nearsight.collection import Collection
from nearsight.errors import NearsightError
from nearsight.models import Fingerprint

#: What fits a file of each kind, for those whose inputs are not in the file.
COMMANDS = {
    "classifier": "nearsight classify fit --labels LABELS",
    "clustering": "nearsight cluster",
    "map": "nearsight map --refit",
    "recommender": "nearsight recommend ID --baskets CSV",
    "segmentation": "nearsight segment-customers CSV --to FILE.npz",
}
_OTHER = "the command that wrote it"


@dataclass(frozen=True, slots=True)
class StaleFile:
    """A fitted file that does not fit the collection's vectors any more.

    Attributes
    ----------
    path : Path
    kind : str
        Such as "classifier".
    command : str
        What fits it again.
    reason : str
        Why it was not refitted; empty before that was tried.
    """

    path: Path
    kind: str
    command: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RefitReport:
    """What became of fitted files: those that were refitted, and those that the user has to fit again."""

    refitted: list[Path]
    stale: list[StaleFile]


def stale_files(directory: Path, old_digest: str) -> list[StaleFile]:
    """Return the fitted files in a collection's directory that were learned from a model's vectors.

    Detectors and face banks have models of their own, and stay as they are.

    Parameters
    ----------
    directory : Path
    old_digest : str
        Of that model's fingerprint.
    """
    stale = []
    for path in sorted([*directory.glob("*.npz"), *directory.glob("*/*.npz")]):
        try:
            with np.load(path, allow_pickle=False) as archive:
                facts = json.loads(str(archive["about"])) if "about" in archive.files else {}
        except (OSError, ValueError):
            continue
        if old_digest in _digests(facts):
            kind = str(facts.get("kind", "")).removeprefix("nearsight ")
            stale.append(StaleFile(path, kind, COMMANDS.get(kind, _OTHER)))
    return stale


def refit(collection: Collection, old_digest: str, *, progress: bool | None = None) -> RefitReport:
    """Refit the fitted files of a collection after an upgrade, as far as they keep what they learned from.

    A classifier keeps its labels, clusters their images (names and metadata stay; edits can be undone no
    more), a recommender its baskets, and the map needs the vectors alone. Files are replaced whole; one that
    fails stays as it was, and is listed.

    Parameters
    ----------
    collection : Collection
        With the new model.
    old_digest : str
        Of the fingerprint of the old model.
    progress : bool, optional
        See `nearsight.progress.bar`.
    """
    refits: dict[str, Callable[[Collection, Path], None]] = {
        "classifier": _classifier,
        "clustering": _clusters,
        "recommender": _recommender,
        "map": lambda collection, path: _map(collection, path, progress),
    }
    refitted, stale = [], []
    for file in stale_files(collection.directory, old_digest):
        if file.kind not in refits:
            stale.append(StaleFile(file.path, file.kind, file.command, "it keeps no inputs"))
            continue
        try:
            refits[file.kind](collection, file.path)
            refitted.append(file.path)
        except (NearsightError, ValueError, KeyError) as error:
            stale.append(StaleFile(file.path, file.kind, file.command, str(error)))
    return RefitReport(refitted, stale)


def _classifier(collection: Collection, path: Path) -> None:
    classification.refit_classifier(collection, FittedClassifier.load(path)).save(path)


def _clusters(collection: Collection, path: Path) -> None:
    Clustering.load(path).refitted(collection).save(path)


def _recommender(collection: Collection, path: Path) -> None:
    FittedRecommender.refitted(collection, path).save(path)


def _map(collection: Collection, path: Path, progress: bool | None) -> None:
    from nearsight.analyses import map as image_map

    if path != collection.directory / image_map.FILENAME:
        raise ValueError("it is not the collection's own map")
    image_map.layout_2d(collection, refit=True, method=image_map.saved_method(path), progress=progress)


def _digests(facts: Mapping[str, object]) -> set[str]:
    found = set()
    for value in facts.values():
        if isinstance(value, Mapping) and {"model", "weights_sha256", "output"} <= set(value):
            found.add(Fingerprint.from_dict(dict(value)).digest)
    return found
