"""What is wrong with a set of images: faults of single images, duplicates, leaks, outliers, labels."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import PurePath

import numpy as np

from nearsight.analyses.coverage import Coverage, coverage
from nearsight.analyses.duplicate_groups import N_STEPS, DuplicateGroup
from nearsight.analyses.duplicates import find_duplicates
from nearsight.analyses.image_quality import (
    COMMON_SHARE,
    KINDS,
    MEASURES,
    QualityLimits,
    measure_thumbnails,
)
from nearsight.analyses.label_check import check_labeled_images
from nearsight.analyses.labeled_images import SPLIT_FOLDERS, LabeledImages
from nearsight.collection import Collection, Item
from nearsight.collection.arrays import VectorTable, read_vectors
from nearsight.collection.notebook import ShownImage, Thumbnails, rows_html
from nearsight.errors import InvalidParameterError
from nearsight.estimators.anomaly import knn_distances
from nearsight.estimators.classification.label_errors import MIN_ROWS, LabelCut
from nearsight.estimators.conformal import tail_alarms, tail_p_values
from nearsight.images.path_encoding import absolute
from nearsight.parameters import require_number
from nearsight.progress import steps
from nearsight.text_format import ShortRepr, count

#: Every kind of issue, in the order of reports.
ISSUE_KINDS = (
    "unreadable", *KINDS, "outlier", "uncovered", "duplicate", "leak", "label_conflict", "wrong_label",
    "doubtful_label", "rare_class",
)  # fmt: skip
_N_NEIGHBORS = 5
_MAX_REFERENCES = 5000
# A class of fewer images than this share of the median class is rare.
_RARE_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Issue:
    """Something to look at.

    Attributes
    ----------
    kind : str
        One of `ISSUE_KINDS`.
    ids, paths : list of str
        The images; none for an image that could not be read, or a class without images.
    severity : float
        In 0..1; comparable within a kind.
    detail : str
        Why, in words.
    """

    kind: str
    ids: list[str]
    paths: list[str]
    severity: float
    detail: str


@dataclass(frozen=True, repr=False)
class Audit(ShortRepr):
    """The result of `audit`.

    Attributes
    ----------
    issues : list of Issue
        By kind, the most severe of a kind first.
    n_images : int
    limits : QualityLimits
        Of the faults of single images.
    class_counts : dict of str to int
        Images of each class; empty without labels.
    notes : list of str
        What was not checked, and what is common to the whole set.
    label_cuts : list of LabelCut
        What to expect of the labels that look wrong; empty where they were not checked.
    coverage : list of Coverage
        How much of each other split lies near images of ``train``; empty without such splits.
    thumbnails : Thumbnails
        Of the collection, for notebooks.
    """

    issues: list[Issue]
    n_images: int
    limits: QualityLimits
    class_counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    label_cuts: list[LabelCut] = field(default_factory=list)
    coverage: list[Coverage] = field(default_factory=list)
    thumbnails: Thumbnails = field(default_factory=Thumbnails, repr=False, compare=False)

    @property
    def counts(self) -> dict[str, int]:
        """Number of issues of each kind that occurs."""
        counts = Counter(issue.kind for issue in self.issues)
        return {kind: counts[kind] for kind in ISSUE_KINDS if counts[kind]}

    def _repr_html_(self) -> str:
        shown = {kind: [_shown(issue) for issue in self.issues if issue.kind == kind] for kind in self.counts}
        rows = [(f"{kind.replace('_', ' ')}: {len(shown[kind]):,}", shown[kind]) for kind in shown]
        return rows_html(rows, self.thumbnails)


def audit(
    collection: Collection,
    *,
    labels: Mapping[str, str] | None = None,
    split: str | None = None,
    where: str | None = None,
    false_alarm_rate: float = 0.01,
    good: Collection | None = None,
    n_threads: int | None = None,
    progress: bool | None = None,
) -> Audit:
    """Look for images that are faulty, double, alone, in two splits, or labeled wrong.

    *Method*: faults of single images are measured on the stored thumbnails, and compared with limits for a
    stated rate (`image_quality`). Outliers are far from their 5 nearest neighbors, by an extrapolated tail
    (`conformal.tail_alarms`). Duplicates are those of
    `find_duplicates`; one across two splits is a leak, one with two labels a conflict. Wrong labels are those
    of `check_labels`, as many as it estimates; the others that look like another class are doubtful. Images
    of other splits that ``train`` has nothing like are uncovered (`coverage`).

    Parameters
    ----------
    labels : mapping of str to str, optional
        Labels by id or by path. One image under two paths may have two, which is an issue.
    split : str, optional
        The metadata key of the split. By default, folders named train, validation or test tell.
    where : str, optional
        Only images that match.
    false_alarm_rate : float, default 0.01
        Share of good images that may be called blurred, dark, bright or flat.
    good : Collection, optional
        Images that are known to be good, of which the limits are learned. By default they are
        those of ordinary photographs.
    n_threads, progress
        See `nearsight.Embedder`.

    Raises
    ------
    CalibrationError
        Too few good images for the rate.
    InvalidParameterError
        There is no such metadata key.

    Notes
    -----
    Memory: the vectors, 4 bytes a number. No image file is opened. Nothing is changed.
    """
    require_number("false_alarm_rate", false_alarm_rate)
    if good is None:
        limits = QualityLimits.shipped(false_alarm_rate)
    else:
        ids = [item.id for item in good.items()]
        measured = measure_thumbnails(good, ids, n_threads=n_threads, progress=progress)
        limits = QualityLimits.of_good((s for _, s in measured), false_alarm_rate, str(good.directory))
    items = {item.id: item for item in collection.items(where)}
    splits = _splits(collection, items, split, where)
    with steps(1 + N_STEPS):
        issues, notes = _quality(collection, items, limits, n_threads, progress)
        table = read_vectors(collection, where)
        issues += _outliers(table, items)
        duplicates = find_duplicates(collection, where=where, n_threads=n_threads, progress=progress)
    label_sets = _label_sets(items, labels or {})
    issues += _duplicate_issues(duplicates.groups, splits, label_sets)
    covered = _coverage(table, splits, duplicates.groups, label_sets)
    issues += _uncovered_issues(covered, items)
    counts: dict[str, int] = {}
    cuts: list[LabelCut] = []
    if labels is None:
        notes.append("labels were not given, so that classes were not checked")
    else:
        label_by_id = {id: next(iter(names)) for id, names in label_sets.items() if len(names) == 1}
        counts = dict(Counter(label_by_id.values()))
        found, cuts = _label_issues(table, items, label_by_id, notes)
        issues += found
        issues += list(_rare_classes(counts, label_by_id, items))
    if not splits:
        notes.append("there are no splits, so that leaks were not looked for")
    order = {kind: i for i, kind in enumerate(ISSUE_KINDS)}
    issues.sort(key=lambda issue: (order[issue.kind], -issue.severity))
    thumbnails = Thumbnails(collection.thumbnails)
    return Audit(issues, len(items), limits, counts, notes, cuts, covered, thumbnails)


def _shown(issue: Issue) -> ShownImage:
    """Return the first image of an issue, and why it is one."""
    return ShownImage("".join(issue.ids[:1]), "".join(issue.paths[:1]), issue.detail)


def _issue(kind: str, items: Iterable[Item], severity: float, detail: str) -> Issue:
    items = list(items)
    paths = [path for item in items for path in item.paths]
    return Issue(kind, [item.id for item in items], paths, round(min(max(severity, 0.0), 1.0), 4), detail)


def _quality(
    collection: Collection,
    items: Mapping[str, Item],
    limits: QualityLimits,
    n_threads: int | None,
    progress: bool | None,
) -> tuple[list[Issue], list[str]]:
    issues: list[Issue] = []
    n_measured = 0
    for id, measured in measure_thumbnails(collection, list(items), n_threads=n_threads, progress=progress):
        n_measured += 1
        item = items[id]
        faults = limits.faults(measured, item.width, item.height)
        issues += [_issue(fault.kind, [item], fault.severity, fault.detail) for fault in faults]
    notes = []
    if n_measured < len(items):
        notes.append(f"{len(items) - n_measured:,} images have no thumbnail, and were not measured")
    for kind, n in Counter(issue.kind for issue in issues).items():
        if n > COMMON_SHARE * max(n_measured, 1):
            advice = (
                "learn the limits on good images of your own (--good)"
                if kind in MEASURES
                else "pass over these"
            )
            notes.append(
                f"{n / n_measured:.0%} of the images are {kind.replace('_', ' ')}, as usual in this set;"
                f" {advice}"
            )
    return issues, notes


def _outliers(table: VectorTable, items: Mapping[str, Item]) -> list[Issue]:
    n = len(table)
    rng = np.random.default_rng(0)
    sample = np.sort(rng.choice(n, min(n, _MAX_REFERENCES), replace=False))
    own = np.full(n, -1, np.int64)
    own[sample] = np.arange(len(sample))
    distances = knn_distances(table.X, table.X[sample], own, n_neighbors=_N_NEIGHBORS)
    p = tail_p_values(distances)
    alarms = np.flatnonzero(tail_alarms(distances))
    typical = float(np.median(distances)) if n else 0.0
    return [
        _issue(
            "outlier",
            [items[table.ids[row]]],
            1 - float(p[row]) * n,
            f"its nearest neighbors are at a distance of {distances[row]:.2f}, where {typical:.2f} is usual",
        )
        for row in alarms
        if table.ids[row] in items
    ]


def _duplicate_issues(
    groups: Sequence[DuplicateGroup], splits: Mapping[str, set[str]], labels: Mapping[str, set[str]]
) -> Iterator[Issue]:
    for group in groups:
        yield _issue("duplicate", group.items, group.agreement, _duplicate_detail(group))
        names = set[str]().union(*(splits.get(item.id, set()) for item in group.items))
        if len(names) > 1:
            found = " and ".join(sorted(names))
            yield _issue("leak", group.items, group.agreement, f"the same image is in {found}")
        found_labels = sorted(set[str]().union(*(labels.get(item.id, set()) for item in group.items)))
        if len(found_labels) > 1:
            detail = f"the same image is labeled {' and '.join(map(repr, found_labels))}"
            yield _issue("label_conflict", group.items, group.agreement, detail)


def _duplicate_detail(group: DuplicateGroup) -> str:
    if others := len(group.items) - 1:
        kept = PurePath(group.keep.path).name or group.keep.id[:12]
        return f"{count(others, 'other image')} {'agrees' if others == 1 else 'agree'} with {kept}"
    first, *further = [*group.keep.paths[1:], *group.hard_links]
    return f"identical to {first}" + (f" and {count(len(further), 'more file')}" if further else "")


def _coverage(
    table: VectorTable,
    splits: Mapping[str, set[str]],
    groups: Sequence[DuplicateGroup],
    label_sets: Mapping[str, set[str]],
) -> list[Coverage]:
    names = {item.id: group.keep.id for group in groups for item in group.items}
    labels = {id: next(iter(found)) for id, found in label_sets.items() if len(found) == 1}
    return coverage(table.ids, table.X, splits, names, labels) if splits else []


def _uncovered_issues(found: Sequence[Coverage], items: Mapping[str, Item]) -> Iterator[Issue]:
    for part in found:
        for id, distance in part.uncovered:
            detail = (
                f"of {part.split}, and at a distance of {distance:.2f} from the nearest image of train, where"
                f" {part.radius:.2f} is the most that is usual"
            )
            yield _issue(
                "uncovered", [items[id]], (distance - part.radius) / (1 - part.radius + 1e-6), detail
            )


def _label_sets(items: Mapping[str, Item], labels: Mapping[str, str]) -> dict[str, set[str]]:
    """Return the labels of each image that has any, under its id and its paths."""
    by_path = {absolute(name): label for name, label in labels.items() if name not in items}
    sets = {
        id: {labels[id]} if id in labels else {by_path[p] for p in map(absolute, item.paths) if p in by_path}
        for id, item in items.items()
    }
    return {id: names for id, names in sets.items() if names}


def _splits(
    collection: Collection, items: Mapping[str, Item], key: str | None, where: str | None
) -> dict[str, set[str]]:
    """Return the names of the splits of each image that has one."""
    if key is not None:
        splits: dict[str, set[str]] = {}
        for batch in collection.iter_batches(["id", key], where):
            for id, value in zip(batch.column("id").to_pylist(), batch.column(key).to_pylist(), strict=True):
                if value is not None:
                    splits[id] = {str(value)}
        return splits
    folders = {path: _folders(path) for item in items.values() for path in item.paths}
    # A folder above all images divides nothing, whatever its name: the home of a user called dev.
    ends = (end(folders.values(), default=[]) for end in (min, max))
    n_above = sum(1 for _ in takewhile(lambda names: names[0] == names[1], zip(*ends, strict=False)))
    by_folder = {
        id: {split for path in item.paths for split in _split_of(folders[path][n_above:])}
        for id, item in items.items()
    }
    found = {id: names for id, names in by_folder.items() if names}
    return found if len(set[str]().union(*found.values())) > 1 else {}


def _folders(path: str) -> list[str]:
    return [part.lower() for part in PurePath(path).parts[:-1]]


def _split_of(folders: Sequence[str]) -> list[str]:
    """Return the split that the first of the folders names that names one; none if there is none."""
    return [SPLIT_FOLDERS[name] for name in folders if name in SPLIT_FOLDERS][:1]


def _label_issues(
    table: VectorTable, items: Mapping[str, Item], labels: Mapping[str, str], notes: list[str]
) -> tuple[list[Issue], list[LabelCut]]:
    rows = [row for row, id in enumerate(table.ids) if id in labels]
    ids = [table.ids[row] for row in rows]
    y = np.array([labels[id] for id in ids], dtype=str)
    paths = [items[id].path if id in items else "" for id in ids]
    try:
        check = check_labeled_images(LabeledImages(ids, paths, table.X[rows], y))
    except InvalidParameterError as error:
        notes.append(f"labels were not checked: {error}")
        return [], []
    issues = [
        Issue(
            "wrong_label" if suspect.likely else "doubtful_label",
            [suspect.id],
            [suspect.path],
            round(-suspect.margin, 4),
            f"labeled {suspect.label!r}, and looks like {suspect.suggested!r} ({suspect.cut})",
        )
        for suspect in check.suspects
    ]
    return issues, check.cuts


def _rare_classes(
    counts: Mapping[str, int], labels: Mapping[str, str], items: Mapping[str, Item]
) -> Iterator[Issue]:
    if len(counts) < 2:
        return
    median = float(np.median(list(counts.values())))
    for label, n in counts.items():
        if n < MIN_ROWS or n < _RARE_SHARE * median:
            members = [items[id] for id, name in labels.items() if name == label and id in items]
            n_all = sum(counts.values())
            detail = f"the class {label!r} has {n:,} of {n_all:,} images; the median is {median:,.0f}"
            yield _issue("rare_class", members, 1 - n / max(median, n), detail)
