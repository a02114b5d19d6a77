"""`faces identify`."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nearsight import text_format
from nearsight.cli import options
from nearsight.cli.commands.faces import options as face_options
from nearsight.cli.framework import Command, Run
from nearsight.errors import ImageFailure
from nearsight.text_format import count, printable

if TYPE_CHECKING:
    from nearsight.faces import FaceReader, IdentifiedFace, IdentifiedImage
    from nearsight.faces.annotated_images import Label
    from nearsight.images import Exclusions


@click.command(
    cls=Command,
    json_shape="""{"faces": [{"path", "box": [left, top, right, bottom], "name": name or null,
            "similarity": float, "unknown": bool, "ambiguous": bool,
            "doubt": ""|"rival"|"same image", "nearest", "rival",
            "rival_similarity": float, "confidence": float, "quality": float, "differs": [str],
            "drawn"}],
 "without_faces": [path], "failed": [{"path", "reason"}], "threshold": float or null,
 "false_match_rate": float or null, "models": [{"model", "license"}]}""",
    examples=("nearsight faces identify party.jpg", "nearsight faces identify album/ --draw drawn/"),
)
@options.paths
@face_options.false_match_rate
@click.option(
    "--draw",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write each image with boxes and names drawn on it to this folder.",
)
@face_options.bank
@face_options.reader
@options.walk
@options.allow_remote
@options.strict
@click.pass_obj
def identify(
    run: Run,
    /,
    paths: tuple[str, ...],
    *,
    false_match_rate: float | None,
    draw: Path | None,
    bank: Path | None,
    exclusions: "Exclusions",
    allow_remote: bool,
    reader_options: dict[str, Any],
) -> int:
    """Identify the people in images.

    Each face is compared with the mean of each person's enrolled faces. A face that is not similar enough to
    anybody is unknown. The match threshold follows from the false match rate that you allow, and from the
    number of persons in the bank. A match is ambiguous if a second person matches as well, or if another face
    of the same image is more similar to that person. The faces of an image are listed largest first. Verify
    every match that has consequences for a person.
    """
    from nearsight.services.faces import identified_document, models_document

    face_bank = face_options.open_bank(run, bank, **reader_options)
    reader = face_bank.reader  # first: a bank of other models has no threshold to speak of
    rate = options.without_none(false_match_rate=false_match_rate)
    identifier = face_bank.identifier(**rate)
    if identifier is not None and identifier.reason_:
        run.console.warn(f"Note: {identifier.reason_}")
    faces: list[dict[str, Any]] = []
    without_faces: list[str] = []
    failed: list[ImageFailure] = []
    drawn_names: set[str] = set()
    skipped: Counter[str] = Counter()
    walk: dict[str, Any] = {"allow_remote": allow_remote, "exclusions": exclusions, "skipped": skipped}
    for result in face_bank.identify(list(paths), identifier=identifier, **walk, **rate):
        if isinstance(result, ImageFailure):
            failed.append(result)
            continue
        drawn = {"drawn": str(_draw(reader, result, draw, drawn_names))} if draw is not None else {}
        path = result.image.source.path
        faces += [{**identified_document(path, face), **drawn} for face in result.faces]
        if not result.faces:
            without_faces.append(path)
    threshold = identifier.threshold_ if identifier is not None else None
    run.console.document(
        {
            "faces": faces,
            "without_faces": without_faces,
            "failed": [asdict(failure) for failure in failed],
            "threshold": threshold.value if threshold else None,
            "false_match_rate": threshold.false_alarm_rate if threshold else None,
            "models": models_document(face_bank),
        }
    )
    _say(run, faces, without_faces)
    if threshold is not None:
        run.console.note(
            f"Match threshold {threshold.value:.3f}: it accepts at most {threshold.false_alarm_rate:.2%} of"
            " unknown people."
        )
    if identifier is not None and identifier.caution_:
        run.console.note(identifier.caution_)
    run.report_skipped(skipped, is_result=False)
    return run.report_failures(failed, n_images=len(faces) + len(without_faces))


def _say(run: Run, faces: list[dict[str, Any]], without_faces: list[str]) -> None:
    rows = [
        [_name(face), f"{face['similarity']:.3f}", _geometry(face["box"]), face["path"]] for face in faces
    ]
    header = ("name", "similarity", "box", "path") if rows else ()
    for line in text_format.table(rows, header=header, right=(1,)):
        run.console.say(line)
    for path in without_faces:
        run.console.say(f"no face in {printable(path)}")
    differences = Counter(difference for face in faces for difference in face["differs"])
    if differences:
        n_faces = sum(bool(face["differs"]) for face in faces)
        kinds = ", ".join(f"{n} {difference}" for difference, n in differences.most_common())
        run.console.note(
            f"{n_faces} of {count(len(faces), 'face')} differ from all enrolled faces ({kinds}): look at them"
            " before you rely on the answer."
        )


def _name(face: dict[str, Any]) -> str:
    if face["unknown"]:
        return "unknown"
    return printable(_with_doubt(face["name"], face["doubt"], face["rival"]))


def _with_doubt(name: str, doubt: str, rival: str | None) -> str:
    """Return a person's name with the reason for which somebody should look at it."""
    reasons = {"rival": f" (or {rival}?)", "same image": " (twice in this image?)"}
    return name + reasons.get(doubt, "")


def _draw(reader: "FaceReader", result: "IdentifiedImage", folder: Path, drawn_names: set[str]) -> Path:
    """Draw boxes and names on an image, which is decoded again for it."""
    from nearsight.faces.annotated_images import draw, save
    from nearsight.images import decode

    source = result.image.source
    image = decode(source, limits=reader.limits).image
    return save(draw(image, [_label(face) for face in result.faces]), folder, source.path, drawn_names)


def _label(face: "IdentifiedFace") -> "Label":
    from nearsight.faces.annotated_images import Label

    if face.person is None:
        return Label(face.face.box, "unknown", "unknown")
    text = _with_doubt(f"{face.person} {face.similarity:.2f}", face.doubt, face.rival)
    return Label(face.face.box, text, "doubtful" if face.ambiguous else "known")


def _geometry(box: list[int]) -> str:
    left, top, right, bottom = box
    return f"{right - left}x{bottom - top}+{left}+{top}"
