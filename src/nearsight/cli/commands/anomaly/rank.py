"""`anomaly rank`."""

import click

from nearsight import text_format
from nearsight.cli import options
from nearsight.cli.framework import Command, Run


@click.command(
    cls=Command,
    json_shape="""{"items": [{"id", "path", "distance": float}]}""",
    examples=("nearsight anomaly rank -k 50", "nearsight anomaly rank --where \"label = 'shoe'\""),
)
@options.k("Number of images.", default=20)
@options.where
@click.pass_obj
def rank(run: Run, /, *, k: int, where: str | None) -> None:
    """Rank the images by how unusual they are.

    The distance is the mean distance to the nearest other images. The most unusual image comes first. There
    is no threshold: without a set of good images, no image can be called defective.
    """
    from nearsight.services.documents import outliers_document

    outliers = run.open_collection().outliers(k, where=where)
    run.console.document(outliers_document(outliers))
    rows = [[f"{outlier.distance:.3f}", outlier.item.id[:8], outlier.item.path] for outlier in outliers]
    for line in text_format.table(rows, header=("distance", "id", "path") if rows else ()):
        run.console.say(line)
    if not rows:
        run.console.note(text_format.nothing(where))
