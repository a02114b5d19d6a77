"""Charts of `nearsight train`, written beside the model."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from nearsight.reports.charts import Point, chart, standalone
from nearsight.training import Training

CURVE, EPOCHS = "dimensions.svg", "epochs.svg"


def training_charts(training: Training) -> dict[str, str]:
    """Return charts by file name: recall by the length of the vectors, and by epoch where layers learned."""
    points = [
        Point(
            result.dim,
            result.quality.seen.value,
            result.quality.seen.low,
            result.quality.seen.high,
            label=f"{result.dim:,}",
            is_marked=result.dim == training.dim,
        )
        for result in training.dimensions
    ]
    svg = chart(
        points,
        title="Recall@1 by the length of the vectors, on images that were left out",
        x_title="numbers of a vector",
        y_title="recall@1",
        log_x=True,
        is_line=True,
    )
    charts = {CURVE: standalone(svg)}
    if training.layers and training.layers["epochs"]:
        charts[EPOCHS] = standalone(_epochs(training.layers))
    return charts


def _epochs(layers: Mapping[str, Any]) -> Markup:
    """Chart recall@1 of the trained weights by epoch; the epoch that was kept is filled."""
    points = [
        Point(
            epoch["epoch"],
            epoch["seen"],
            epoch["seen"] - 2 * epoch["error"],
            epoch["seen"] + 2 * epoch["error"],
            label=str(epoch["epoch"]),
            is_marked=epoch["epoch"] == layers["epoch"],
        )
        for epoch in layers["epochs"]
        if epoch["share"] == 1.0
    ]
    return chart(
        points,
        title="Recall@1 of the network by epoch, on images that were left out",
        x_title="epochs",
        y_title="recall@1",
        is_line=True,
    )
