"""`faces enroll`."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nearsight.cli import options
from nearsight.cli.commands.faces import options as face_options
from nearsight.cli.framework import Command, Run
from nearsight.text_format import count, printable

if TYPE_CHECKING:
    from nearsight.images import Exclusions


@click.command(
    cls=Command,
    json_shape="""{"enrolled": {name: int}, "already": int,
 "cautions": [{"path", "person", "text",
   "kind": "several faces"|"poor quality"|"like someone else"|"unlike the others"}],
 "failed": [{"path", "reason"}], "skipped": {reason: int}, "persons": int,
 "faces": int, "bank", "models": [{"model", "license"}]}""",
    examples=(
        "nearsight faces enroll people/",
        'nearsight faces enroll --name "Ada Lovelace" ada1.jpg ada2.jpg',
    ),
)
@options.paths
@click.option("--name", metavar="NAME", help="Name of the person. Default: the name of each image's folder.")
@click.option("--skip-poor", is_flag=True, help="Skip faces of poor quality.")
@face_options.detector
@face_options.recognizer
@face_options.bank
@face_options.reader
@options.walk
@options.allow_remote
@options.strict
@click.pass_obj
def enroll(
    run: Run,
    /,
    paths: tuple[str, ...],
    *,
    name: str | None,
    skip_poor: bool,
    detector: str | None,
    recognizer: str | None,
    bank: Path | None,
    exclusions: "Exclusions",
    allow_remote: bool,
    reader_options: dict[str, Any],
) -> int:
    """Add the faces of people to the face bank.

    PATH is a folder with one subfolder of photographs per person. With --name, PATH is photographs of that
    one person. Each photograph should show one person. If it shows several, the face that matches the other
    photographs of the person is enrolled. Without other photographs it is the largest face, if that is
    clearly the largest. Enroll only people who have consented to it.
    """
    from nearsight.services.faces import enrollment_document, open_or_create_bank

    directory = face_options.bank_directory(run, bank)
    face_bank = open_or_create_bank(directory, detector=detector, recognizer=recognizer, **reader_options)
    skipped: Counter[str] = Counter()
    report = face_bank.enroll(
        list(paths),
        name=name,
        allow_remote=allow_remote,
        exclusions=exclusions,
        skipped=skipped,
        allow_poor=not skip_poor,
    )
    document = enrollment_document(face_bank, report)
    run.console.document({**document, "bank": str(directory)})
    for person, n in report.enrolled.items():
        run.console.say(f"{printable(person)}: {count(n, 'face')} enrolled")
    if report.already:
        run.console.say(f"{count(report.already, 'face')} already enrolled")
    for caution in report.cautions:
        run.console.warn(f"{printable(caution.path)}: {printable(caution.text)}")
    run.console.say(
        f"The bank holds {count(document['faces'], 'face')} of {count(document['persons'], 'person')}"
    )
    run.report_skipped(skipped, is_result=False)
    n_used = sum(report.enrolled.values()) + report.already
    reasons = ", ".join(f"{n} {reason}" for reason, n in report.skipped.items())
    n_images = n_used + len(report.failed)
    heading = f"Skipped {len(report.failed)} of {count(n_images, 'image')}: {reasons}"
    return run.report_failures(report.failed, n_images=n_used, heading=heading)
