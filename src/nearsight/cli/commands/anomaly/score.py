"""`anomaly score`."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import click

from nearsight import text_format
from nearsight.cli import options
from nearsight.cli.framework import Command, Run
from nearsight.errors import ImageError, ImageFailure, StorageError
from nearsight.text_format import count, printable

if TYPE_CHECKING:
    from nearsight.anomaly import AnomalyResult
    from nearsight.images import Exclusions

# Notes on conditions that are printed; --json lists all.
_MAX_NOTES = 5


@click.command(
    cls=Command,
    json_shape="""{"scores": [{"path", "score": float, "threshold": float, "defect": bool, "why",
   "notes": [text], "heatmap": file or null, with --heatmaps}],
 "failed": [{"path", "reason"}], "model"}""",
    examples=(
        "nearsight anomaly score --from bottles.npz today/ --open",
        "nearsight anomaly score --from bottles.npz today/ --heatmaps heatmaps/ --json",
    ),
)
@options.paths
@options.from_file("The detector that `anomaly fit --to` saved.  [required]")
@click.option(
    "--heatmaps",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write each image with its anomalies colored to this folder.",
)
@click.option("--defects-only", is_flag=True, help="With --heatmaps: write only images with a defect.")
@options.report("anomalies", "Write an HTML report: defects first, anomalies colored.")
@options.templates
@click.option("--model", metavar="NAME", help="The embedding model, if it was a file that has moved.")
@options.walk
@options.limits
@click.pass_obj
def score(
    run: Run,
    /,
    *,
    paths: tuple[str, ...],
    from_file: Path | None,
    heatmaps: Path | None,
    defects_only: bool,
    report: Path | None,
    templates: Path | None,
    model: str | None,
    exclusions: "Exclusions",
    allow_remote: bool,
    threads: int | None,
    **limits: float | None,
) -> int:
    """Score images with a detector that `anomaly fit` saved.

    An image with a score above the threshold is defective. The exit code does not depend on defects.
    """
    from nearsight import images, progress
    from nearsight.anomaly import AnomalyDetector
    from nearsight.reports.anomalies import AnomalyReport
    from nearsight.services.anomaly import score_document

    if from_file is None:
        from_file, paths = _detector_first(paths)
    detector = AnomalyDetector.load(
        from_file,
        model=model,
        templates=templates,
        n_threads=threads,
        limits=options.limits_of(**limits),
        cache_dir=run.settings.cache_dir,
        progress=run.console.progress,
    )
    folder = _HeatmapFolder(heatmaps, defects_only=defects_only) if heatmaps is not None else None
    if folder:
        run.if_interrupted = f"the heatmaps written so far are in {printable(str(heatmaps))}"
    anomaly_report = AnomalyReport() if report else None
    scores: list[dict[str, Any]] = []
    failed: list[ImageFailure] = []
    notes = Counter[str]()
    skipped: Counter[str] = Counter()
    walk: dict[str, Any] = {"allow_remote": allow_remote, "exclusions": exclusions}
    options.require_existing(paths)
    images.require_any(paths, **walk)
    sources = images.find(list(paths), **walk, skipped=skipped)
    # Counting can mean reading: only where somebody watches.
    is_watched = progress.is_watched(run.console.progress)
    total = images.count(list(paths), **walk) if is_watched else None
    with progress.bar("scoring", total, progress=run.console.progress) as bar:
        for result in detector.stream(sources, heatmaps=bool(folder or anomaly_report)):
            bar.update()
            if isinstance(result, ImageFailure):
                if run.fail_fast:
                    raise ImageError(result.path, result.reason)
                failed.append(result)
                continue
            notes.update(result.notes)
            scores.append({**score_document(result), **(folder.add(result) if folder else {})})
            if anomaly_report:
                anomaly_report.add(result)
    model_id, threshold = detector.features.spec.id, detector.threshold_
    run.console.document(
        {"scores": scores, "failed": [asdict(failure) for failure in failed], "model": model_id}
    )
    rows = [
        ["DEFECT" if score["defect"] else "", text_format.score(score["score"]), score["path"]]
        for score in scores
    ]
    for line in text_format.table(rows, header=("", "score", "path") if rows else (), right=(1,)):
        run.console.say(line)
    n_defects = sum(score["defect"] for score in scores)
    run.console.note(
        f"{n_defects:,} of {count(len(scores), 'image')} defective: score above"
        f" {text_format.score(threshold.value)}. Expected false alarms: {threshold.expected_rate:.1%} of good"
        " images."
    )
    for text, n in notes.most_common(_MAX_NOTES):
        run.console.note(f"{count(n, 'image')}: {text}")
    if report and anomaly_report:
        anomaly_report.write(report, threshold, model=model_id)
        run.present_report(report)
    run.report_skipped(skipped, is_result=False)
    return run.report_failures(failed, n_images=len(scores))


def _detector_first(paths: tuple[str, ...]) -> tuple[Path, tuple[str, ...]]:
    """Return detector and images of `anomaly score FILE PATH...`, the form of version 0.1."""
    if len(paths) < 2 or Path(paths[0]).suffix.lower() != ".npz":
        raise click.UsageError("name the detector: --from FILE, which `anomaly fit --to FILE` saves")
    return Path(paths[0]), paths[1:]


class _HeatmapFolder:
    """A folder of heatmaps, each under a name of its own."""

    def __init__(self, folder: Path, *, defects_only: bool) -> None:
        self._folder = folder
        self._defects_only = defects_only
        self._names: Counter[str] = Counter()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"{folder} could not be created: {error.strerror or error}; choose another folder"
            ) from error

    def add(self, result: "AnomalyResult") -> dict[str, str | None]:
        """Write the heatmap of an image, unless it is good and only defects are wanted; return its path."""
        from nearsight.anomaly.heatmap import draw
        from nearsight.artifacts import exported

        if self._defects_only and not result.defect:
            return {"heatmap": None}
        stem = PurePath(result.path).stem[:100] or "image"
        self._names[stem] += 1
        suffix = f"-{self._names[stem]}" if self._names[stem] > 1 else ""
        path = self._folder / f"{stem}{suffix}.png"
        with exported(path) as file:
            draw(result).save(file, "PNG")
        return {"heatmap": str(path)}
