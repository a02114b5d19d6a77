"""Recognizing faces: `faces enroll`, `identify`, `verify`, and the group that holds all of `faces`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nearsight import text_format
from nearsight.cli import options
from nearsight.cli.commands import face_bank
from nearsight.cli.commands.face_options import (
    BANK,
    RATE,
    bank_directory,
    models_of,
    open_bank,
    reading_options,
    whole,
)
from nearsight.cli.commands.index import require_some, tell
from nearsight.cli.framework import BadInputError, Command, Run, Subgroup
from nearsight.errors import CollectionNotFoundError, ImageFailure
from nearsight.text_format import count, printable

if TYPE_CHECKING:
    from nearsight.faces import FaceReader, Identified, IdentifiedFace
    from nearsight.faces.drawing import Label


@click.command(
    cls=Command,
    json_shape="""{"enrolled": {person: int}, "already": int,
 "cautions": [{"path", "person", "kind": "several faces"|"poor quality"|"like someone else", "text"}],
 "failed": [{"path", "reason"}], "persons": int, "faces": int, "bank", "models": [{"model", "license"}]}""",
    examples=(
        "nearsight faces enroll people/",
        'nearsight faces enroll --name "Ada Lovelace" ada1.jpg ada2.jpg',
    ),
)
@options.paths
@click.option("--name", metavar="NAME", help="Whose faces these are. Default: each image's folder.")
@click.option("--skip-poor", is_flag=True, help="Leave out faces of poor quality.")
@click.option("--detector", metavar="NAME", help="For a new bank: centerface, dir:PATH or hub:ORG/REPO.")
@click.option("--recognizer", metavar="NAME", help="For a new bank: dlib-resnet29, dir:PATH or hub:ORG/REPO.")
@BANK
@reading_options
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
    allow_remote: bool,
    reading: dict[str, Any],
) -> int:
    """Take the faces of people into the bank.

    PATH is a folder with a folder of photographs for each person, or photographs of the one person NAME. Each
    photograph should show one person; of several, the largest face counts if it is clearly the largest.
    Enroll only people who have agreed to it.
    """
    from nearsight.faces import FaceBank

    require_some(paths)
    directory = bank_directory(run, bank)
    try:
        found = FaceBank.open(directory, **reading)
        if detector or recognizer:
            raise BadInputError(f"the bank at {directory} has its models; name another with --bank DIR")
    except CollectionNotFoundError:
        models = {"detector": detector, "recognizer": recognizer}
        chosen = {key: value for key, value in models.items() if value}
        found = FaceBank.create(directory, **chosen, **reading)  # type: ignore[arg-type]  # by key
    report = found.enroll(list(paths), name=name, allow_remote=allow_remote, allow_poor=not skip_poor)
    persons = found.persons()
    run.console.document(
        {
            "enrolled": report.enrolled,
            "already": report.already,
            "cautions": [asdict(caution) for caution in report.cautions],
            "failed": [asdict(failure) for failure in report.failed],
            "persons": len(persons),
            "faces": sum(persons.values()),
            "bank": str(directory),
            "models": models_of(found),
        }
    )
    for person, n in report.enrolled.items():
        run.console.say(f"{printable(person)}: {count(n, 'face')} enrolled")
    if report.already:
        run.console.say(f"{count(report.already, 'face')} enrolled before")
    for caution in report.cautions:
        run.console.warn(f"{printable(caution.path)}: {printable(caution.text)}")
    run.console.say(
        f"The bank holds {count(sum(persons.values()), 'face')} of {count(len(persons), 'person')}"
    )
    return tell(run, report.failed, some=bool(report.enrolled or report.already))


@click.command(
    cls=Command,
    json_shape="""{"faces": [{"path", "box": [left, top, right, bottom], "name": str|null,
            "similarity": float, "unknown": bool, "ambiguous": bool, "nearest", "rival",
            "rival_similarity": float, "confidence": float, "quality": float, "drawn"}],
            largest face of an image first,
 "without_faces": [path], "failed": [{"path", "reason"}], "threshold": float|null,
 "false_match_rate": float|null, "models"}""",
    examples=("nearsight faces identify party.jpg", "nearsight faces identify album/ --draw drawn/"),
)
@options.paths
@RATE
@click.option(
    "--draw",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write a copy of each image with boxes and names.",
)
@BANK
@reading_options
@click.pass_obj
def identify(
    run: Run,
    /,
    paths: tuple[str, ...],
    *,
    rate: float,
    draw: Path | None,
    bank: Path | None,
    allow_remote: bool,
    reading: dict[str, Any],
) -> int:
    """Say who is in images.

    Each face is compared with those in the bank; one that is not similar enough to anybody is unknown. How
    similar is enough follows from the rate of false matches that is allowed. Where a second person would be
    accepted as well, the answer is ambiguous. Check every match that matters to somebody.
    """
    require_some(paths)
    found = open_bank(run, bank, **reading)
    identifier = found.identifier(rate)
    if identifier is not None and identifier.reason_:
        run.console.warn(f"Note: {identifier.reason_}")
    listed: list[dict[str, Any]] = []
    empty: list[str] = []
    failed: list[ImageFailure] = []
    taken: set[str] = set()
    for result in found.identify(list(paths), false_match_rate=rate, allow_remote=allow_remote):
        if isinstance(result, ImageFailure):
            failed.append(result)
            continue
        drawn = str(_drawn(found.reader, result, draw, taken)) if draw is not None else None
        rows = [_row(result.reading.source.path, face, drawn) for face in result.faces]
        listed += rows
        if not rows:
            empty.append(result.reading.source.path)
    limit = identifier.threshold_ if identifier is not None else None
    run.console.document(
        {
            "faces": listed,
            "without_faces": empty,
            "failed": [asdict(failure) for failure in failed],
            "threshold": limit.value if limit else None,
            "false_match_rate": limit.false_alarm_rate if limit else None,
            "models": models_of(found),
        }
    )
    lines = [[_said(row), f"{row['similarity']:.3f}", _place(row["box"]), row["path"]] for row in listed]
    for line in text_format.table(
        lines, header=("name", "similarity", "box", "path") if lines else (), right=(1,)
    ):
        run.console.say(line)
    for path in empty:
        run.console.say(f"no face in {printable(path)}")
    if limit is not None:
        share = f"{limit.false_alarm_rate:.2%}"
        run.console.note(f"Similar from {limit.value:.3f} on: at most {share} of strangers are.")
    return tell(run, failed, some=bool(listed or empty))


@click.command(
    cls=Command,
    json_shape="""{"same": bool, "similarity": float, "threshold": float, "false_match_rate": float}""",
    examples=("nearsight faces verify passport.jpg gate.jpg",),
)
@click.argument("a", metavar="A", type=click.Path())
@click.argument("b", metavar="B", type=click.Path())
@RATE
@BANK
@reading_options
@click.pass_obj
def verify(
    run: Run,
    /,
    a: str,
    b: str,
    *,
    rate: float,
    bank: Path | None,
    allow_remote: bool,
    reading: dict[str, Any],
) -> None:
    """Say whether two images show the same person.

    The largest face of each counts. No bank is needed.
    """
    from nearsight.faces import FaceReader
    from nearsight.faces import verify as compare

    del allow_remote  # two files
    try:
        reader = open_bank(run, bank, **reading).reader
    except CollectionNotFoundError:
        reader = FaceReader(**reading)
    found = compare(reader, a, b, false_match_rate=rate)
    run.console.document(
        {
            "same": found.same,
            "similarity": round(found.similarity, 4),
            "threshold": round(found.threshold.value, 4),
            "false_match_rate": rate,
        }
    )
    run.console.say(
        f"{'the same person' if found.same else 'not the same person'}: similarity {found.similarity:.3f}, "
        f"threshold {found.threshold.value:.3f} for {rate:.2%} false matches"
    )


@click.group(
    cls=Subgroup,
    commands=[
        enroll,
        identify,
        verify,
        face_bank.group,
        face_bank.name,
        face_bank.list_,
        face_bank.rename,
        face_bank.merge,
        face_bank.remove,
        face_bank.forget,
        face_bank.export,
    ],
)
def faces() -> None:
    """Recognize people who have agreed to it.

    Photographs of faces and the vectors made of them are personal data, in many places biometric data
    under special protection: enroll people only with their consent, and remove them when they withdraw it.
    Everything stays on this machine. No age, gender, origin or mood is guessed. A match is a likelihood,
    not proof.
    """


def _row(path: str, found: "IdentifiedFace", drawn: str | None) -> dict[str, Any]:
    return {
        "path": path,
        "box": whole(found.face.box),
        "name": found.person,
        "similarity": round(found.similarity, 4),
        "unknown": found.person is None,
        "ambiguous": found.ambiguous,
        "nearest": found.nearest,
        "rival": found.rival,
        "rival_similarity": round(found.rival_similarity, 4),
        "confidence": round(found.face.confidence, 3),
        "quality": round(found.face.quality.score, 3),
        **({"drawn": drawn} if drawn else {}),
    }


def _said(row: dict[str, Any]) -> str:
    if row["unknown"]:
        return "unknown"
    return printable(f"{row['name']} (or {row['rival']}?)" if row["ambiguous"] else row["name"])


def _drawn(reader: "FaceReader", found: "Identified", folder: Path, taken: set[str]) -> Path:
    """Draw what was found on the image, decoded once more: it was not kept."""
    from nearsight.faces.drawing import draw, save
    from nearsight.images import decode

    source = found.reading.source
    image = decode(source, limits=reader.limits).image
    return save(draw(image, [_label(face) for face in found.faces]), folder, source.path, taken)


def _label(found: "IdentifiedFace") -> "Label":
    from nearsight.faces.drawing import Label

    if found.person is None:
        return Label(found.face.box, "unknown", "unknown")
    text = f"{found.person} {found.similarity:.2f}"
    return Label(
        found.face.box,
        f"{text} or {found.rival}?" if found.ambiguous else text,
        "doubtful" if found.ambiguous else "known",
    )


def _place(box: list[int]) -> str:
    left, top, right, bottom = box
    return f"{right - left}x{bottom - top}+{left}+{top}"
