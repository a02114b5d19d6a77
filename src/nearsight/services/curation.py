"""Decisions about what an audit found: written as a table, filled in by a person, and carried out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearsight.analyses.image_quality import KINDS
from nearsight.collection import Collection
from nearsight.collection.arrays import image_lookup
from nearsight.errors import MetadataError
from nearsight.services.csv_tables import read_rows, write_columns
from nearsight.services.trash import Trash, TrashReport

if TYPE_CHECKING:
    from nearsight.analyses.audit import Audit

COLUMNS = ("path", "issue", "severity", "detail", "decision")
KEEP, REMOVE, LABEL = "keep", "remove", "label="
#: The metadata key of labels, where the audit read none from another.
LABEL_KEY = "label"


@dataclass(frozen=True, slots=True)
class CurationDecision:
    """What a person wrote beside one image.

    Attributes
    ----------
    line : int
        Of the table.
    path : str
    decision : str
        ``remove``, or ``label=NAME``.
    """

    line: int
    path: str
    decision: str


@dataclass(frozen=True)
class CurationReport:
    """What was carried out.

    Attributes
    ----------
    removed : TrashReport or None
        Files that were put into the trash; None if none was to be.
    labeled : int
        Images that got another label.
    unknown : list of CurationDecision
        Decisions about files that are not in the collection.
    """

    removed: TrashReport | None
    labeled: int
    unknown: list[CurationDecision] = field(default_factory=list)


def write_issues(file: Path, audit: "Audit") -> int:
    """Write a table with a row for each image of each issue, and an empty column to decide.

    A fault of single images that all of them have is one row without a path: there is nothing to decide.

    Parameters
    ----------
    file : Path
    audit : Audit

    Returns
    -------
    int
        Rows with an image.

    Raises
    ------
    StorageError
        The disk refuses.
    """
    of_all = [kind for kind in KINDS if 1 < audit.n_images == audit.counts.get(kind)]
    rows = [
        ["", kind, "", f"each of the {audit.n_images:,} images has it, so it is a property of the set", ""]
        for kind in of_all
    ]
    rows += [
        [path, issue.kind, f"{issue.severity:.3f}", issue.detail, ""]
        for issue in audit.issues
        if issue.kind not in of_all
        for path in issue.paths
    ]
    write_columns(file, COLUMNS, rows)
    return len(rows) - len(of_all)


def remaining_issues(collection: Collection, issues: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return issues of `audit_document` without images that have left the collection since.

    An issue is settled, and left out, if its image has left, or if fewer than two are left of several that
    it is about.
    """
    ids = {id for issue in issues for id in issue["ids"]}
    there = {item.id for item in collection.items(ids=list(ids))}
    remaining = []
    for issue in issues:
        places = [place for place, id in enumerate(issue["ids"]) if id in there]
        if issue["ids"] and len(places) < min(2, len(issue["ids"])):
            continue
        left = {name: [issue[name][place] for place in places] for name in ("ids", "paths")} if places else {}
        remaining.append({**issue, **left})
    return remaining


def read_decisions(file: Path) -> list[CurationDecision]:
    """Read the table that a person filled in; rows without a decision, and those with ``keep``, are passed.

    Raises
    ------
    MetadataError
        A decision is unknown, or two rows of one image contradict each other. Nothing was changed.
    """
    decisions: dict[str, CurationDecision] = {}
    for line, row in read_rows(file, "path", "decision"):
        decision = row["decision"].strip()
        if not decision or decision == KEEP:
            continue
        if decision != REMOVE and not (decision.startswith(LABEL) and decision[len(LABEL) :].strip()):
            raise MetadataError(
                f"{file}, line {line}: the decision is {decision!r}; it must be {KEEP}, {REMOVE} or"
                f" {LABEL}NAME"
            )
        other = decisions.setdefault(row["path"], CurationDecision(line, row["path"], decision))
        if other.decision != decision:
            raise MetadataError(
                f"{file}, lines {other.line} and {line}: {row['path']} has the decisions"
                f" {other.decision!r} and {decision!r}; keep one of them"
            )
    return list(decisions.values())


def apply_decisions(
    collection: Collection, decisions: Sequence[CurationDecision], label_key: str = LABEL_KEY
) -> CurationReport:
    """Carry out decisions: files go into the collection's trash, labels into its metadata.

    Parameters
    ----------
    collection : Collection
    decisions : sequence of CurationDecision
    label_key : str
        Metadata key of the label.

    Raises
    ------
    MetadataError
        `label_key` cannot be a key.
    StorageError
        A folder cannot be written to; then no file was moved.
    """
    lookup = image_lookup(collection)
    ids = {d.path: found for d in decisions if len(found := lookup.find_file(d.path, "")) == 1}
    known = [(next(iter(ids[d.path])), d) for d in decisions if d.path in ids]
    labels = {id: d.decision[len(LABEL) :].strip() for id, d in known if d.decision != REMOVE}
    if labels:
        collection.update_metadata(list(labels), [{label_key: label} for label in labels.values()])
    files: dict[str, list[str]] = {}
    for id, decision in known:
        if decision.decision == REMOVE:
            files.setdefault(id, []).append(decision.path)
    report = Trash(collection, set(_folders(files.values()))).put(files) if files else None
    return CurationReport(report, len(labels), [d for d in decisions if d.path not in ids])


def _folders(paths: Iterable[list[str]]) -> Iterator[Path]:
    for of_image in paths:
        for path in of_image:
            yield Path(path).parent
