"""Charts of `nearsight train`, written beside the model."""

from nearsight.reports.charts import Point, chart, standalone
from nearsight.training import Training

CURVE = "dimensions.svg"


def training_charts(training: Training) -> dict[str, str]:
    """Return charts by file name: recall by the length of the vectors."""
    points = [
        Point(
            result.dim,
            result.seen.value,
            result.seen.low,
            result.seen.high,
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
    return {CURVE: standalone(svg)}
