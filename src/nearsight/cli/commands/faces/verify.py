"""`faces verify`."""

from pathlib import Path
from typing import Any

import click

from nearsight.cli import options
from nearsight.cli.commands.faces import options as face_options
from nearsight.cli.framework import Command, Run
from nearsight.errors import CollectionNotFoundError


@click.command(
    cls=Command,
    json_shape="""{"same": bool, "similarity": float, "threshold": float, "false_match_rate": float}""",
    examples=("nearsight faces verify passport.jpg gate.jpg",),
)
@click.argument("a", metavar="A", type=click.Path())
@click.argument("b", metavar="B", type=click.Path())
@face_options.false_match_rate
@face_options.bank
@face_options.reader
@click.pass_obj
def verify(
    run: Run,
    /,
    a: str,
    b: str,
    *,
    false_match_rate: float | None,
    bank: Path | None,
    reader_options: dict[str, Any],
) -> None:
    """Check whether two images show the same person.

    The largest face of each image is compared. No face bank is needed. The false match rate is that of color
    photographs of the news; on small gray photographs (92x112), 2.1 % instead of 1 % was measured. Where that
    matters, ask for a lower rate, or enroll three images of the person and use `nearsight faces identify`.
    """
    from nearsight import faces
    from nearsight.services.faces import verification_document

    try:
        reader = face_options.open_bank(run, bank, **reader_options).reader
    except CollectionNotFoundError:
        reader = faces.FaceReader(**reader_options)
    result = faces.verify(reader, a, b, **options.without_none(false_match_rate=false_match_rate))
    run.console.document(verification_document(result))
    rate = result.threshold.false_alarm_rate
    run.console.say(
        f"{'the same person' if result.same else 'not the same person'}: similarity {result.similarity:.3f},"
        f" match threshold {result.threshold.value:.3f} at a false match rate of {rate:.2%}"
    )
