"""Making a model faster: `models quantize`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nearsight import text_format
from nearsight.cli.framework import Command, Run

if TYPE_CHECKING:
    from nearsight.models.precision.int8_calibration import Trial


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
    help="Images like those to come: 32 at least, some 300 are looked at.",
)
@click.pass_obj
def quantize(run: Run, /, name: str, calibration: Path) -> None:
    """Make an eight-bit form of a model.

    It says what that costs and gains.

    Half of the images give the ranges of the network's numbers; on the other half, vectors are compared
    with the exact ones. Operations that suffer stay in float32, as few as will do: the smallest cosine is
    .99 at least, or the form is refused. It is kept under the name that is printed; its vectors are another
    fingerprint. `NAME#int8` without digits is calibrated on built-in images, and needs no command.
    """
    from nearsight.models.precision.int8_calibration import calibrate

    made = calibrate(
        name,
        calibration,
        cache_dir=run.settings.cache_dir,
        progress=lambda what: run.console.note(f"{name}: {what}"),
    )
    facts = [_facts(trial) for trial in made.trials]
    result = {key: facts[-1][key] for key in _SHOWN}
    run.console.document(
        {
            "model": made.model,
            "calibrated_on": made.n_calibrating,
            "held_out": made.n_held_out,
            **result,
            "trials": facts,
        }
    )
    rows = [[str(trial["float32_operations"]), *(f"{trial[key]:.4f}" for key in _SHOWN)] for trial in facts]
    header = ("in float32", *(key.replace("_", " ") for key in _SHOWN))
    for line in text_format.table(rows, header=header, right=tuple(range(len(header)))):
        run.console.say(line)
    run.console.say(
        f"Calibrated on {made.n_calibrating} images, compared on {made.n_held_out} others."
        f" Use it as {made.model}"
    )


_SHOWN = ("smallest_cosine", "mean_cosine", "top10_overlap", "knn_agreement", "speedup")


def _facts(trial: "Trial") -> dict[str, Any]:
    told = asdict(trial.parity)
    return {
        "float32_operations": trial.n_float32,
        "smallest_cosine": round(told["smallest"], 5),
        "smallest_builtin_cosine": round(trial.smallest_builtin, 5),
        "mean_cosine": round(told["mean"], 5),
        "top10_overlap": round(told["overlap"], 3),
        "knn_agreement": round(trial.knn_agreement, 3),
        "speedup": round(trial.speedup, 2),
    }
