"""Keeping the bank of faces: its persons, its groups, and forgetting them."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nearsight import text_format
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
from nearsight.cli.commands.rm import is_terminal
from nearsight.cli.framework import BadInputError, Command, Run, out_file
from nearsight.errors import CollectionNotFoundError
from nearsight.text_format import count, plain, printable

if TYPE_CHECKING:
    from nearsight.faces import FaceBank

_YES = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


@click.command(
    "list",
    cls=Command,
    json_shape="""{"persons": [{"name", "faces": int}], "unnamed": int, "models": [{"model", "license"}]},
 or with NAME: {"faces": [{"id", "path", "box", "quality": float, "problems", "enrolled_at"}]}""",
    examples=("nearsight faces list", 'nearsight faces list "Ada Lovelace"'),
)
@click.argument("name", required=False)
@BANK
@click.pass_obj
def list_(run: Run, /, name: str | None, *, bank: Path | None) -> None:
    """List the persons in the bank, or the faces of one."""
    found = open_bank(run, bank)
    if name is not None:
        return _list_faces(run, found, name)
    persons = found.persons()
    unnamed = len(found.faces("")) if persons or found.faces() else 0
    run.console.document(
        {
            "persons": [{"name": person, "faces": n} for person, n in persons.items()],
            "unnamed": unnamed,
            "models": models_of(found),
        }
    )
    rows = [[printable(person), str(n)] for person, n in persons.items()]
    for line in text_format.table(rows, header=("person", "faces") if rows else (), right=(1,)):
        run.console.say(line)
    if unnamed:
        run.console.say(f"and {count(unnamed, 'face')} without a name")
    for model in models_of(found):
        run.console.note(f"{model['model']}: license {model['license']}")
    return None


def _list_faces(run: Run, bank: "FaceBank", name: str) -> None:
    found = bank.faces(name)
    if not found:
        raise BadInputError(
            f"there is nobody called {name!r} in the bank; `nearsight faces list` tells who is"
        )
    run.console.document(
        {
            "faces": [
                {
                    "id": face.id,
                    "path": face.path,
                    "box": whole(face.box),
                    "quality": round(face.quality, 3),
                    "problems": face.problems,
                    "enrolled_at": plain(face.enrolled_at),
                }
                for face in found
            ]
        }
    )
    rows = [[face.id, f"{face.quality:.2f}", face.problems, printable(face.path)] for face in found]
    for line in text_format.table(rows, header=("id", "quality", "problems", "path"), right=(1,)):
        run.console.say(line)


@click.command(
    cls=Command,
    json_shape="""{"removed": int, "persons": int}""",
    examples=('nearsight faces remove "Ada Lovelace"', "nearsight faces remove --face 3fa9c1d2a0b17755"),
)
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--face", "ids", multiple=True, metavar="ID", help="Remove a single face. Repeatable.")
@_YES
@BANK
@click.pass_obj
def remove(run: Run, /, names: tuple[str, ...], *, ids: tuple[str, ...], yes: bool, bank: Path | None) -> int:
    """Remove persons or single faces for good.

    Their vectors and names are gone from all files of the bank, old versions of the table included. The
    photographs stay where they are, and so do backups that others made.
    """
    if not names and not ids:
        raise click.UsageError("name whom to remove: NAME... or --face ID")
    found = open_bank(run, bank)
    # Nobody should have to say yes to what cannot be done.
    found.require(names, faces=ids)
    _confirm(f"Remove {', '.join([*names, *ids])} from the bank for good?", yes)
    removed = found.remove(names, faces=ids)
    run.console.document({"removed": removed, "persons": len(found.persons())})
    run.console.say(f"{count(removed, 'face')} removed")
    return 0


@click.command(
    cls=Command,
    json_shape="""{"name", "faces": int}""",
    examples=('nearsight faces rename ada "Ada Lovelace"',),
)
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@BANK
@click.pass_obj
def rename(run: Run, /, old: str, new: str, *, bank: Path | None) -> None:
    """Give a person another name."""
    found = open_bank(run, bank)
    if new in found.persons() and new != old:
        raise BadInputError(f"there is a person {new!r} already; to make the two one: nearsight faces merge")
    n = found.rename(old, new)
    run.console.document({"name": new, "faces": n})
    run.console.say(f"{printable(old)} is {printable(new)} now ({count(n, 'face')})")


@click.command(
    cls=Command,
    json_shape="""{"name", "faces": int}""",
    examples=('nearsight faces merge ada "A. Lovelace" --into "Ada Lovelace"',),
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--into", required=True, metavar="NAME", help="What the person is called then.")
@BANK
@click.pass_obj
def merge(run: Run, /, names: tuple[str, ...], *, into: str, bank: Path | None) -> None:
    """Make several persons one."""
    n = open_bank(run, bank).merge(names, into)
    run.console.document({"name": into, "faces": n})
    run.console.say(f"{printable(into)} has {count(n, 'face')} now")


@click.command(
    cls=Command,
    json_shape="""{"faces": int, "file"}""",
    examples=("nearsight faces export bank.json", "nearsight faces export vectors.npz"),
)
@click.argument(
    "file", metavar="FILE(.json|.npz)", type=click.Path(path_type=Path), callback=out_file(".json", ".npz")
)
@BANK
@click.pass_obj
def export(run: Run, /, file: Path, *, bank: Path | None) -> None:
    """Write what the bank holds to a file.

    As .json, everything but the vectors; as .npz, the vectors with ids, persons and paths. The file is
    personal data like the bank, and `faces remove` does not reach it.
    """
    import numpy as np

    from nearsight.artifacts import exported

    found, vectors = open_bank(run, bank).vectors()
    with exported(file) as stream:
        if file.suffix.lower() == ".json":
            rows = [plain(asdict(face)) for face in found]
            stream.write(json.dumps({"faces": rows}, indent=1).encode("ascii"))
        else:
            ids, persons, paths = ([getattr(f, key) for f in found] for key in ("id", "person", "path"))
            safe = [path.encode("utf-8", "backslashreplace").decode() for path in paths]
            np.savez(
                stream, vectors=vectors, ids=np.array(ids), persons=np.array(persons), paths=np.array(safe)
            )
    run.console.document({"faces": len(found), "file": str(file)})
    run.console.say(f"{count(len(found), 'face')} written to {printable(str(file))}")


@click.command(
    cls=Command,
    json_shape="""{"groups": [{"group": str|null, "name": str|null, "size": int,
             "faces": [{"id", "path", "box", "enrolled": bool}]}],
 "alone": int, "failed": [{"path", "reason"}]}""",
    examples=("nearsight faces group", "nearsight faces group album/"),
)
@click.argument("paths", nargs=-1, metavar="[PATH...]", type=click.Path())
@RATE
@click.option("--detector", metavar="NAME", help="For a new bank, as for `faces enroll`.")
@click.option("--recognizer", metavar="NAME", help="For a new bank, as for `faces enroll`.")
@BANK
@reading_options
@click.pass_obj
def group(
    run: Run,
    /,
    paths: tuple[str, ...],
    *,
    rate: float,
    detector: str | None,
    recognizer: str | None,
    bank: Path | None,
    allow_remote: bool,
    reading: dict[str, Any],
) -> int:
    """Group the faces in images into persons, named or not.

    Without PATH, the images of the collection. Faces like those of an enrolled person are put to that
    person; the others form groups, to be named with `faces name`. Two faces of one image are never one
    person. The faces found are kept in the bank without a name until `faces forget --unnamed`.
    """
    from nearsight.faces import FaceBank

    wanted: Any = list(paths)
    if paths:
        require_some(paths)
    else:
        wanted = [path for item in run.open_collection().items() for path in item.paths[:1]]
    models = {"detector": detector, "recognizer": recognizer}
    try:
        found = open_bank(run, bank, **reading)
    except CollectionNotFoundError:
        chosen: Any = {key: value for key, value in models.items() if value}
        found = FaceBank.create(bank_directory(run, bank), **chosen, **reading)
    failed = found.scan(wanted, allow_remote=allow_remote)
    groups = found.group(false_match_rate=rate)
    several = [group for group in groups if group.person or len(group.faces) > 1]
    run.console.document(
        {
            "groups": [
                {
                    "group": group.group or None,
                    "name": group.person or None,
                    "size": len(group.faces),
                    "faces": [
                        {
                            "id": face.id,
                            "path": face.path,
                            "box": whole(face.box),
                            "enrolled": bool(face.person),
                        }
                        for face in group.faces
                    ],
                }
                for group in several
            ],
            "alone": len(groups) - len(several),
            "failed": [asdict(failure) for failure in failed],
        }
    )
    rows = [
        [printable(group.person) or group.group, str(len(group.faces)), printable(group.faces[0].path)]
        for group in several
    ]
    for line in text_format.table(rows, header=("who", "faces", "for example") if rows else (), right=(1,)):
        run.console.say(line)
    run.console.say(f"{count(len(groups) - len(several), 'face')} like no other")
    if any(group.group for group in several):
        run.console.note('Say who a group is: nearsight faces name g1 "NAME"')
    return tell(run, failed)


@click.command(
    cls=Command,
    json_shape="""{"group", "name", "faces": int}""",
    examples=('nearsight faces name g1 "Ada Lovelace"',),
)
@click.argument("group_name", metavar="GROUP")
@click.argument("person", metavar="NAME")
@BANK
@click.pass_obj
def name(run: Run, /, group_name: str, person: str, *, bank: Path | None) -> None:
    """Say who a group of faces is.

    They are enrolled under that name.
    """
    n = open_bank(run, bank).name_group(group_name, person)
    run.console.document({"group": group_name, "name": person, "faces": n})
    run.console.say(f"{printable(person)}: {count(n, 'face')} enrolled")


@click.command(
    cls=Command,
    json_shape="""{"removed": int}""",
    examples=("nearsight faces forget --unnamed", "nearsight faces forget --all --yes"),
)
@click.option("--unnamed", is_flag=True, help="Every face that has no person's name.")
@click.option("--all", "everything", is_flag=True, help="The whole bank.")
@_YES
@BANK
@click.pass_obj
def forget(run: Run, /, *, unnamed: bool, everything: bool, yes: bool, bank: Path | None) -> None:
    """Remove unnamed faces, or the whole bank, for good."""
    if unnamed == everything:
        raise click.UsageError("say what to forget: either --unnamed or --all")
    found = open_bank(run, bank)
    if everything:
        removed = len(found.faces())
        _confirm(f"Remove the bank at {found.directory} with {count(removed, 'face')} for good?", yes)
        found.destroy()
    else:
        removed = found.forget_unnamed()
    run.console.document({"removed": removed})
    run.console.say(f"{count(removed, 'face')} removed")


def _confirm(question: str, yes: bool) -> None:
    if yes:
        return
    if not is_terminal():
        raise BadInputError(f"{question} Add --yes to do it")
    click.confirm(question, err=True, abort=True)
