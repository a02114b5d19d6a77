"""The report of `nearsight faces group`: the faces of each group, to name them."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from nearsight.faces import BankedFace, FaceGroup
from nearsight.reports.gallery import Card, Section, write_gallery
from nearsight.text_format import count

# A browser takes too long to open more; the command's answer lists all.
MAX_GROUPS, MAX_FACES, MAX_ALONE = 200, 24, 200

_BLANK = "NAME"

_FOOTER = (
    "Faces are personal data. This page holds images of them, or the folder beside it does: keep both as"
    " carefully as the photographs, and delete them together. `nearsight faces rm` and `forget` do not change"
    " them.",
    "Type the names of the people you know, and copy the lines at the end of the page into a terminal.",
    "Two faces of one image are never put together. Look at every group before you name it. A click shows the"
    " whole image.",
)


def shown_faces(groups: Sequence[FaceGroup]) -> list[BankedFace]:
    """Return the faces that the report shows."""
    named, unnamed, alone = _parts(groups)
    shown = [face for group in [*unnamed, *named] for face in _selection(group)]
    return shown + [group.faces[0] for group in alone]


def write_groups(file: Path, groups: Sequence[FaceGroup], crops: Mapping[str, bytes], *, bank: Path) -> None:
    """Write the report of the groups of faces in a bank.

    Parameters
    ----------
    file : Path
        Replaced whole.
    groups : sequence of FaceGroup
        From `FaceBank.group`.
    crops : mapping of str to bytes
        JPEGs of the faces by their ids, see `faces.crops`; those that are missing have no image.
    bank : Path
        Directory of the bank, for the commands.
    """
    named, unnamed, alone = _parts(groups)
    sections = [
        Section(
            f"Group {group.group}",
            _lead(group),
            sheet=_sheet(_selection(group), crops),
            commands=[
                f'nearsight faces name --bank {shlex.quote(str(bank.absolute()))} {group.group} "{_BLANK}"'
            ],
            blank=_BLANK,
        )
        for group in unnamed
    ]
    sections += [
        Section(group.person, _lead(group), sheet=_sheet(_selection(group), crops)) for group in named
    ]
    if alone:
        lead = f"{count(len(groups_alone(groups)), 'face')} that no other face is similar enough to."
        faces = [group.faces[0] for group in alone]
        sections.append(Section("In no group", lead, sheet=_sheet(faces, crops), is_folded=bool(sections)))
    n_unnamed = sum(not group.person and len(group.faces) > 1 for group in groups)
    facts = {
        "Faces": f"{sum(len(group.faces) for group in groups):,}",
        "Groups to name": f"{n_unnamed:,}",
        "Persons": f"{sum(bool(group.person) for group in groups):,}",
        "In no group": f"{len(groups_alone(groups)):,}",
        "Bank": str(bank),
    }
    title = f"{count(n_unnamed, 'group')} of faces to name" if n_unnamed else "No groups of faces to name"
    lead = f"The {MAX_GROUPS} largest of {n_unnamed:,}." if n_unnamed > MAX_GROUPS else ""
    write_gallery(file, title, sections, lead=lead, facts=facts, footer=_FOOTER)


def groups_alone(groups: Sequence[FaceGroup]) -> list[FaceGroup]:
    """Return the groups of one face without a person."""
    return [group for group in groups if not group.person and len(group.faces) == 1]


def _parts(groups: Sequence[FaceGroup]) -> tuple[list[FaceGroup], list[FaceGroup], list[FaceGroup]]:
    """Return the groups to show: of persons, without a name, and of one face."""
    named = [group for group in groups if group.person]
    unnamed = [group for group in groups if not group.person and len(group.faces) > 1]
    return named[:MAX_GROUPS], unnamed[:MAX_GROUPS], groups_alone(groups)[:MAX_ALONE]


def _selection(group: FaceGroup) -> list[BankedFace]:
    """Return the faces to show: those that only match a person before enrolled ones, then the best images."""
    return sorted(group.faces, key=lambda face: (bool(face.person), -face.quality))[:MAX_FACES]


def _lead(group: FaceGroup) -> str:
    n_matched = sum(not face.person for face in group.faces)
    parts = [count(len(group.faces), "face")]
    if group.person and n_matched:
        parts = [f"{count(n_matched, 'face')} matched, {len(group.faces) - n_matched} enrolled"]
    if len(group.faces) > MAX_FACES:
        parts.append(f"{MAX_FACES} shown")
    return ", ".join(parts) + "."


def _sheet(faces: Sequence[BankedFace], crops: Mapping[str, bytes]) -> list[Card]:
    return [Card(face.path, crops.get(face.id)) for face in faces]
