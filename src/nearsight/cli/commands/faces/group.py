"""`faces group`."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nearsight import text_format
from nearsight.cli import options
from nearsight.cli.commands.faces import options as face_options
from nearsight.cli.framework import Command, Run
from nearsight.text_format import count, printable

if TYPE_CHECKING:
    from nearsight.images import Exclusions


@click.command(
    cls=Command,
    json_shape="""{"groups": [{"group": group or null, "name": name or null, "size": int, "hidden": bool,
             "faces": [{"id", "path", "box", "enrolled": bool}]}],
 "alone": int, "failed": [{"path", "reason"}]}""",
    examples=("nearsight faces group", "nearsight faces group album/ --html faces.html --open"),
)
@options.paths_named("[PATH...]", required=False)
@face_options.false_match_rate
@face_options.detector
@face_options.recognizer
@face_options.bank
@face_options.reader
@options.report("faces", "Write an HTML report with the faces of each group, to name the groups.")
@options.walk
@options.allow_remote
@options.strict
@click.pass_obj
def group(
    run: Run,
    /,
    paths: tuple[str, ...],
    *,
    false_match_rate: float | None,
    detector: str | None,
    recognizer: str | None,
    bank: Path | None,
    report: Path | None,
    exclusions: "Exclusions",
    allow_remote: bool,
    reader_options: dict[str, Any],
) -> int:
    """Group the faces in images by person.

    Without PATH, the images of the collection are used. Groups that match an enrolled person join that
    person; `faces name` names the others. Two faces in one image always belong to two persons, and what was
    decided by `confirm`, `reject`, `merge`, `split` and `hide` holds. The bank stores the detected faces
    without a name until `faces forget --unnamed`.
    """
    from nearsight.services.faces import groups_document, open_or_create_bank, unread_paths

    collection = None if paths else run.open_collection()
    directory = face_options.bank_directory(run, bank)
    face_bank = open_or_create_bank(directory, detector=detector, recognizer=recognizer, **reader_options)
    image_paths = list(paths) if collection is None else unread_paths(face_bank, collection)
    skipped: Counter[str] = Counter()
    failed = face_bank.scan(
        image_paths, allow_remote=allow_remote, exclusions=exclusions if paths else None, skipped=skipped
    )
    groups = face_bank.group(**options.without_none(false_match_rate=false_match_rate))
    listed = [group for group in groups if group.person or len(group.faces) > 1]
    document = groups_document(groups, failed)
    run.console.document(document)
    rows = [
        [printable(group.person) or group.group, str(len(group.faces)), printable(group.faces[0].path)]
        for group in listed
    ]
    header = ("person", "faces", "example") if rows else ()
    for line in text_format.table(rows, header=header, right=(1,)):
        run.console.say(line)
    run.console.say(f"{count(document['alone'], 'face')} in no group")
    if report is not None:
        from nearsight.faces.crops import face_crops
        from nearsight.reports.faces import shown_faces, write_groups

        reader = face_bank.reader
        crops = face_crops(
            shown_faces(groups), limits=reader.limits, n_threads=reader.n_threads, allow_remote=allow_remote
        )
        write_groups(report, groups, crops, bank=directory)
        run.present_report(report)
    if any(group.group for group in listed):
        run.console.note('To name a group: nearsight faces name g1 "NAME"')
    run.report_skipped(skipped, is_result=False)
    return run.report_failures(failed, n_images=len(image_paths) - len(failed))
