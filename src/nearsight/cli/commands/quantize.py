"""`nearsight models quantize`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from nearsight import text_format
from nearsight.cli import options
from nearsight.cli.framework import Command, Run

if TYPE_CHECKING:
    from nearsight.images import Exclusions


@click.command(
    cls=Command,
    json_shape="""{"model", "calibrated_on": int, "held_out": int, "smallest_cosine": float,
 "mean_cosine": float, "top10_overlap": float, "knn_agreement": float, "speedup": float,
 "trials": [{"float32_operations": int, "smallest_cosine", "smallest_builtin_cosine", "mean_cosine",
             "top10_overlap", "knn_agreement", "speedup"}]}""",
    examples=(
        "nearsight models quantize efficientnet-lite0 --calibration photos/",
        "nearsight index photos/ --model efficientnet-lite0#int8=3fa9c1d2",
    ),
)
@click.argument("name")
@click.option(
    "--calibration",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Images like those to be embedded: at least 32; about 300 are used.",
)
@options.walk
@click.pass_obj
def quantize(run: Run, /, *, name: str, calibration: Path, exclusions: "Exclusions") -> None:
    """Make an int8 variant of a model, and measure it.

    Half of the images calibrate the ranges of activations; on the other half, int8 vectors are compared with
    float32 vectors. The operations that lose most stay in float32, as few as possible, until the smallest
    cosine is 0.99 or more; if it never is, the command fails. The variant is kept under the name that is
    printed, and its vectors have a fingerprint of their own. `NAME#int8` without digits is calibrated on
    built-in images and does not need this command.
    """
    from nearsight.models.precision.int8_calibration import calibrate
    from nearsight.services.documents import INT8_MEASURES, int8_document

    calibrated = calibrate(
        name,
        calibration,
        exclusions=exclusions,
        cache_dir=run.settings.cache_dir,
        progress=lambda step: run.console.note(f"{name}: {step}"),
    )
    document = int8_document(calibrated)
    run.console.document(document)
    rows = [
        [str(trial["float32_operations"]), *(f"{trial[key]:.4f}" for key in INT8_MEASURES)]
        for trial in document["trials"]
    ]
    header = ("float32 operations", *(key.replace("_", " ") for key in INT8_MEASURES))
    for line in text_format.table(rows, header=header, right=tuple(range(len(header)))):
        run.console.say(line)
    run.console.say(
        f"Calibrated on {calibrated.n_calibration} images, measured on {calibrated.n_held_out} others."
        f" Its name: {calibrated.model}"
    )
