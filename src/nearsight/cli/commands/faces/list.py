"""`faces list`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from nearsight import text_format
from nearsight.cli.commands.faces import options as face_options
from nearsight.cli.framework import BadInputError, Command, Run
from nearsight.text_format import count, plain, printable

if TYPE_CHECKING:
    from nearsight.faces import FaceBank


@click.command(
    "list",
    cls=Command,
    json_shape="""{"persons": [{"name", "faces": int}], "unnamed": int, "models": [{"model", "license"}]},
 or with NAME: {"faces": [{"id", "path", "box", "quality": float, "problems", "enrolled_at"}]}""",
    examples=("nearsight faces list", 'nearsight faces list "Ada Lovelace"'),
)
@click.argument("name", required=False)
@face_options.bank
@click.pass_obj
def list_(run: Run, /, name: str | None, *, bank: Path | None) -> None:
    """List the persons in the bank, or the faces of one."""
    face_bank = face_options.open_bank(run, bank)
    if name is None:
        _list_persons(run, face_bank)
    else:
        _list_faces(run, face_bank, name)


def _list_persons(run: Run, bank: "FaceBank") -> None:
    from nearsight.services.faces import models_document

    persons, models = bank.persons(), models_document(bank)
    n_unnamed = len(bank.faces(""))
    run.console.document(
        {
            "persons": [{"name": person, "faces": n} for person, n in persons.items()],
            "unnamed": n_unnamed,
            "models": models,
        }
    )
    rows = [[printable(person), str(n)] for person, n in persons.items()]
    for line in text_format.table(rows, header=("person", "faces") if rows else (), right=(1,)):
        run.console.say(line)
    if n_unnamed:
        run.console.say(f"and {count(n_unnamed, 'face')} without a name")
    for model in models:
        run.console.note(f"{model['model']}: license {model['license']}")


def _list_faces(run: Run, bank: "FaceBank", name: str) -> None:
    from nearsight.services.faces import rounded

    faces = bank.faces(name)
    if not faces:
        raise BadInputError(f"the bank has no person {name!r}; `nearsight faces list` lists all persons")
    run.console.document(
        {
            "faces": [
                {
                    "id": face.id,
                    "path": face.path,
                    "box": rounded(face.box),
                    "quality": round(face.quality, 3),
                    "problems": face.problems,
                    "enrolled_at": plain(face.enrolled_at),
                }
                for face in faces
            ]
        }
    )
    rows = [[face.id, f"{face.quality:.2f}", face.problems, printable(face.path)] for face in faces]
    for line in text_format.table(rows, header=("id", "quality", "problems", "path"), right=(1,)):
        run.console.say(line)
