"""The report of `nearsight audit`: issues by kind, the most severe first."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from nearsight.analyses.audit import Audit, Issue
from nearsight.analyses.coverage import Coverage
from nearsight.collection import Collection
from nearsight.collection.arrays import items_by_id
from nearsight.reports.gallery import Card, Row, Section, write_gallery
from nearsight.text_format import count

# Of each kind; a browser takes too long to open more, and the command's answer lists all.
MAX_ISSUES = 100
# Images of one issue.
_MAX_MEMBERS = 24

_LEADS = {
    "unreadable": "Files that could not be read as images.",
    "blurred": "The sharpest edges are wider than those of nearly all good images.",
    "dark": "Even the brightest parts are dark.",
    "bright": "Even the darkest parts are bright.",
    "low_contrast": "Only a part of the possible range is used.",
    "near_constant": "There is hardly anything to see.",
    "tiny": "Too few pixels to show details.",
    "odd_aspect": "A strip: the longer side is more than three times the shorter.",
    "outlier": "Unlike all other images.",
    "uncovered": "Images of another split that train has nothing like: more such images are missing there.",
    "duplicate": "Images that show the same; the command duplicates says which to keep.",
    "leak": "The same image in two splits: a test on it measures memory.",
    "label_conflict": "The same image with different labels.",
    "wrong_label": "Images that look like another class; the command classify check shows more.",
    "doubtful_label": "Images that look a little more like another class. Few of these labels are wrong.",
    "rare_class": "Classes with few images.",
}
_FOOTER = (
    "Severity is 0 at the limit and 1 at the worst; it is comparable within a kind. Nothing was changed.",
    "Cards link to the originals.",
)


def write_audit(file: Path, collection: Collection, audit: Audit, place: str) -> None:
    """Write the report of an audit.

    Parameters
    ----------
    file : Path
        Replaced whole.
    collection : Collection
        It has the thumbnails.
    audit : Audit
    place : str
        What was audited.
    """
    sections = [
        _section(collection, kind, [issue for issue in audit.issues if issue.kind == kind], n)
        for kind, n in audit.counts.items()
    ]
    if audit.class_counts:
        ordered = sorted(audit.class_counts.items(), key=lambda pair: (-pair[1], pair[0]))
        table = [["class", "images"], *([label, f"{n:,}"] for label, n in ordered)]
        sections.append(Section("Classes", "Images of each class.", table=table))
    sections += [_coverage(part) for part in audit.coverage]
    if any(cut.n for cut in audit.label_cuts):
        sections.append(_cuts(audit))
    facts = {
        "Images": f"{audit.n_images:,}",
        "Issues": f"{len(audit.issues):,}",
        "False alarms": f"at most {audit.limits.false_alarm_rate:.1%} of good images",
        "Limits": f"learned on {count(audit.limits.n_examples, 'image')}",
        "Audited": place,
    }
    lead = " ".join(f"{note[:1].upper()}{note[1:]}." for note in audit.notes)
    title = f"{count(len(audit.issues), 'issue')} in {count(audit.n_images, 'image')}"
    footer = (*_FOOTER, f"Limits: {audit.limits.source}.")
    write_gallery(file, title, sections, lead=lead, facts=facts, footer=footer)


def _coverage(part: Coverage) -> Section:
    lead = (
        f"{part.share:.0%} of {count(part.n, 'image')} of {part.split} lie within a distance of"
        f" {part.radius:.2f} of an image of train; 95 % would, if both were drawn alike. So near is the"
        " nearest other image to 95 % of train itself, near-duplicates left out."
    )
    by_share = sorted(part.by_class.items(), key=lambda item: item[1][1] / item[1][0])
    rows = [[label, f"{n:,}", f"{covered / n:.0%}"] for label, (n, covered) in by_share]
    table = [["class", "images", "covered"], *rows] if rows else []
    return Section(f"Coverage of {part.split}", lead, table=table, is_folded=len(rows) > 30)


def _cuts(audit: Audit) -> Section:
    table = [
        ["from the most suspect label on", "images", "of these wrong, expected", "of the wrong ones, found"]
    ]
    for cut in audit.label_cuts:
        share = "–" if cut.precision is None else f"{cut.precision:.0%}"
        table.append([cut.name, f"{cut.n:,}", share, f"{cut.recall:.0%}"])
    lead = (
        "Each image was classified by the others, with its own label and with every other one: so it is known"
        " where wrong labels rank. The figures hold for labels that are wrong at random; of labels that"
        " confuse two similar classes, fewer are found."
    )
    return Section("Labels: how far to look", lead, table=table)


def _section(collection: Collection, kind: str, issues: Sequence[Issue], n: int) -> Section:
    shown = issues[:MAX_ISSUES]
    title = f"{kind.replace('_', ' ').capitalize()} ({n:,})"
    lead = _LEADS[kind] + (f" The {len(shown):,} most severe." if len(shown) < n else "")
    ids = [id for issue in shown for id in issue.ids[:_MAX_MEMBERS]]
    paths = {id: item.path for id, item in items_by_id(collection, ids).items()}
    thumbnails = collection.thumbnails(list(paths))
    if all(len(issue.ids) <= 1 and len(issue.paths) <= 1 for issue in shown):
        cards = [card for issue in shown for card in _cards(issue, paths, thumbnails)]
        return Section(title, lead, grid=cards)
    return Section(title, lead, [_row(issue, paths, thumbnails) for issue in shown])


def _row(issue: Issue, paths: Mapping[str, str], thumbnails: Mapping[str, bytes]) -> Row:
    query = Card("", None, name=issue.kind, words=issue.detail, linked=False)
    return Row(query, list(_cards(issue, paths, thumbnails, detail=False)), f"severity {issue.severity:.2f}")


def _cards(
    issue: Issue, paths: Mapping[str, str], thumbnails: Mapping[str, bytes], *, detail: bool = True
) -> Iterator[Card]:
    facts = {"severity": f"{issue.severity:.2f}", "why": issue.detail} if detail else {}
    if len(issue.ids) > 1 or (issue.ids and len(issue.paths) <= 1):
        for id in issue.ids[:_MAX_MEMBERS]:
            yield Card(paths.get(id, ""), thumbnails.get(id), metadata=facts)
        return
    for path in issue.paths[:_MAX_MEMBERS]:
        yield Card(path, thumbnails.get(issue.ids[0]) if issue.ids else None, metadata=facts)
