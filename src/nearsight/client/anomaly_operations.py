"""What a client can ask of the detectors of a collection; see `nearsight.client.operations`."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nearsight.client import operations
from nearsight.client.job_operations import job_result
from nearsight.client.requests import Named, Operation, Request
from nearsight.errors import ImageFailure

if TYPE_CHECKING:
    from nearsight.anomaly import AnomalyResult


class NamedDetector(Protocol):
    """A detector of a collection."""

    collection: str
    name: str


def detectors(collection: Named) -> Operation[list[dict[str, Any]]]:
    """Return the detectors of the collection: what each was fitted on, its threshold, numbers of images."""
    listed: list[dict[str, Any]] = (yield Request("GET", _path(collection.name))).json()["detectors"]
    return listed


def fit_detector(
    collection: Named,
    name: str,
    *,
    folder: str | None = None,
    where: str | None = None,
    ids: Sequence[str] | None = None,
    false_alarm_rate: float | None = None,
    level: str | None = None,
    max_tiles: int | None = None,
    n_patches: int | None = None,
) -> Operation[dict[str, Any]]:
    """Fit a detector on good images, and wait; return what was fitted.

    Parameters
    ----------
    name : str
    folder : str, optional
        Of the server: ``ROOT/below/it``. Either this, `where` or `ids`.
    where, ids : str, sequence of str, optional
        Images of the collection.
    false_alarm_rate, level, max_tiles, n_patches
        See `AnomalyDetector`.
    """
    body = {
        "name": name,
        "folder": folder,
        "where": where,
        "ids": None if ids is None else list(ids),
        "false_alarm_rate": false_alarm_rate,
        "level": level,
        "max_tiles": max_tiles,
        "n_patches": n_patches,
    }
    chosen = {key: value for key, value in body.items() if value is not None}
    return (yield from job_result(Request("POST", _path(collection.name), json=chosen)))


def info(detector: NamedDetector) -> Operation[dict[str, Any]]:
    """Return what the detector was fitted on, its threshold, and numbers of images."""
    facts: dict[str, Any] = (yield Request("GET", _at(detector))).json()
    return facts


def delete(detector: NamedDetector) -> Operation[None]:
    """Delete the detector, what it scored, and what was decided."""
    yield Request("DELETE", _at(detector))


def refit(detector: NamedDetector) -> Operation[dict[str, Any]]:
    """Fit again with the images confirmed as good, and without confirmed defects; wait."""
    return (yield from job_result(Request("POST", _at(detector, "refit"))))


def score(
    detector: NamedDetector, inputs: Any, *, heatmaps: bool = False, keep: bool = True
) -> Operation[list["AnomalyResult | ImageFailure"]]:
    """Score images of this machine; see `AnomalyDetector.score`.

    Parameters
    ----------
    inputs : path, PIL image, uint8 array, bytes, or iterable of those
        Folders are walked.
    heatmaps : bool, default False
        Whether to fetch the score of each pixel; needs `keep`.
    keep : bool, default True
        Whether the service keeps the images, to be looked at and confirmed.

    Returns
    -------
    list of AnomalyResult or ImageFailure
        In input order; files that cannot be read on this machine come last. A heatmap has at most 128
        values a side, stretched to the image's size.
    """
    from nearsight.anomaly import AnomalyResult

    results: list[AnomalyResult | ImageFailure] = []
    unreadable: list[ImageFailure] = []
    for batch in operations._batches(operations._files(inputs, failed=unreadable)):
        files = [("image", (name, data)) for name, data, _ in batch]
        request = Request("POST", _at(detector, "score"), files=files, params={"keep": keep})
        answer = (yield request).json()
        outcomes = {each["index"]: each for each in [*answer["scores"], *answer["failed"]]}
        for index, (_, data, path) in enumerate(batch):
            facts = outcomes[index]
            if "reason" in facts:
                results.append(ImageFailure(path, facts["reason"]))
                continue
            size = facts["width"], facts["height"]
            grid = (yield from heatmap(detector, facts["id"])) if heatmaps and keep else None
            results.append(
                AnomalyResult(
                    path=path,
                    score=facts["score"],
                    threshold=facts["threshold"],
                    defect=facts["defect"],
                    levels=facts["levels"],
                    heatmap=None if grid is None else _stretched(grid, size),
                    image=Image.open(io.BytesIO(data)).convert("RGB").resize(size) if heatmaps else None,
                    notes=tuple(facts["notes"]),
                )
            )
    return [*results, *unreadable]


def score_folder(detector: NamedDetector, folder: str) -> Operation[dict[str, Any]]:
    """Score a folder of the server, and wait; return numbers of images and defects, and what failed.

    Parameters
    ----------
    folder : str
        ``ROOT/below/it``. Images that were scored before cost a look at each file.
    """
    request = Request("POST", _at(detector, "folders"), json={"folder": folder})
    return (yield from job_result(request))


def watch_folder(detector: NamedDetector, folder: str, *, settle_s: float = 2.0) -> Operation[dict[str, Any]]:
    """Score the images of a folder of the server as they come; return the job, which `cancel_job` ends.

    Parameters
    ----------
    folder : str
        ``ROOT/below/it``.
    settle_s : float, default 2
        How long a file must not change before it is scored.
    """
    body = {"folder": folder, "watch": True, "settle_s": settle_s}
    job: dict[str, Any] = (yield Request("POST", _at(detector, "folders"), json=body)).json()
    return job


def scored_images(
    detector: NamedDetector,
    *,
    side: str | None = None,
    order: str = "score",
    offset: int = 0,
    limit: int = 100,
) -> Operation[list[dict[str, Any]]]:
    """Return scored images, the most anomalous or the latest first.

    Parameters
    ----------
    side : {"defect", "good"}, optional
        By the verdict; without one, by the threshold.
    order : {"score", "time"}
    offset, limit : int
    """
    params = {"order": order, "offset": offset, "limit": limit, **({} if side is None else {"side": side})}
    images: list[dict[str, Any]] = (yield Request("GET", _at(detector, "images"), params=params)).json()[
        "images"
    ]
    return images


def heatmap(detector: NamedDetector, id: str) -> Operation[NDArray[np.float32]]:
    """Return the heatmap of a scored image: (height, width) float32, at most 128 a side, in score units."""
    data = (yield Request("GET", _at(detector, "images", id, "heatmap"))).content
    width, height = np.frombuffer(data[:4], "<u2")
    return np.frombuffer(data[4:], "<f4").reshape(int(height), int(width)).astype(np.float32)


def threshold(detector: NamedDetector) -> Operation[dict[str, Any]]:
    """Return the threshold and the curve of others: expected rate of false alarms, interval, images above."""
    document: dict[str, Any] = (yield Request("GET", _at(detector, "threshold"))).json()
    return document


def threshold_effect(detector: NamedDetector, at: float) -> Operation[dict[str, Any]]:
    """Return what another threshold would do: false alarms, and which images would change sides."""
    request = Request("GET", _at(detector, "threshold", "effect"), params={"at": at})
    document: dict[str, Any] = (yield request).json()
    return document


def set_threshold(detector: NamedDetector, threshold: float | None) -> Operation[dict[str, Any]]:
    """Set the threshold; None goes back to the calibrated one. Return what the detector is."""
    request = Request("PUT", _at(detector, "threshold"), json={"threshold": threshold})
    facts: dict[str, Any] = (yield request).json()
    return facts


def decide(detector: NamedDetector, ids: str | Sequence[str], verdict: str | None) -> Operation[int]:
    """Remember that images are "good" or a "defect"; None takes it back. Return how many changed."""
    body = {"ids": [ids] if isinstance(ids, str) else list(ids), "verdict": verdict}
    return int((yield Request("POST", _at(detector, "verdicts"), json=body)).json()["changed"])


def _path(collection: str, *parts: str) -> str:
    names = (collection, "detectors", *parts)
    return "/".join(["/v1/collections", *(quote(part, safe="") for part in names)])


def _at(detector: NamedDetector, *parts: str) -> str:
    return _path(detector.collection, detector.name, *parts)


def _stretched(grid: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    return np.asarray(Image.fromarray(grid).resize(size, Image.Resampling.BILINEAR), np.float32)
