"""`anomaly fit`."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nearsight import text_format
from nearsight.cli import options
from nearsight.cli.framework import Command, Run, out_file
from nearsight.errors import ImageError
from nearsight.text_format import count, printable

if TYPE_CHECKING:
    from nearsight.anomaly import AnomalyDetector
    from nearsight.images import Exclusions

# A detector's own false-alarm rate may be this many times the stated one before a note says so.
_MAX_RATE_RATIO = 2


@click.command(
    cls=Command,
    json_shape="""{"file", "images": int, "held_out": int, "threshold": float,
 "false_alarm_rate": float, "expected_rate": float, "model", "layers": [layer],
 "duplicates": [path],
 "failed": [{"path", "reason"}]}""",
    examples=(
        "nearsight anomaly fit good/ --to bottles.npz",
        "nearsight anomaly fit good/ --to bottles.npz --false-alarm-rate 0.01",
        "nearsight anomaly fit good/ --to boards.npz --templates golden-board.png",
        "nearsight anomaly fit more-good/ --from bottles.npz --to bottles.npz",
    ),
)
@options.paths_named("GOOD_DIR...")
@options.to_file("Save the detector to this file.", ".npz")
@click.option("--out", "out", type=click.Path(path_type=Path), callback=out_file(".npz"), hidden=True)
@options.from_file("Continue from this saved detector instead of fitting a new one.")
@options.false_alarm_rate("Share of good images that may be called defective.  [default: 0.05]")
@click.option(
    "--level",
    type=click.Choice(["combined", "image", "patch"]),
    help="Score the image as a whole, its patches, or both.  [default: combined]",
)
@click.option(
    "--max-tiles", type=click.IntRange(min=1), metavar="N", help="Cut an image into at most N tiles."
)
@options.templates
@click.option("--model", metavar="NAME", help="The embedding model; see `nearsight models`.")
@click.option("--layer", "layers", multiple=True, metavar="LAYER", help="Compare this layer. Repeatable.")
@options.walk
@options.limits
@click.pass_obj
def fit(
    run: Run,
    /,
    *,
    paths: tuple[str, ...],
    to_file: Path | None,
    out: Path | None,
    from_file: Path | None,
    false_alarm_rate: float | None,
    level: str | None,
    max_tiles: int | None,
    templates: Path | None,
    model: str | None,
    layers: tuple[str, ...],
    exclusions: "Exclusions",
    allow_remote: bool,
    threads: int | None,
    **limits: float | None,
) -> int:
    """Fit an anomaly detector on good images.

    No defective image is needed. A third of the images, and at least about 1 / R of them, are held out to
    set the threshold, so that on average the share R of good images is called defective. With --from, a saved
    detector learns from more good images.
    """
    from nearsight.services import anomaly

    file = to_file or out or from_file
    if file is None:
        raise click.UsageError("name the file to save the detector to: --to FILE.npz")
    fit_options = options.without_none(
        false_alarm_rate=false_alarm_rate, level=level, max_tiles=max_tiles, layers=layers or None
    )
    if from_file is not None and fit_options:
        names = ", ".join(f"--{name}" for name in fit_options).replace("_", "-").replace("layers", "layer")
        raise click.UsageError(f"--from continues with the detector's own options; leave out {names}")
    if model is not None:
        fit_options["model"] = model
    if templates is not None:
        fit_options["templates"] = templates
    shared_options: dict[str, Any] = {
        "n_threads": threads,
        "limits": options.limits_of(**limits),
        "cache_dir": run.settings.cache_dir,
        "progress": run.console.progress,
    }
    skipped: Counter[str] = Counter()
    walk: dict[str, Any] = {"allow_remote": allow_remote, "exclusions": exclusions, "skipped": skipped}
    detector = anomaly.fitted_detector(
        paths, from_file=from_file, options=fit_options, runtime=shared_options, walk=walk
    )
    if run.fail_fast and detector.failed_:
        raise ImageError(detector.failed_[0].path, detector.failed_[0].reason)
    detector.save(file)
    run.console.document(anomaly.fit_document(detector, file))
    _say(run, detector, file)
    run.report_skipped(skipped, is_result=False)
    return run.report_failures(detector.failed_, n_images=detector.n_images_seen_)


def _say(run: Run, detector: "AnomalyDetector", file: Path) -> None:
    threshold, name = detector.threshold_, printable(str(file))
    run.console.say(
        f"Fitted on {count(detector.n_images_seen_, 'good image')}, {threshold.n_examples:,} of them held out"
    )
    run.console.say(
        f"Threshold {text_format.score(threshold.value)}; expected false alarms:"
        f" {threshold.expected_rate:.1%} of good images"
    )
    low, high = threshold.true_rate_interval()
    if high > _MAX_RATE_RATIO * threshold.expected_rate:
        run.console.note(
            f"That rate is an average over detectors. With {threshold.n_examples} images held out, the rate"
            f" of this detector is between {low:.1%} and {high:.1%} (95% interval). More good images narrow"
            f" it: nearsight anomaly fit GOOD_DIR --from {name}"
        )
    if detector.duplicates_:
        run.console.note(
            f"{count(len(detector.duplicates_), 'duplicate')} skipped: same bytes or pixels as another good"
            " image, or learned before"
        )
    run.console.say(f"{name} ({text_format.size(file.stat().st_size)})")
