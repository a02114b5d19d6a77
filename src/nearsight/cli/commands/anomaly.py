"""Finding defects, having seen only good images: `anomaly fit` and `anomaly score`."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import click

from nearsight import text_format
from nearsight.cli import options
from nearsight.cli.commands.index import require_some, tell
from nearsight.cli.commands.search import present
from nearsight.cli.framework import Command, Run, Subgroup, out_file
from nearsight.errors import ImageError, ImageFailure, StorageError
from nearsight.text_format import count, printable

if TYPE_CHECKING:
    from nearsight.anomaly import AnomalyResult


# Above this many times the stated rate, somebody will be surprised by it.
_UNSURE = 2
# Scores are in standard deviations of good images: so many mean that there was no deviation.
_ALIKE = 1e4


@click.group(cls=Subgroup)
def anomaly() -> None:
    """Find defects, having seen only good images."""


@anomaly.command(
    cls=Command,
    json_shape="""{"file", "images": int, "held_out": int, "threshold": float,
 "false_alarm_rate": float, "expected_rate": float, "model", "layers": [layer],
 "failed": [{"path", "reason"}]}""",
    examples=(
        "nearsight anomaly fit good/ --out bottles.npz",
        "nearsight anomaly fit good/ --out bottles.npz --false-alarm-rate 0.01",
        "nearsight anomaly fit more-good/ --update bottles.npz",
    ),
)
@click.argument("paths", nargs=-1, required=True, metavar="GOOD_DIR...", type=click.Path())
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    callback=out_file(".npz"),
    metavar="FILE.npz",
    help="The detector.",
)
@click.option(
    "--update",
    type=click.Path(path_type=Path),
    metavar="FILE.npz",
    help="Go on from this detector instead, and write it back, or to --out.",
)
@click.option(
    "--false-alarm-rate",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="R",
    help="Share of good images that may be called defective.  [default: 0.05]",
)
@click.option(
    "--level",
    type=click.Choice(["combined", "image", "patch"]),
    help="Judge images as wholes, place by place, or both.  [default: combined]",
)
@click.option(
    "--max-tiles", type=click.IntRange(min=1), metavar="N", help="Squares an image is cut into, at most."
)
@click.option("--model", metavar="NAME", help="See `nearsight models`.")
@click.option("--layer", "layers", multiple=True, metavar="LAYER", help="Compare these. Repeatable.")
@options.cost
@click.pass_obj
def fit(
    run: Run,
    /,
    paths: tuple[str, ...],
    *,
    out: Path | None,
    update: Path | None,
    false_alarm_rate: float | None,
    level: str | None,
    max_tiles: int | None,
    model: str | None,
    layers: tuple[str, ...],
    allow_remote: bool,
    threads: int | None,
    fail_fast: bool,
    **limits: float | None,
) -> int:
    """Learn what good images look like.

    No defect is needed. A third of the images, and at least about 1 / R, are held out to set the threshold,
    so that the share of good images called defective is the one stated. With --update, a detector learns
    from more good images.
    """
    from nearsight.anomaly import AnomalyDetector

    if out is None and update is None:
        raise click.UsageError("name the file to write: --out FILE.npz")
    chosen: dict[str, Any] = {
        "false_alarm_rate": false_alarm_rate,
        "level": level,
        "max_tiles": max_tiles,
        "layers": layers or None,
    }
    chosen = {key: value for key, value in chosen.items() if value is not None}
    if update is not None and chosen:
        raise click.UsageError(f"--update goes on as the detector was made; leave out {', '.join(chosen)}")
    require_some(paths)
    run.fail_fast = fail_fast
    if model is not None:
        chosen["model"] = model
    common: dict[str, Any] = {
        "n_threads": threads,
        "limits": options.limits_of(**limits),
        "cache_dir": run.settings.cache_dir,
        "progress": run.console.progress,
    }
    if update is not None:
        detector = AnomalyDetector.load(update, **chosen, **common)
        detector.partial_fit(list(paths), allow_remote=allow_remote)
    else:
        detector = AnomalyDetector(**chosen, **common).fit(list(paths), allow_remote=allow_remote)
    if fail_fast and detector.failed_:
        raise ImageError(detector.failed_[0].path, detector.failed_[0].reason)
    file = out or update or Path()
    detector.save(file)
    threshold = detector.threshold_
    run.console.document(
        {
            "file": str(file),
            "images": detector.n_images_seen_,
            "held_out": threshold.n_examples,
            "threshold": threshold.value,
            "false_alarm_rate": threshold.false_alarm_rate,
            "expected_rate": threshold.expected_rate,
            "model": detector.features.spec.id,
            "layers": list(detector.features.layers),
            "failed": [asdict(failure) for failure in detector.failed_],
        }
    )
    run.console.say(
        f"{count(detector.n_images_seen_, 'good image')} seen, {threshold.n_examples:,} of them for the"
        f" threshold: above {_number(threshold.value)} is a defect,"
        f" {threshold.expected_rate:.1%} of good images by mistake"
    )
    low, high = threshold.true_rate_interval()
    if high > _UNSURE * threshold.expected_rate:
        run.console.note(
            f"That rate is an average: with {threshold.n_examples} held out, this detector's own lies between"
            f" {low:.1%} and {high:.1%} (95 %). More good images narrow it: nearsight anomaly fit GOOD_DIR"
            f" --update {printable(str(file))}"
        )
    if threshold.value > _ALIKE:
        run.console.note(
            "The good images are all but the same, so whatever differs at all will be called a defect; give"
            " images that vary as good ones do.",
            fg="yellow",
        )
    if detector.duplicates_:
        run.console.note(f"{count(len(detector.duplicates_), 'duplicate')} of the same bytes left out")
    run.console.say(f"{printable(str(file))} ({text_format.size(file.stat().st_size)})")
    return tell(run, detector.failed_)


@anomaly.command(
    cls=Command,
    json_shape="""{"scores": [{"path", "score": float, "threshold": float, "defect": bool, "heatmap"}],
 "failed": [{"path", "reason"}], "model"}""",
    examples=(
        "nearsight anomaly score bottles.npz today/ --open",
        "nearsight anomaly score bottles.npz today/ --heatmaps found/ --json",
    ),
)
@click.argument("file", type=click.Path(path_type=Path))
@options.paths
@click.option(
    "--heatmaps",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Draw each image with what is unusual colored, into this folder.",
)
@click.option("--defects-only", is_flag=True, help="Draw only images with a defect.")
@options.page("Write a page of the images, defects first, with what is unusual colored.")
@click.option("--model", metavar="NAME", help="Where the model lies now, if it was a file that has moved.")
@options.cost
@click.pass_obj
def score(
    run: Run,
    /,
    file: Path,
    paths: tuple[str, ...],
    *,
    heatmaps: Path | None,
    defects_only: bool,
    out: Path | None,
    show: bool,
    model: str | None,
    allow_remote: bool,
    threads: int | None,
    fail_fast: bool,
    **limits: float | None,
) -> int:
    """Judge images by what `anomaly fit` learned.

    A score above the threshold is a defect. Defects are an answer and no failure: the exit code tells only
    whether each image could be judged.
    """
    from nearsight import images, progress
    from nearsight.anomaly import AnomalyDetector
    from nearsight.reports.anomalies import AnomalyReport

    require_some(paths)
    run.fail_fast = fail_fast
    detector = AnomalyDetector.load(
        file,
        model=model,
        n_threads=threads,
        limits=options.limits_of(**limits),
        cache_dir=run.settings.cache_dir,
        progress=run.console.progress,
    )
    gallery = _Folder(heatmaps, defects_only) if heatmaps is not None else None
    if gallery:
        run.if_interrupted = f"what was drawn so far is in {printable(str(heatmaps))}"
    report = AnomalyReport() if out or show else None
    found: list[dict[str, Any]] = []
    failed: list[ImageFailure] = []
    sources = images.find(list(paths), allow_remote=allow_remote)
    # Counting can mean reading: only where somebody watches.
    is_watched = progress.is_watched(run.console.progress)
    total = images.count(list(paths), allow_remote=allow_remote) if is_watched else None
    with progress.bar("scoring", total, progress=run.console.progress) as bar:
        for result in detector.stream(sources, heatmaps=bool(gallery or report)):
            bar.update()
            if isinstance(result, ImageFailure):
                if fail_fast:
                    raise ImageError(result.path, result.reason)
                failed.append(result)
                continue
            row = {key: getattr(result, key) for key in ("path", "score", "threshold", "defect")}
            found.append({**row, **(gallery.add(result) if gallery else {})})
            if report:
                report.add(result)
    run.console.document(
        {
            "scores": found,
            "failed": [asdict(failure) for failure in failed],
            "model": detector.features.spec.id,
        }
    )
    rows = [["DEFECT" if row["defect"] else "", _number(row["score"]), row["path"]] for row in found]
    for line in text_format.table(rows, header=("", "score", "path") if rows else (), right=(1,)):
        run.console.say(line)
    threshold, n_defects = detector.threshold_, sum(row["defect"] for row in found)
    run.console.note(
        f"{n_defects:,} of {count(len(found), 'image')} defective: above {_number(threshold.value)}, which"
        f" {threshold.expected_rate:.1%} of good images exceed by mistake"
    )
    if report:
        page = out or run.settings.cache_dir / "inspections.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        report.write(page, threshold, model=detector.features.spec.id)
        present(run, page, show=show)
    return tell(run, failed, some=bool(found))


@anomaly.command(
    cls=Command,
    json_shape="""{"items": [{"id", "path", "distance": float}]}""",
    examples=("nearsight anomaly rank -k 50", "nearsight anomaly rank --where \"label = 'shoe'\""),
)
@options.k("How many images.", default=20)
@options.where
@click.pass_obj
def rank(run: Run, /, *, k: int, where: str | None) -> None:
    """List the images that are least like any other.

    The distance is that to the nearest others, the most unusual first. There is no threshold: without
    good images, nobody can say what is wrong.
    """
    found = run.open_collection().outliers(k, where=where)
    run.console.document(
        {"items": [{"id": o.item.id, "path": o.item.path, "distance": o.distance} for o in found]}
    )
    rows = [[f"{o.distance:.3f}", o.item.id[:8], o.item.path] for o in found]
    for line in text_format.table(rows, header=("distance", "id", "path") if rows else ()):
        run.console.say(line)
    if not rows:
        run.console.note(text_format.nothing(where))


def _number(score: float) -> str:
    return f"{score:.2f}" if abs(score) < _ALIKE else f"{score:.1e}"


class _Folder:
    """A folder of drawings, each under a name of its own."""

    def __init__(self, folder: Path, defects_only: bool) -> None:
        self._folder = folder
        self._defects_only = defects_only
        self._names: Counter[str] = Counter()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"{folder} could not be made: {error.strerror or error}; choose another place"
            ) from error

    def add(self, inspection: "AnomalyResult") -> dict[str, str | None]:
        """Draw an image, and say where."""
        from nearsight.anomaly.heatmap import draw
        from nearsight.artifacts import exported

        if self._defects_only and not inspection.defect:
            return {"heatmap": None}
        stem = PurePath(inspection.path).stem[:100] or "image"
        self._names[stem] += 1
        number = f"-{self._names[stem]}" if self._names[stem] > 1 else ""
        path = self._folder / f"{stem}{number}.png"
        with exported(path) as file:
            draw(inspection).save(file, "PNG")
        return {"heatmap": str(path)}
