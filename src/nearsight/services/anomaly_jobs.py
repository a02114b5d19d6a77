"""Jobs of a detector: fit it, score a folder, watch a folder."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nearsight import progress
from nearsight.anomaly import AnomalyDetector, AnomalyResult
from nearsight.collection import Collection
from nearsight.errors import DetectorFileError, ImageError, ImageFailure
from nearsight.images import ImageSource, Limits, MemorySource, content_id, exists, find
from nearsight.services.anomaly import fit_document, fitted_detector
from nearsight.services.inspections import Inspection
from nearsight.services.whole_files import Stamp, WholeFiles, stamp_of

_MAX_LISTED = 1000
# A watched folder is looked at this often, and never for more than a fifth of the time.
_POLL_S, _MOST_POLLING = 0.5, 5.0
_OPTIONS = ("model", "false_alarm_rate", "level", "max_tiles", "n_patches")


def anomaly_fit(args: Mapping[str, Any]) -> dict[str, Any]:
    """Fit a detector, or fit it again with what people confirmed; then score its images again.

    Images that were confirmed as good are learned, and those confirmed as defects are left out. Neither is
    held out for the threshold: they are no random sample of good images.
    """
    inspection = Inspection(Path(args["inspection"]))
    options = {name: args[name] for name in _OPTIONS if args.get(name) is not None}
    images = good_images(args)
    learned: list[str] = []
    if inspection.exists():
        images = _without(images, set(inspection.confirmed("defect")))
        copies = [inspection.content(id) for id in inspection.confirmed("good")]
        learned = [str(found[0]) for found in copies if found is not None]
    detector = fitted_detector(images, options=options, runtime=_runtime(args), walk={"also_learn": learned})
    document = fit_document(detector, Path(inspection.name))
    for name in ("file", "layers"):
        del document[name]
    fit = {
        **document,
        "duplicates": len(document["duplicates"]),
        "n_failed": len(document["failed"]),
        "failed": document["failed"][:_MAX_LISTED],
        "learned": len(learned),
    }
    summary = {name: fit[name] for name in fit if name != "failed"}
    revision = inspection.save(detector, {"source": args["source"], "options": options, "fit": summary})
    return {**fit, "scored_again": rescore(inspection, detector, revision)}


def anomaly_score(args: Mapping[str, Any]) -> dict[str, Any]:
    """Score the images of a folder that are new, or have changed."""
    inspection = Inspection(Path(args["inspection"]))
    detector, revision = load(inspection, args)
    known = inspection.known_files()
    sources = list(find(args["folder"]))
    totals = {"images": 0, "defects": 0, "unchanged": 0}
    failed: list[ImageFailure] = []
    threshold = inspection.threshold().value

    def changed() -> Iterator[tuple[ImageSource, Stamp]]:
        for source in progress.track(sources, "scoring"):
            try:
                if isinstance(source, ImageFailure):
                    raise ImageError(source.path, source.reason)
                stamp = stamp_of(source)
            except ImageError as error:
                failed.append(ImageFailure(error.path, error.reason))
                continue
            if known.get(source.key) == stamp:
                totals["unchanged"] += 1
            else:
                yield source, stamp

    for source, stamp, result in score_files(inspection, detector, revision, changed()):
        if isinstance(result, ImageFailure):
            failed.append(result)
            inspection.add_file(source.path, stamp, reason=result.reason)
        elif result is not None:
            totals["images"] += 1
            totals["defects"] += result.score > threshold
    listed = [asdict(failure) for failure in failed[:_MAX_LISTED]]
    return {**totals, "n_failed": len(failed), "failed": listed}


def anomaly_watch(args: Mapping[str, Any]) -> dict[str, Any]:
    """Score the images of a folder as they come, until the job is cancelled."""
    watch = Watch(args)
    with progress.bar("watching") as bar:
        while True:
            started = time.monotonic()
            n_scored = watch.step(bar.update)
            time.sleep(max(_POLL_S, _MOST_POLLING * (time.monotonic() - started) if not n_scored else 0.0))
            if n_scored:
                # Progress that follows too soon is not told, so that of the last image is told once more.
                bar.update(0)


class Watch:
    """A folder whose new images are scored, one look after the other.

    Parameters
    ----------
    args : mapping
        Of the job.
    clock : callable
        See `WholeFiles`.
    """

    def __init__(self, args: Mapping[str, Any], clock: Callable[[], float] = time.monotonic) -> None:
        self._args = args
        self._inspection = Inspection(Path(args["inspection"]))
        self._detector, self._revision = load(self._inspection, args)
        self._files = WholeFiles(
            args["folder"],
            settle_s=float(args.get("settle_s", 2.0)),
            known=self._inspection.known_files(),
            clock=clock,
        )

    def step(self, scored: Callable[[float], object] = lambda n: None) -> int:
        """Score the images that have become whole; return how many."""
        whole = self._files.poll()
        n_scored = 0
        if self._inspection.facts()["revision"] != self._revision:
            self._detector, self._revision = load(self._inspection, self._args)
            # Those that this watch scored while the detector was being fitted.
            rescore(self._inspection, self._detector, self._revision)
        for source, stamp, result in score_files(self._inspection, self._detector, self._revision, whole):
            if not isinstance(result, ImageFailure):
                self._files.accept(source, stamp)
            elif self._files.refuse(source):
                continue
            else:
                self._inspection.add_file(source.path, stamp, reason=result.reason)
            n_scored += 1
            scored(1)
        return n_scored


def score_files(
    inspection: Inspection,
    detector: AnomalyDetector,
    revision: int,
    files: Iterable[tuple[ImageSource, Stamp]],
) -> Iterator[tuple[ImageSource, Stamp, AnomalyResult | ImageFailure | None]]:
    """Score files and note the results; yield each file with its result.

    The result is None for an image that this revision scored before, under whatever name. A failure is not
    noted: the file may still be written.
    """
    limits = Limits()
    pending: deque[tuple[ImageSource, Stamp, str]] = deque()
    scored_before: deque[tuple[ImageSource, Stamp, None]] = deque()

    def readable() -> Iterator[ImageSource | ImageFailure]:
        for source, stamp in files:
            try:
                data = source.read(limits)
                if stamp_of(source) != stamp:
                    raise ImageError(source.path, "changed while it was read; it may still be written")
            except ImageError as error:
                pending.append((source, stamp, ""))
                yield ImageFailure(error.path, error.reason)
                continue
            id = content_id(data)
            if inspection.has(id, revision):
                inspection.add_file(source.path, stamp, id=id)
                scored_before.append((source, stamp, None))
                continue
            pending.append((source, stamp, id))
            yield MemorySource(source.path, data)

    for result in detector.stream(readable(), heatmaps=True):
        source, stamp, id = pending.popleft()
        if isinstance(result, AnomalyResult):
            inspection.add(id, result, revision, stamp)
        yield source, stamp, result
        while scored_before:
            yield scored_before.popleft()
    yield from scored_before


def rescore(inspection: Inspection, detector: AnomalyDetector, revision: int) -> int:
    """Score the images that another revision scored, where their files are there; return how many."""
    ids = inspection.stale(revision)
    scored: deque[str] = deque()

    def sources() -> Iterator[ImageSource]:
        for id in progress.track(ids, "scoring again"):
            found = inspection.content(id)
            if found is not None:
                scored.append(id)
                yield MemorySource(inspection.image(id)["path"], found[1])

    n_scored = 0
    for result in detector.stream(sources(), heatmaps=True):
        id = scored.popleft()
        if isinstance(result, AnomalyResult):
            inspection.add(id, result, revision)
            n_scored += 1
    return n_scored


def load(inspection: Inspection, args: Mapping[str, Any]) -> tuple[AnomalyDetector, int]:
    """Return the detector of an inspection, and its revision."""
    facts = inspection.facts()
    try:
        return AnomalyDetector.load(inspection.directory / facts["file"], **_runtime(args)), facts["revision"]
    except DetectorFileError:
        # A refit may have replaced it between the two reads.
        now = inspection.facts()
        if now["file"] == facts["file"]:
            raise
        return AnomalyDetector.load(inspection.directory / now["file"], **_runtime(args)), now["revision"]


def _runtime(args: Mapping[str, Any]) -> dict[str, Any]:
    cache_dir = args.get("cache_dir")
    return {
        "n_threads": args.get("n_threads"),
        "cache_dir": None if cache_dir is None else Path(cache_dir),
    }


def good_images(args: Mapping[str, Any]) -> list[str]:
    """Return a folder, or the files of images of a collection."""
    source = args["source"]
    if "folder" in source:
        return [str(source["folder"])]
    collection = Collection.open(source["directory"])
    chosen = {"ids": source["ids"]} if source.get("ids") else {"where": source.get("where")}
    files = [next(filter(exists, item.paths), None) for item in collection.items(**chosen)]
    return [file for file in files if file is not None]


def _without(images: list[str], ids: set[str]) -> list[str]:
    """Return the files of images whose content has none of these ids."""
    if not ids:
        return images
    kept = []
    for source in find(images):
        try:
            if isinstance(source, ImageFailure) or content_id(source.read(Limits())) in ids:
                continue
        except ImageError:
            pass  # what cannot be read is reported by the fit
        kept.append(source.path)
    return kept
